"""Language-model loss: how well base and tuned predict the same held-out tokens, and where their predictions part."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from tunescope.activations.batches import TokenisedTexts
from tunescope.activations.capture import check_length, check_request
from tunescope.errors import InputError, ModelError, TextsError
from tunescope.models import Model, load_pair
from tunescope.models.heads import LanguageHead, NoLanguageHead, language_head
from tunescope.outcome.language_result import LanguageResult, Measured
from tunescope.outcome.scored_tokens import ScoredTokens, same_tokens, scored_tokens, tokens_of
from tunescope.outcome.token_losses import TextSums, sum_losses
from tunescope.texts import Corpus, as_corpus
from tunescope.texts.sets import default_name

MARGIN = 0.01  # nats per token, 1% of perplexity


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

    Raises: NoLanguageHead, ModelError (heads of two kinds, no mask token, a causal head that sees ahead), TextsError (nothing to
        predict), InputError, ActivationError (NaN or Inf), and as `load_pair` and `as_corpus`.
    """
    if not 0 <= margin < math.inf:
        raise InputError(f"margin {margin} asked for; it is a difference in nats per token, 0 or more")
    corpus = as_corpus(texts, column=column, sample=sample, seed=seed)
    models = load_pair(base, tuned, device=device, dtype=dtype, trust_remote_code=trust_remote_code)
    check_request(models[0], corpus.texts, None, (), batch_size)
    heads = two_heads(*models)
    length = min(check_length(model, max_length) for model in models)
    tokens, sums = _losses(heads, corpus, length=length, seed=seed, batch_size=batch_size, progress=progress)
    return Measured(name or default_name(texts), corpus, heads, tokens, sums, length, margin, seed).result()


def two_heads(base: Model, tuned: Model) -> tuple[LanguageHead, LanguageHead]:
    """The heads of both. Raises NoLanguageHead, saying so where tuning lost it, and ModelError when one is masked, the other causal."""
    own = language_head(base)
    try:
        other = language_head(tuned)
    except NoLanguageHead as error:
        raise NoLanguageHead(f"{error} ('{base.name}' has one, but its head on the tuned body would be a third model)") from error
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
