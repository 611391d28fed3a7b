"""What a source is: a folder here, a repository on the hub, or an object already loaded."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

from tunescope.errors import InputError, ModelError, UnknownName
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
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters in its subfolders (PEFT saves each but the first in one), without a trainer's checkpoints."""
        found = sorted(path.parent.name for path in self.path.glob("*/adapter_config.json"))
        return tuple(name for name in found if not name.startswith("checkpoint-"))

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


def find_folder(source: str | Path, *, revision: str | None = None, trust_remote_code: bool = False, adapter: str | None = None) -> Folder:
    """The folder of a local path or of a hub id (downloaded: configs, tokenizer and safetensors only).

    adapter: which of the adapters in it, by the name of its subfolder; one that is alone needs no naming.
    Raises ModelError when there is no such folder, it holds no model or several adapters, or the hub does not give it;
    UnknownName (adapter).
    """
    name = str(source)
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise InputError(f"a revision ('{revision}') belongs to a hub id, but '{name}' is a folder here; leave the revision out")
        return _check_model_folder(_pick_adapter(Folder(path, name), adapter))
    if path.exists():
        raise ModelError(f"'{name}' is a file; give the folder that holds config.json and model.safetensors")
    if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name or not name:
        raise ModelError(
            f"no such folder: '{name}' (from {Path.cwd()}); give a folder that holds a model, or a hub id like 'intfloat/e5-base-v2'"
        )
    return _check_model_folder(_pick_adapter(_download(name, revision=revision, trust_remote_code=trust_remote_code), adapter))


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


def _pick_adapter(folder: Folder, asked: str | None) -> Folder:
    """The subfolder of the adapter asked for, or of the only one in a folder that is no model itself."""
    named = folder.adapters
    if asked is None:
        if len(named) == 0 or any((folder.path / file).is_file() for file in ("adapter_config.json", "config.json", "modules.json")):
            return folder
        if len(named) > 1:
            raise ModelError(
                f"'{folder.name}' holds several adapters ({', '.join(named)}); give one of them, such as '{folder.name}/{named[0]}'"
            )
        asked = named[0]
    if asked == "default" and folder.is_adapter:
        return folder
    if asked not in named:
        raise UnknownName(f"adapter in '{folder.name}'", asked, (*named, *(["default"] if folder.is_adapter else [])))
    return Folder(folder.path / asked, f"{folder.name}/{asked}", folder.revision)


def _check_model_folder(folder: Folder) -> Folder:
    _refuse_diffusion(folder)
    if folder.is_adapter or folder.is_sentence_transformer or (folder.path / "config.json").is_file():
        return folder
    kept = sorted((folder.path / "checkpoints").glob("step-*"))
    if kept and (folder.path / "run.json").is_file():
        raise ModelError(
            f"'{folder.name}' is a run that is not finished; go on with it (tunescope tune … --resume), or give a checkpoint of it, such "
            f"as '{kept[-1]}'"
        )
    found = sorted(path.name for path in folder.path.iterdir())[:5]
    raise ModelError(
        f"'{folder.name}' is not a model folder: no config.json, adapter_config.json or modules.json "
        f"in it (found: {', '.join(found) or 'nothing'})"
    )


def _refuse_diffusion(folder: Folder) -> None:
    """Raise ModelError for a pipeline, or a part of one, as the diffusers library saves them."""
    places = [path for path in (folder.path / "model_index.json", folder.path / "config.json") if path.is_file()]
    kinds = [content["_class_name"] for content in map(read_json, places) if isinstance(content, dict) and "_class_name" in content]
    if kinds:
        raise ModelError(
            f"'{folder.name}' is a {kinds[0]} of the diffusers library, which makes images or audio and is not read here; "
            "give a text model, such as the text_encoder folder of a pipeline"
        )
