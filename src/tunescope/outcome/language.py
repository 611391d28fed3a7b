"""Language-model loss: how well base and tuned predict the same held-out tokens, and where their predictions part."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from tunescope.activations.batches import TokenisedTexts
from tunescope.activations.capture import check_length, check_request
from tunescope.errors import InputError, ModelError, TextsError
from tunescope.models import Model, load_pair
from tunescope.models.heads import LanguageHead, language_head
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.scored_tokens import ScoredTokens, same_tokens, scored_tokens, tokens_of
from tunescope.outcome.token_losses import ChangedToken, TextSums, Top, sum_losses
from tunescope.stats import Spread, paired, t_interval
from tunescope.texts import Corpus, as_corpus
from tunescope.texts.masking import SHARE
from tunescope.texts.sets import default_name

MARGIN = 0.01  # nats per token, 1% of perplexity
_MOST_TEXTS = 20
_CONTEXT = 24  # tokens shown on each side of one that changed
_BITS = 1 / math.log(2)


@dataclass(frozen=True, eq=False)
class LanguageResult:
    """Base and tuned on the same tokens: rows for comparison.json, what the report shows, and a frame with one row a text.

    per_text: id, text, tokens (predicted), base, tuned, delta, and, where both read the same tokens, kl, kl_reverse, agreement.
    """

    outcomes: tuple[Outcome, ...]
    detail: dict[str, Any]
    per_text: pd.DataFrame


def language_loss(
    base: Any,
    tuned: Any,
    texts: Any,
    *,
    name: str | None = None,
    column: str | None = None,
    sample: int | None = None,
    max_length: int | None = None,
    batch_size: int = 16,
    margin: float = MARGIN,
    seed: int = 0,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> LanguageResult:
    """Compare base and tuned as language models on held-out texts, paired per text.

    A causal model's loss is the mean of −log p(token | tokens before it); a masked model's is that of 15% of the tokens, all replaced by
    the mask token at once and chosen by a hash of seed, text and position, so both sides are asked the same. The paired item is the mean
    loss of a text, in nats per token; perplexity is its exp. Longer texts are read in windows that do not overlap. Where the tokenizers
    cut the texts differently, losses are compared in bits per byte of text, −Σ log₂ p / bytes, and there is no KL.

    Args:
        base, tuned: what `load_pair` takes, or Models. An adapter and its base share one copy of the weights.
        texts, column, sample: as `as_corpus` takes them. name: what reports call the texts; None: after their file.
        max_length: tokens of a window, special ones included; None: the shorter of what the two declare.
        margin: the difference in nats per token that would not matter. seed: of the masks, the sample and the intervals.
        progress: called with (done, total) tokens.

    Raises: ModelError (no language-model head, heads of two kinds, no mask token, a causal head that sees ahead), TextsError (nothing to
        predict), InputError, ActivationError (NaN or Inf), and as `load_pair` and `as_corpus`.
    """
    if not 0 <= margin < math.inf:
        raise InputError(f"margin {margin} asked for; it is a difference in nats per token, 0 or more")
    corpus = as_corpus(texts, column=column, sample=sample, seed=seed)
    models = load_pair(base, tuned, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    check_request(models[0], corpus.texts, None, (), batch_size)
    heads = _two_heads(*models)
    length = min(check_length(model, max_length) for model in models)
    tokens, sums = _losses(heads, corpus, length=length, seed=seed, batch_size=batch_size, progress=progress)
    measured = _Measured(name or default_name(texts), corpus, heads, tokens, sums, length, margin, seed)
    return LanguageResult(measured.outcomes(), measured.detail(), measured.frame.reset_index(drop=True))


def _two_heads(base: Model, tuned: Model) -> tuple[LanguageHead, LanguageHead]:
    """Raises ModelError when a side has no head, saying so where tuning lost it, or when one is masked and the other causal."""
    own = language_head(base)
    try:
        other = language_head(tuned)
    except ModelError as error:
        raise ModelError(f"{error} ('{base.name}' has one, but its head on the tuned body would be a third model)") from error
    if own.kind != other.kind:
        raise ModelError(
            f"'{base.name}' is a {own.kind} and '{tuned.name}' a {other.kind} language model; their losses are of different tasks, "
            "measure retrieval or probes"
        )
    return own, other


def _losses(
    heads: Sequence[LanguageHead],
    corpus: Corpus,
    *,
    length: int,
    seed: int,
    batch_size: int,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[ScoredTokens], list[TextSums]]:
    """The predicted tokens and sums: of both sides together where they read the same tokens, else of each side alone."""
    cut: list[TokenisedTexts] = [tokens_of(head.model, corpus.texts, corpus.ids) for head in heads]
    together = same_tokens(*cut) and heads[0].model.tokenizer.mask_token_id == heads[1].model.tokenizer.mask_token_id
    groups = [list(heads)] if together else [[head] for head in heads]
    tokens = [
        scored_tokens(group[0].model, group[0].kind, own, corpus.texts, max_length=length, seed=seed)
        for group, own in zip(groups, cut, strict=False)
    ]
    total, done = sum(int(own.read.lengths.sum()) for own in tokens), 0

    def step(more: int) -> None:
        nonlocal done
        done += more
        if progress is not None:
            progress(done, total)

    if not all(len(own.scored) for own in tokens):
        raise TextsError(f"{corpus.source}: no token to predict in {len(corpus):,} texts; give texts of two tokens or more")
    found = [
        sum_losses(group, own, ids=corpus.ids, batch_size=batch_size, progress=step) for group, own in zip(groups, tokens, strict=True)
    ]
    return tokens, found


@dataclass(frozen=True, eq=False)
class _Measured:
    """All sums of one call, as rows, detail and frame."""

    name: str
    corpus: Corpus
    heads: tuple[LanguageHead, LanguageHead]
    tokens: list[ScoredTokens]
    sums: list[TextSums]
    max_length: int
    margin: float
    seed: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "frame", self._frame())

    frame: Any = None  # one row a text that both sides predict something of, indexed by its number

    @property
    def together(self) -> bool:
        return len(self.sums) == 1

    @property
    def bytes(self) -> np.ndarray:
        """UTF-8 bytes of each text."""
        return np.array([len(text.encode()) for text in self.corpus.texts])

    @property
    def losses(self) -> list[np.ndarray]:
        """Summed losses of base and tuned, (n,) each."""
        return [side for sums in self.sums for side in sums.losses]

    def scored(self, side: int) -> ScoredTokens:
        """The predicted tokens of base (0) or tuned (1)."""
        return self.tokens[min(side, len(self.tokens) - 1)]

    def bits(self, side: int, rows: np.ndarray) -> np.ndarray:
        """Bits per byte: mean loss of a predicted token, times the text's tokens, over its bytes."""
        own = self.scored(side)
        return self.losses[side][rows] / own.per_text[rows] * own.tokens[rows] / self.bytes[rows] * _BITS

    def _frame(self) -> pd.DataFrame:
        counts = [own.per_text for own in self.tokens]
        rows = np.flatnonzero(np.min(counts, axis=0) > 0)
        means = [side[rows] / self.scored(number).per_text[rows] for number, side in enumerate(self.losses)]
        sides = means if self.together else [self.bits(number, rows) for number in (0, 1)]
        found = {
            "id": [self.corpus.ids[row] for row in rows],
            "text": [self.corpus.texts[row] for row in rows],
            "tokens": counts[0][rows],
            "base": sides[0],
            "tuned": sides[1],
            "delta": sides[1] - sides[0],
        }
        if self.together:
            shared = {"kl": self.sums[0].kl, "kl_reverse": self.sums[0].kl_reverse, "agreement": self.sums[0].agree}
            found |= {key: values[rows] / counts[0][rows] for key, values in shared.items()}
        return pd.DataFrame(found, index=rows)

    def outcomes(self) -> tuple[Outcome, ...]:
        """loss and perplexity where the tokens are the same, else bits per byte."""
        rows = self.frame.index.to_numpy()
        margin = self.margin if self.together else self.margin * self.tokens[0].tokens[rows].sum() / self.bytes[rows].sum() * _BITS
        base, tuned = self.frame["base"].to_numpy(), self.frame["tuned"].to_numpy()
        found = paired(base, tuned, margin=margin, higher_is_better=False, seed=self.seed)
        metric = "loss" if self.together else "bits_per_byte"
        main = Outcome.of(found, kind="language", name=self.name, metric=metric, items="texts", main=True)
        return (main, perplexity(main)) if self.together else (main,)

    def detail(self) -> dict[str, Any]:
        """JSON-able: see the brief fields in docs/outcomes.md; means are over texts, `by_token` weighs every token alike."""
        frame, rows = self.frame, self.frame.index.to_numpy()
        losses = [self.losses[side][rows] / self.scored(side).per_text[rows] for side in (0, 1)]
        weighed = [_ratio(self.losses[side][rows], self.scored(side).per_text[rows]) for side in (0, 1)]
        return {
            "kind": "language",
            "name": self.name,
            "head": self.heads[0].kind,
            "source": self.corpus.source,
            "hash": self.corpus.sha256,
            "texts": len(frame),
            "tokens": int(frame["tokens"].sum()),
            "unit": "nats per token" if self.together else "bits per byte",
            "max_length": self.max_length,
            "masked_share": SHARE if self.heads[0].kind == "masked" else None,
            "seed": self.seed,
            "windows": {"texts_cut": self.tokens[0].cut, "windows": len(self.tokens[0].text)},
            "left_out": len(self.corpus) - len(frame),
            "base_loss": float(losses[0].mean()),
            "tuned_loss": float(losses[1].mean()),
            "base_perplexity": _exp(losses[0].mean()),
            "tuned_perplexity": _exp(losses[1].mean()),
            "base_bits_per_byte": float(self.bits(0, rows).mean()),
            "tuned_bits_per_byte": float(self.bits(1, rows).mean()),
            **self._divergences(),
            "by_token": {
                "base_loss": weighed[0],
                "tuned_loss": weighed[1],
                "base_perplexity": _exp(weighed[0]),
                "tuned_perplexity": _exp(weighed[1]),
                **{key: _ratio(frame[key] * frame["tokens"], frame["tokens"]) if key in frame else None for key in ("kl", "kl_reverse")},
                "agreement": _ratio(frame["agreement"] * frame["tokens"], frame["tokens"]) if self.together else None,
            },
            "most_changed_tokens": [self._token(token) for token in self.sums[0].most] if self.together else [],
            "most_changed_texts": self._texts(),
            "notes": self._notes(),
        }

    def _divergences(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, top in (("kl", math.inf), ("kl_reverse", math.inf), ("agreement", 1.0)):
            values = self.frame[key].to_numpy() if self.together else None
            found[key] = None if values is None else float(values.mean())
            found[f"{key}_interval"] = None if values is None else _interval(values, top)
        return found

    def _texts(self) -> list[dict[str, Any]]:
        order = np.argsort(-self.frame["delta"].abs().to_numpy(), kind="stable")[:_MOST_TEXTS]
        columns = ["id", "text", "tokens", "base", "tuned", "delta"]
        found = self.frame[columns].iloc[order].to_dict("records")
        divergences = self.frame["kl"].iloc[order] if self.together else [None] * len(order)
        return [row | {"kl": kl} for row, kl in zip(found, divergences, strict=True)]

    def _token(self, token: ChangedToken) -> dict[str, Any]:
        """A changed token with the words around it, as the tokenizer writes them."""
        tokens, tokenizer = self.tokens[0], self.heads[0].model.tokenizer
        window = int(tokens.window_of(np.array([token.place]))[0])
        first, end, place = int(tokens.read.offsets[window]), int(tokens.read.offsets[window + 1]), token.place
        words = [tokens.ids[max(first, place - _CONTEXT) : place], tokens.ids[place : place + 1], tokens.ids[place + 1 : min(end, place + 1 + _CONTEXT)]]
        before, own, after = (tokenizer.decode(part.tolist(), clean_up_tokenization_spaces=False) for part in words)

        def named(top: Top) -> list[list[Any]]:
            return [[tokenizer.decode([number], clean_up_tokenization_spaces=False), chance] for number, chance in top]

        return {
            "text_id": self.corpus.ids[int(tokens.text[window])],
            "before": before,
            "token": own,
            "after": after,
            "base_loss": token.base_loss,
            "tuned_loss": token.tuned_loss,
            "kl": token.kl,
            "base_top": named(token.base_top),
            "tuned_top": named(token.tuned_top),
        }

    def _notes(self) -> list[str]:
        notes, texts = [*self.corpus.warnings], len(self.corpus) - len(self.frame)
        if texts:
            notes.append(f"{texts:,} of {len(self.corpus):,} texts have no token to predict: left out")
        cut = max(own.cut for own in self.tokens)
        if cut:
            notes.append(f"{cut:,} texts are longer than {self.max_length:,} tokens: read in windows that do not see each other")
        if not self.together:
            notes.append("the tokenizers of base and tuned cut the texts differently: losses are in bits per byte, and there is no KL")
        elif len(set(self.sums[0].vocabularies)) > 1:
            base, tuned = self.sums[0].vocabularies
            notes.append(f"vocabularies of {base:,} and {tuned:,} tokens: KL and agreement are over the {min(base, tuned):,} that both know")
        return notes


def perplexity(loss: Outcome) -> Outcome:
    """The row of perplexity, exp(loss), that says what the row of the loss says: its interval is that of the ratio, times the base's."""
    at = _exp(loss.base)

    def moved(by: float | None) -> float | None:
        return None if by is None or at is None or not math.isfinite(by) or by > 700 else at * math.expm1(by)

    return replace(
        loss,
        metric="perplexity",
        base=at,
        tuned=_exp(loss.tuned),
        delta=moved(loss.delta),
        low=moved(loss.low),
        high=moved(loss.high),
        margin=moved(loss.margin) or 0.0,
        detectable=moved(loss.detectable),
        sd=None,
        main=False,
    )


def _exp(value: float | None) -> float | None:
    return None if value is None or value > 700 else math.exp(value)


def _ratio(total: Any, count: Any) -> float:
    return float(np.sum(total) / np.sum(count))


def _interval(values: np.ndarray, top: float) -> list[float] | None:
    """95% Student-t interval of a mean over texts; None for one text."""
    if len(values) < 2:
        return None
    spread = Spread(float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1)
    return [*t_interval(float(values.mean()), spread, bounds=(0.0, top))]
