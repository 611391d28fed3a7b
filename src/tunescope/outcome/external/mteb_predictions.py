"""Rankings that MTEB saved (`prediction_folder`), scored query by query against the judgements, which MTEB does not save with them.

Reference: https://github.com/embeddings-benchmark/mteb, mteb/abstasks/abstask.py
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytrec_eval

from tunescope.errors import AlignmentError, FormatError, InputError
from tunescope.outcome.external.measured import Measured, read_json
from tunescope.texts.tables import read_tsv

Qrels = Mapping[str, Mapping[str, int]]
META = "mteb_model_meta"
END = "_predictions"
COLUMNS = ("query-id", "corpus-id", "score")


def read_predictions(path: Path, qrels: Qrels) -> list[Measured]:
    """nDCG@10 of every judged query in a <task>_predictions.json, by trec_eval, gain = grade, as MTEB scores it.

    A query without a relevant document is not evaluated; a judged query without a ranking is counted as unscored.

    Raises FormatError (no rankings in it), AlignmentError (none of its queries is judged).
    """
    judged = {query: dict(row) for query, row in qrels.items() if any(grade > 0 for grade in row.values())}
    if not judged:
        raise InputError("the qrels have no query with a relevant document; give query id → document id → grade, or their .tsv")
    found = []
    for name, rankings in _rankings(path).items():
        ranked = {query: documents for query, documents in rankings.items() if query in judged}
        if not ranked:
            continue
        scores = pytrec_eval.RelevanceEvaluator({query: judged[query] for query in ranked}, {"ndcg_cut_10"}).evaluate(ranked)
        task = path.stem.removesuffix(END) + ("" if name.startswith("default/") else f", {name}")
        values = {query: score["ndcg_cut_10"] for query, score in scores.items()}
        found.append(Measured(task, "ndcg@10", values, str(path), items="queries", unscored=len(judged) - len(ranked)))
    if not found:
        raise AlignmentError(f"{path}: none of its queries is in the qrels; are they of this task and split?")
    return found


def read_qrels(path: Path) -> Qrels:
    """Judgements from a .tsv with the header query-id, corpus-id, score, as BEIR has them."""
    if not path.is_file():
        raise InputError(f"{path}: no such file of judgements; give a .tsv with the columns {', '.join(COLUMNS)}")
    table = read_tsv(path)
    if not set(COLUMNS) <= set(table.columns):
        raise FormatError(f"{path}: its columns are {', '.join(table.columns)}; judgements need {', '.join(COLUMNS)}")
    qrels: dict[str, dict[str, int]] = {}
    for query, document, grade, row in zip(*(table.columns[name] for name in COLUMNS), table.rows, strict=True):
        if not grade.lstrip("-").isdigit():
            raise InputError(f"{path}, {row}: the grade is {grade!r}, not a whole number")
        qrels.setdefault(query, {})[document] = int(grade)
    return qrels


def is_predictions(file: Path) -> bool:
    """Whether a .json is predictions saved by MTEB."""
    with file.open("rb") as opened:
        return file.stem.endswith(END) and META.encode() in opened.read(400)


def _rankings(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Query id → document id → score, by subset/split."""
    saved = {subset: part for subset, part in read_json(path).items() if subset != META and isinstance(part, dict)}
    splits = {f"{subset}/{split}": rows for subset, part in saved.items() for split, rows in part.items()}
    rankings = {name: rows for name, rows in splits.items() if isinstance(rows, dict) and rows}
    if not rankings or not all(isinstance(documents, dict) for rows in rankings.values() for documents in rows.values()):
        raise FormatError(f"{path}: no rankings in it; of MTEB's predictions, only those of retrieval tasks can be scored here")
    return rankings
