"""A training's state on disk: replaced whole, so that a kill at any moment costs seconds and changes nothing."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tunescope.errors import FormatError, OutputError

SCHEMA = "tunescope.sae-training/1"
EVERY = 20.0  # seconds of training between two checkpoints


class Kept(Protocol):
    """A part whose next step depends on tensors alone."""

    def state(self) -> dict[str, Tensor]: ...
    def restore(self, state: dict[str, Tensor]) -> None: ...


class Checkpoint:
    """One file; `asked` says of what, and a file of anything else is refused."""

    def __init__(self, path: Path, asked: dict[str, Any]):
        self.path, self.asked, self.saved = path, json.loads(json.dumps(asked)), time.monotonic()

    def restore(self, parts: Sequence[Kept]) -> int:
        """Put the parts where the file says, and return the steps done; 0 where there is no file.

        Raises: FormatError (not such a file), OutputError (of another training: names the field).
        """
        if not self.path.is_file():
            return 0
        try:
            with safe_open(self.path, framework="pt") as file:
                head = json.loads((file.metadata() or {}).get("head", "{}"))
                self._check(head)
                for number, part in enumerate(parts):
                    part.restore({name: file.get_tensor(f"{number}.{name}") for name in part.state()})
        except (SafetensorError, ValueError) as error:
            raise FormatError(f"'{self.path}' cannot be read ({error}); remove it to begin the training again") from error
        return int(head["done"])

    def did(self, steps: int, parts: Sequence[Kept], *, last: bool) -> None:
        """So many steps are done; written once in a while, and at the end."""
        if not last and time.monotonic() - self.saved < EVERY:
            return
        states = [part.state() for part in parts]
        tensors = {f"{number}.{name}": value.contiguous().cpu() for number, state in enumerate(states) for name, value in state.items()}
        draft = self.path.with_name(f"{self.path.name}.part")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            save_file(tensors, draft, metadata={"head": json.dumps({"schema": SCHEMA, "done": steps, "asked": self.asked})})
            with open(draft, "rb") as file:
                os.fsync(file.fileno())
            os.replace(draft, self.path)
        except OSError as error:
            raise OutputError(f"cannot write to '{self.path.parent}': {error.strerror or error}") from error
        self.saved = time.monotonic()

    def _check(self, head: dict[str, Any]) -> None:
        if head.get("schema") != SCHEMA:
            raise FormatError(f"'{self.path}' has schema {head.get('schema')!r}; this version reads {SCHEMA!r}")
        for name, value in self.asked.items():
            if (found := head["asked"].get(name)) != value:
                raise OutputError(
                    f"'{self.path}' is of another training: {name} {found!r} there, {value!r} asked for; ask for the same, name another "
                    "folder, or remove it"
                )
