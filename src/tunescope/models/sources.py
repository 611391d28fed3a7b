"""What a source is: a folder here, a repository on the hub, or an object already loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from tunescope.errors import InputError, ModelError
from tunescope.models.quiet import quietly

_WANTED = ["*.json", "*.safetensors", "*.txt", "*.model", "*.jinja"]
_UNWANTED = ["onnx/*", "openvino/*", "original/*", "consolidated*", "*.fp16*.safetensors", "checkpoint-*/*", "runs/*"]


@dataclass(frozen=True)
class Folder:
    """A folder that holds a model; `name` is what was typed, `revision` the hub commit when it came from there."""

    path: Path
    name: str
    revision: str | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether it holds a PEFT adapter."""
        return (self.path / "adapter_config.json").is_file()

    @property
    def is_sentence_transformer(self) -> bool:
        """Whether it holds sentence-transformers modules."""
        return (self.path / "modules.json").is_file()

    @property
    def body(self) -> Path:
        """The folder of the transformer itself: the first module of a sentence-transformers folder, else the folder."""
        if not self.is_sentence_transformer:
            return self.path
        modules = read_json(self.path / "modules.json")
        first = modules[0] if isinstance(modules, list) and modules and isinstance(modules[0], dict) else {}
        if first.get("type", "").rsplit(".", 1)[-1] != "Transformer":
            raise ModelError(f"'{self.name}' begins with {first.get('type')}, not with a Transformer module: it has no blocks to compare")
        return self.path / first.get("path", "")


def find_folder(source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False) -> Folder:
    """The folder of a local path or of a hub id (downloaded: configs, tokenizer and safetensors only).

    Raises ModelError when there is no such folder, it holds no model, or the hub does not give it.
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"a revision ('{revision}') belongs to a hub id, but '{name}' is a folder here; leave the revision out")
        return _check_model_folder(Folder(path, name))
    if path.exists():
        raise ModelError(f"'{name}' is a file; give the folder that holds config.json and model.safetensors")
    if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name:
        raise ModelError(
            f"no such folder: '{name}' (from {Path.cwd()}); give a folder that holds a model, or a hub id like 'intfloat/e5-base-v2'"
        )
    return _check_model_folder(_download(name, revision=revision, trust_remote_code=trust_remote_code))


def read_json(path: Path) -> Any:
    """The content of a JSON file; ModelError naming it when it is missing or broken."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelError(f"missing file: {path}; the model folder is incomplete, fetch or copy it again") from error
    except (ValueError, OSError) as error:
        raise ModelError(f"cannot read {path} as JSON ({error}); fetch or copy it again") from error


def _download(name: str, *, revision: str | None, trust_remote_code: bool) -> Folder:
    at = f" at revision '{revision}'" if revision else ""
    wanted = [*_WANTED, "*.py"] if trust_remote_code else _WANTED
    try:
        with quietly():
            path = Path(snapshot_download(name, revision=revision, allow_patterns=wanted, ignore_patterns=_UNWANTED))
    except GatedRepoError as error:
        raise ModelError(f"'{name}' on the hub is gated: accept its terms there and log in with `hf auth login`") from error
    except RevisionNotFoundError as error:
        raise ModelError(f"'{name}' on the hub has no revision '{revision}'") from error
    except RepositoryNotFoundError as error:
        raise ModelError(f"no folder here and no hub model is called '{name}'; check the spelling, or log in if it is private") from error
    except HFValidationError as error:
        raise ModelError(f"no such folder: '{name}', and it is not a hub id either") from error
    except (OSError, ValueError) as error:  # every other hub and connection error is one of these
        reason = str(error).strip().split("\n")[0]
        raise ModelError(
            f"'{name}' is no folder here, and the hub could not give it{at} ({type(error).__name__}: {reason[:120]}); "
            "check the name and the connection, or give a local folder"
        ) from error
    return Folder(path, name, revision=path.name)


def _check_model_folder(folder: Folder) -> Folder:
    if folder.is_adapter or folder.is_sentence_transformer or (folder.path / "config.json").is_file():
        return folder
    found = sorted(path.name for path in folder.path.iterdir())[:5]
    raise ModelError(
        f"'{folder.name}' is not a model folder: no config.json, adapter_config.json or modules.json "
        f"in it (found: {', '.join(found) or 'nothing'})"
    )
