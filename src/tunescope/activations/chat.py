"""Texts and conversations as a model's chat template writes them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from jinja2 import TemplateError

from tunescope.errors import InputError, TextsError
from tunescope.models.model import Model
from tunescope.texts.chats import chats_of
from tunescope.texts.corpus import Corpus
from tunescope.texts.sets import TextSet

GENERATION_PROMPT = "where the last turn is the user's"


@dataclass(frozen=True, eq=False)
class ChatTemplate:
    """A tokenizer's template, the model it comes from, and what has to be said of it."""

    tokenizer: Any
    model: str
    warnings: tuple[str, ...] = ()

    @property
    def reading(self) -> dict[str, Any]:
        """What `capture` is asked for: no prompt, and no special tokens beside the template's own."""
        return {"prompt": "", "templated": True}

    def added_to(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """A payload that says whose template its texts are in, by its hash, and where the opening of an answer was added."""
        sha = hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()
        said = {"of": self.model, "sha256": sha, "add_generation_prompt": GENERATION_PROMPT}
        data = {key: value for key, value in payload["data"].items() if key != "templated"} | {"chat_template": said}
        return {**payload, "data": data, "warnings": [*payload["warnings"], *self.warnings]}

    def render(self, sets: Sequence[TextSet]) -> tuple[TextSet, ...]:
        """The sets with every text as the models read it: a user turn, or the conversation it came with, in the template's words.

        The opening of an answer (the generation prompt) follows where the last turn is the user's, as it does when the model is asked.
        Hashes are those of the rendered texts; `whole` stays as it was given. Raises TextsError naming a text that the template refuses.
        """
        return tuple(replace(one, corpus=self.rendered(one.corpus)) for one in sets)

    def rendered(self, corpus: Corpus) -> Corpus:
        chats = zip(chats_of(corpus), corpus.ids, strict=True)
        return corpus.with_texts(self._text(chat, f"{corpus.source}, {name}") for chat, name in chats)

    def _text(self, chat: list[dict[str, str]], where: str) -> str:
        try:
            return self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=chat[-1]["role"] == "user")
        except TemplateError as error:
            raise TextsError(f"{where}: the chat template of '{self.model}' refuses it ({error})") from error


def template_for(base: Model, tuned: Model, *, prompt: str | None = None) -> ChatTemplate:
    """The template in which both sides read every text: the tuned model's, or the base's where only that has one.

    Raises InputError, naming the models, when neither tokenizer has a template, and when a prompt was asked for as well.
    """
    if prompt:
        raise InputError(f"prompt {prompt!r} and a chat template were asked for; put the words into the texts, or leave one out")
    have = [model for model in (tuned, base) if getattr(model.tokenizer, "chat_template", None)]
    if not have:
        raise InputError(
            f"a chat template was asked for, and neither the tokenizer of '{base.name}' nor that of '{tuned.name}' has one; "
            "leave --chat-template out, or give a folder whose tokenizer has one"
        )
    own, differ = have[0], len({str(model.tokenizer.chat_template) for model in have}) > 1
    said = (f"the chat templates differ: both models read the texts in that of '{own.name}'",) if differ else ()
    return ChatTemplate(own.tokenizer, own.name, said)
