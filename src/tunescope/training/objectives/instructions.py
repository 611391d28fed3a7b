"""Instruction tuning: conversations in the tokenizer's chat template, of which only the answers are learnt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jinja2 import TemplateError
from torch import Tensor, nn

from tunescope.errors import ModelError, TextsError
from tunescope.models import Model
from tunescope.training.objectives.base import CONVERSATIONS, Batch, Loss, Objective
from tunescope.training.objectives.learner import Learner
from tunescope.training.objectives.reader import TextReader
from tunescope.training.objectives.token_loss import LANGUAGE, NOTHING, check_causal, token_loss, vocabulary_heads

ANSWERS = "assistant"  # the role whose turns are learnt

Chat = Sequence[dict[str, str]]


@dataclass(frozen=True)
class InstructionTuning(Objective):
    """−log p of the tokens of the assistant's turns, from the conversation before them; the other turns are read and not learnt.

    A turn is what the template adds to the conversation before it and the opening of an answer: its words and its end-of-turn token.
    """

    name: ClassVar[str] = "sft"
    title: ClassVar[str] = "instruction tuning"
    reference: ClassVar[str] = "https://huggingface.co/docs/transformers/chat_templating"
    needs: ClassVar[tuple[str, ...]] = (CONVERSATIONS,)

    head: ClassVar[str] = "own"

    def check(self, model: Model) -> None:
        check_causal(model, self.name)
        if not getattr(model.tokenizer, "chat_template", None):
            raise ModelError(
                f"sft writes conversations in a chat template, and the tokenizer of '{model.name}' has none; set tokenizer.chat_template, "
                "or use causal-lm on plain texts"
            )

    def heads(self, model: Model, *, seed: int) -> dict[str, nn.Module]:
        return vocabulary_heads(model, "own", seed=seed)

    def collate(self, items: Sequence[Chat], reader: TextReader, generator: torch.Generator) -> Batch:
        written = [rendered(chat, reader) for chat in items]
        tokens = reader.read([text for text, _ in written], templated=True)
        targets = torch.full_like(tokens.ids, NOTHING)
        for row, ids, offsets, (_, answers) in zip(targets, tokens.ids, tokens.offsets, written, strict=True):
            _mark(row, ids, offsets, answers)
        if not (targets[:, 1:] != NOTHING).any():
            raise TextsError(
                f"sft: no conversation of a batch has a token of an answer within {reader.max_length} tokens; "
                "raise max_length, or give conversations with assistant turns"
            )
        return {"ids": tokens.ids, "mask": tokens.mask, "targets": targets}

    def loss(self, learner: Learner, batch: Batch) -> Loss:
        states = learner.read(batch["ids"], batch["mask"])
        return token_loss(learner.heads[LANGUAGE], states.final, batch["targets"], ahead=True)


def rendered(chat: Chat, reader: TextReader) -> tuple[str, list[tuple[int, int]]]:
    """The conversation as the template writes it, and (first, after last) character of each answer.

    Raises TextsError when the template refuses the conversation, or writes a turn otherwise once others follow it.
    """
    whole, answers = _written(chat, reader, opening=False), []
    for turn, message in enumerate(chat):
        if message["role"] == ANSWERS:
            before = _written(chat[:turn], reader, opening=True)
            after = _written(chat[: turn + 1], reader, opening=False)
            if not whole.startswith(after) or not after.startswith(before):
                raise TextsError(
                    f"sft: the chat template of '{reader.name}' writes turn {turn + 1} otherwise once others follow, so that its answer "
                    "cannot be told from its prompt; end the conversations there"
                )
            answers.append((len(before), len(after)))
    return whole, answers


def _written(chat: Chat, reader: TextReader, *, opening: bool) -> str:
    try:
        return reader.tokenizer.apply_chat_template(list(chat), tokenize=False, add_generation_prompt=opening)
    except (TemplateError, ValueError) as error:
        raise TextsError(f"sft: the chat template of '{reader.name}' refuses a conversation ({error})") from error


def _mark(row: Tensor, ids: Tensor, offsets: list[tuple[int, int]], answers: list[tuple[int, int]]) -> None:
    """Make the tokens that start inside an answer targets."""
    for place, (start, end) in enumerate(offsets):
        if end > start and any(first <= start < last for first, last in answers):
            row[place] = ids[place]
