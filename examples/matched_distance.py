"""Does masked-LM tuning hurt retrieval, and contrastive tuning not, once both have moved the model equally far?

    python examples/matched_distance.py --pairs pairs.tsv --probe sentences.txt --retrieval scifact --retrieval squad2_dev --out matched

MiniLM is tuned by contrastive pairs and by masked-LM with a head that is fitted first, three seeds each, and once more through a head
that starts random and through one that stays random; and it is moved without training, by gaussian noise and by random updates of the
rank and norm of an adapter. All are brought to the same NPS by interpolation (noise: by its size), and searched with before and after.
Every number goes to OUT/results.jsonl as it is made, and what is stopped goes on; docs/matched-distance.md is written from that file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tunescope as ts
from tunescope.demo import demo_base
from tunescope.models import Model
from tunescope.stats import Paired, paired
from tunescope.texts import Collection, Pairs
from tunescope.training.distance_read import DistanceReader

ARMS = {  # objective, settings, whether a drawn head learns along
    "contrastive": ("contrastive", {}, True),
    "mlm, head fitted": ("mlm", {"head": "fitted"}, True),
    "mlm, head random": ("mlm", {"head": "random"}, True),
    "mlm, head frozen": ("mlm", {"head": "random"}, False),
}
RANK, RATE, MAX_LENGTH = 8, 1e-3, 96
ONCE = ("mlm, head random", "mlm, head frozen")  # one seed tells what the head does
TOLERANCE = 0.005
COLUMNS = ("name", "base", "tuned", "delta", "low", "high", "p", "n", "verdict")


class Results:
    """Rows that are written as they come; what is there already is not made again."""

    def __init__(self, out: Path):
        self.path, self.scores = out / "results.jsonl", out / "scores"
        self.scores.mkdir(parents=True, exist_ok=True)
        self.rows = [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def __contains__(self, key: tuple[str, str, int]) -> bool:
        return any((row["condition"], row["state"], row["seed"]) == key for row in self.rows)

    def add(self, row: dict, scores: dict[str, np.ndarray]) -> None:
        """A row, and nDCG@10 of every query, which paired comparisons are made of."""
        np.savez(self.scores / f"{row['condition']}-{row['state']}-{row['seed']}.npz", **scores)
        self.rows.append(row)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print({key: row[key] for key in ("condition", "state", "seed", "nps")}, row["outcomes"], flush=True)


def smaller(collection: Collection, documents: int | None, queries: int | None) -> Collection:
    """Every relevant passage of the first queries by hash, and further passages by hash up to that number."""
    chosen = ts.texts.as_corpus(list(collection.query_texts)).chosen(min(queries or len(collection.query_ids), len(collection.query_ids)))
    kept = [collection.query_ids[place] for place in chosen]
    relevant = {doc for query in kept for doc, grade in collection.qrels[query].items() if grade}
    order = ts.texts.as_corpus(list(collection.doc_texts)).chosen(len(collection.doc_ids))
    more = [collection.doc_ids[place] for place in order if collection.doc_ids[place] not in relevant]
    few = relevant | set(more[: max(0, (documents or len(collection.doc_ids)) - len(relevant))])
    texts = dict(zip(collection.doc_ids, collection.doc_texts, strict=True))
    asked = dict(zip(collection.query_ids, collection.query_texts, strict=True))
    return Collection.of(
        {id: texts[id] for id in collection.doc_ids if id in few},
        {id: asked[id] for id in kept},
        {query: {doc: grade for doc, grade in collection.qrels[query].items() if doc in few} for query in kept},
        name=collection.name,
    )


def trained(args: argparse.Namespace, arm: str, seed: int, pairs: Pairs) -> Model:
    """The model of one run; an unfinished run is gone on with."""
    objective, settings, learns = ARMS[arm]
    out = args.out / "runs" / f"{arm.replace(', ', '-').replace(' ', '-')}-{seed}"
    how = {"settings": settings, "train_drawn_head": learns, "options": {"rank": RANK}, "schedule": {"lr": RATE}, "trajectory": None}
    how["fit_batches"] = args.fit_batches
    run = ts.finetune(
        str(demo_base()), objective=objective, pairs=pairs, out=out, resume=(out / "run.json").exists(), seed=seed, announce=print, **how
    )
    return run.model


def moved(args: argparse.Namespace, base: Model, pairs: Pairs, probe: ts.texts.Corpus) -> Iterator[tuple[str, str, int, float, Model]]:
    """(condition, state, seed, size, model): every run as trained, and everything at the level that all runs reach."""
    reader = DistanceReader.of(base, probe, measure="nps")
    runs = {(arm, seed): trained(args, arm, seed, pairs) for arm in ARMS for seed in range(1 if arm in ONCE else args.seeds)}
    for (arm, seed), model in runs.items():
        yield arm, "as trained", seed, 1.0, model
    reached = {key: reader.value(model) for key, model in runs.items()}
    level = np.ceil(100 * max(reached.values())) / 100
    print(f"all runs reach NPS {level:.2f}: {({f'{arm} {seed}': round(value, 3) for (arm, seed), value in reached.items()})}", flush=True)
    adapter = runs["contrastive", 0]
    for seed in range(args.draws):
        yield "random update", "same norm", seed, 1.0, ts.perturb(base, kind="random-rank", like=adapter, seed=seed)
    for (arm, seed), model in runs.items():
        at = ts.perturb_to(base, probe, to={"nps": level}, kind="interpolate", like=model, tolerance=TOLERANCE)
        yield arm, "matched", seed, at.draws[0].parameter, at.draws[0].model
    for name, kind, like in (("gaussian noise", "gaussian", None), ("random update", "random-rank", adapter)):
        for draw in ts.perturb_to(base, probe, to={"nps": level}, kind=kind, like=like, tolerance=TOLERANCE, draws=args.draws).draws:
            yield name, "matched", draw.seed, draw.parameter, draw.model


def measured(args: argparse.Namespace) -> Results:
    """Every model, measured once: NPS on the probe texts, and nDCG@10 of every collection against the base's, paired per query."""
    results = Results(args.out)
    pairs = ts.read_pairs(args.pairs).sample(args.count)
    probe = ts.read_texts(args.probe, sample=args.texts)
    base = ts.load_model(demo_base(), name="all-MiniLM-L6-v2")
    reader = DistanceReader.of(base, probe, measure="nps")
    collections = [smaller(ts.read_collection(folder), args.documents, args.queries) for folder in args.retrieval]
    known: dict[str, object] = {}
    for condition, state, seed, size, model in moved(args, base, pairs, probe):
        if (condition, state, seed) in results:
            continue
        rows, scores = [], {}
        for collection in collections:
            found = ts.retrieval(known.get(collection.name, base), model, collection, max_length=MAX_LENGTH)
            known[collection.name] = found.vectors[0]
            rows.append({key: found.outcomes[0].row()[key] for key in COLUMNS})
            scores |= {collection.name: found.scores["ndcg@10"][1], f"{collection.name} base": found.scores["ndcg@10"][0]}
        place = {"condition": condition, "state": state, "seed": seed, "size": size}
        results.add(place | {"nps": reader.value(model), "outcomes": rows}, scores)
    return results


