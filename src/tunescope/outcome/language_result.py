"""What a language-model comparison shows: rows with intervals, the detail for the report, and a frame with one row a text."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from tunescope.models.heads import MASKED, LanguageHead
from tunescope.outcome.outcome import Outcome
from tunescope.outcome.scored_tokens import ScoredTokens
from tunescope.outcome.token_losses import ChangedToken, TextSums, Top
from tunescope.stats import Spread, paired, t_interval
from tunescope.texts import Corpus
from tunescope.texts.masking import SHARE

_MOST_TEXTS = 20
_CONTEXT = 24  # tokens shown on each side of one that changed
_BITS = 1 / math.log(2)
_DIVERGENCES = ("kl", "kl_reverse", "agreement")


@dataclass(frozen=True, eq=False)
class LanguageResult:
    """Base and tuned on the same tokens: rows for comparison.json, what the report shows, and a frame with one row a text.

    per_text: id, text, tokens (predicted), base, tuned, delta, and, where both read the same tokens, kl, kl_reverse, agreement.
    """

    outcomes: tuple[Outcome, ...]
    detail: dict[str, Any]
    per_text: pd.DataFrame


@dataclass(frozen=True, eq=False)
class Measured:
    """All sums of one call, as rows, detail and frame."""

    name: str
    corpus: Corpus
    heads: tuple[LanguageHead, LanguageHead]
    tokens: list[ScoredTokens]
    sums: list[TextSums]
    max_length: int
    margin: float
    seed: int

    def result(self) -> LanguageResult:
        """What the caller gets."""
        return LanguageResult(self.outcomes(), self.detail(), self.frame.reset_index(drop=True))

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

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for every text that both sides predict something of, indexed by its number."""
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
        """JSON-able: means are over texts, each with its mean over tokens; `by_token` weighs every token alike (docs/outcomes.md)."""
        frame = self.frame
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
            "masked_share": SHARE if self.heads[0].kind == MASKED else None,
            "seed": self.seed,
            "windows": {"texts_cut": self.tokens[0].cut, "windows": len(self.tokens[0].text)},
            "left_out": len(self.corpus) - len(frame),
            **self._means(),
            **self._divergences(),
            "by_token": self._by_token(),
            "most_changed_tokens": [self._token(token) for token in self.sums[0].most] if self.together else [],
            "most_changed_texts": self._texts(),
            "notes": self._notes(),
        }

    def _means(self) -> dict[str, Any]:
        rows = self.frame.index.to_numpy()
        found: dict[str, Any] = {}
        for side, name in enumerate(("base", "tuned")):
            loss = float((self.losses[side][rows] / self.scored(side).per_text[rows]).mean())
            found |= {f"{name}_loss": loss, f"{name}_perplexity": _exp(loss), f"{name}_bits_per_byte": float(self.bits(side, rows).mean())}
        return found

    def _by_token(self) -> dict[str, Any]:
        rows = self.frame.index.to_numpy()
        found: dict[str, Any] = {}
        for side, name in enumerate(("base", "tuned")):
            loss = float(self.losses[side][rows].sum() / self.scored(side).per_text[rows].sum())
            found |= {f"{name}_loss": loss, f"{name}_perplexity": _exp(loss)}
        weights = self.frame["tokens"]
        return found | {key: float(np.average(self.frame[key], weights=weights)) if self.together else None for key in _DIVERGENCES}

    def _divergences(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key in _DIVERGENCES:
            values = self.frame[key].to_numpy() if self.together else None
            found[key] = None if values is None else float(values.mean())
            found[f"{key}_interval"] = None if values is None else _interval(values, 1.0 if key == "agreement" else math.inf)
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
        left, right = max(first, place - _CONTEXT), min(end, place + 1 + _CONTEXT)

        def words(start: int, stop: int) -> str:
            return tokenizer.decode(tokens.ids[start:stop].tolist(), clean_up_tokenization_spaces=False)

        def named(top: Top) -> list[list[Any]]:
            return [[tokenizer.decode([number], clean_up_tokenization_spaces=False), chance] for number, chance in top]

        return {
            "text_id": self.corpus.ids[int(tokens.text[window])],
            "before": words(left, place),
            "token": words(place, place + 1),
            "after": words(place + 1, right),
            "base_loss": token.base_loss,
            "tuned_loss": token.tuned_loss,
            "kl": token.kl,
            "base_top": named(token.base_top),
            "tuned_top": named(token.tuned_top),
        }

    def _notes(self) -> list[str]:
        notes, empty = [*self.corpus.warnings], len(self.corpus) - len(self.frame)
        if empty:
            notes.append(f"{empty:,} of {len(self.corpus):,} texts have no token to predict: left out")
        cut = max(own.cut for own in self.tokens)
        if cut:
            notes.append(f"{cut:,} texts are longer than {self.max_length:,} tokens: read in windows that do not see each other")
        if not self.together:
            notes.append("the tokenizers of base and tuned cut the texts differently: losses are in bits per byte, and there is no KL")
        elif len(set(self.sums[0].vocabularies)) > 1:
            base, tuned = self.sums[0].vocabularies
            notes.append(f"vocabularies of {base:,} and {tuned:,} tokens: KL and agreement are over the first {min(base, tuned):,}")
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


def _interval(values: np.ndarray, top: float) -> list[float] | None:
    """95% Student-t interval of a mean over texts; None for one text."""
    if len(values) < 2:
        return None
    spread = Spread(float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1)
    return [*t_interval(float(values.mean()), spread, bounds=(0.0, top))]
