"""Conversations: a column `messages` whose cells are lists of {"role": …, "content": …}, as chat templates take them."""

from __future__ import annotations

from typing import Any

from tunescope.errors import TextsError
from tunescope.texts.corpus import Corpus
from tunescope.texts.tables import Table

MESSAGES = "messages"
CHAT_TEXT = "messages, as text"  # the columns made of them: "role: content", a message a line; and the lists themselves
CHATS = "messages, as chats"


def with_chat_texts(table: Table, source: str) -> Table:
    """The table with its `messages` also as texts, by which they are told apart, counted and hashed.

    Raises TextsError naming the row whose cell is not a list of messages, each with a role and a content that are strings.
    """
    cells = table.columns[MESSAGES]
    texts = tuple(_as_text(cell, f"{source}, {table.rows[row]}") for row, cell in enumerate(cells))
    return Table({**table.columns, CHAT_TEXT: texts, CHATS: cells}, table.rows, table.warnings)


def chats_of(corpus: Corpus) -> list[list[dict[str, str]]]:
    """A conversation per text: its `messages` where the corpus was read with them, else the text as one user turn."""
    if CHATS in corpus.columns:
        return [list(cell) for cell in corpus.columns[CHATS]]
    return [[{"role": "user", "content": text}] for text in corpus.texts]


def _as_text(cell: Any, where: str) -> str:
    if not isinstance(cell, list) or not cell:
        found = "empty" if cell == [] else f"a {type(cell).__name__}"
        raise TextsError(f'{where}: messages is {found}; it must be a list of {{"role": …, "content": …}}')
    lines = []
    for number, message in enumerate(cell, start=1):
        role, content = (message.get("role"), message.get("content")) if isinstance(message, dict) else (None, None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise TextsError(f"{where}: message {number} needs a role and a content that are strings")
        lines.append(f"{role}: {content}")
    return "\n".join(lines)