def table(results: Results, collections: list[str]) -> str:
    """The page's tables: every condition in every state, and the two objectives against each other where they are as far.

    Differences are of nDCG@10, averaged over the seeds of a condition query by query; the interval and the test are over queries.
    """
    places = list(dict.fromkeys((row["condition"], row["state"]) for row in results.rows))
    lines = [f"| moved by | state | seeds | NPS | size | {' | '.join(f'{name}, Δ nDCG@10 [95%]' for name in collections)} |"]
    lines.append("|---" * (5 + len(collections)) + "|")
    for condition, state in sorted(places, key=lambda place: place[1] == "matched"):
        rows = [row for row in results.rows if (row["condition"], row["state"]) == (condition, state)]
        cells = [_shown(_paired(results, rows, name)) for name in collections]
        numbers = f"{_spread([row['nps'] for row in rows])} | {_spread([row['size'] for row in rows])}"
        lines.append(f"| {condition} | {state} | {len(rows)} | {numbers} | {' | '.join(cells)} |")
    lines += ["", f"| at matched distance | {' | '.join(collections)} |", "|---" * (1 + len(collections)) + "|"]
    for one, two in (("contrastive", "mlm, head fitted"), ("gaussian noise", "mlm, head fitted"), ("gaussian noise", "contrastive")):
        sides = [[row for row in results.rows if (row["condition"], row["state"]) == (name, "matched")] for name in (one, two)]
        cells = [_shown(paired(*(_scores(results, rows, name) for rows in sides[::-1]), margin=0.01)) for name in collections]
        lines.append(f"| {one} − {two} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _scores(results: Results, rows: list[dict], collection: str) -> np.ndarray:
    """nDCG@10 of every query, averaged over the models of these rows."""
    files = (np.load(results.scores / f"{row['condition']}-{row['state']}-{row['seed']}.npz") for row in rows)
    return np.mean([file[collection] for file in files], axis=0)


def _paired(results: Results, rows: list[dict], collection: str) -> Paired:
    base = np.load(results.scores / f"{rows[0]['condition']}-{rows[0]['state']}-{rows[0]['seed']}.npz")[f"{collection} base"]
    return paired(base, _scores(results, rows, collection), margin=0.01)


def _shown(found: Paired) -> str:
    return f"{found.delta:+.3f} [{found.low:+.3f}, {found.high:+.3f}] {found.verdict}"


def _spread(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 and np.std(values) > 0 else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", required=True, help="question and passage, as ts.read_pairs takes them")
    parser.add_argument("--probe", required=True, help="texts on which NPS is measured")
    parser.add_argument("--retrieval", required=True, action="append", help="a folder in the BEIR layout, or folder:split; repeat it")
    parser.add_argument("--out", type=Path, default=Path("matched"))
    parser.add_argument("--count", type=int, default=1000, help="pairs to train on")
    parser.add_argument("--seeds", type=int, default=3, help="of every run")
    parser.add_argument("--draws", type=int, default=3, help="of noise and of random updates")
    parser.add_argument("--fit-batches", type=int, default=50, help="to fit a drawn head on, the body frozen")
    parser.add_argument("--texts", type=int, default=500, help="probe texts")
    parser.add_argument("--documents", type=int, default=600, help="passages of a collection")
    parser.add_argument("--queries", type=int, default=300, help="of a collection")
    args = parser.parse_args()
    results = measured(args)
    written = table(results, [row["name"] for row in results.rows[0]["outcomes"]])
    (args.out / "table.md").write_text(written + "\n")
    print(written)


if __name__ == "__main__":
    main()
