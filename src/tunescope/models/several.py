"""Several adapters on one base: one copy of the base's weights, and a side of it for each adapter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from peft import PeftType

from tunescope.errors import InputError
from tunescope.models.adapters import AdapterFiles, read_adapter
from tunescope.models.fit import Fitted, alters_base, fit, put
from tunescope.models.load import find_source, load_pair, load_source, loading_options, wearing
from tunescope.models.model import Model
from tunescope.models.placement import check_in_memory
from tunescope.models.sources import Folder


def load_several(
    base: Any,
    tuned: Mapping[str, Any],
    *,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "float32",
    trust_remote_code: bool = False,
) -> tuple[Model, dict[str, Model]]:
    """The base, and each of `tuned` by its name: LoRA adapter folders share one copy of the base's weights, whatever else is given is
    loaded beside it as `load_pair` does. Sources and options as in `load_model`.

    Raises as `load_pair`.
    """
    if not tuned:
        raise InputError('no tuned model was given; name at least one, as in {"rank8": "folder"}')
    options = loading_options(device, dtype, trust_remote_code, None)
    found, home = {name: find_source(source, None, options) for name, source in tuned.items()}, find_source(base, revision, options)
    worn = {name: read_adapter(each.path, asked=each.name) for name, each in found.items() if isinstance(each, Folder) and each.is_adapter}
    if not isinstance(home, Folder) or home.is_adapter:
        worn = {}
    loaded = load_source(home, options)
    sharing = {name: files for name, files in worn.items() if _can_share(files, loaded)}
    fitted = {name: fit(loaded.module, files, loaded.anatomy, base_name=loaded.name) for name, files in sharing.items()}
    beside = {name: load_pair(loaded, tuned[name], device=device, dtype=dtype, trust_remote_code=trust_remote_code)[1]
              for name in tuned if name not in fitted}
    if fitted:
        check_in_memory(loaded.module, name=loaded.name, what="an adapter")
        loaded = replace(loaded, peft=_put_all(fitted, loaded))
    sides = {name: wearing(loaded, found[name], each, options, adapter=_inside(name)) for name, each in fitted.items()}
    return loaded, {name: replace(sides.get(name) or beside[name], name=name) for name in tuned}


def _can_share(files: AdapterFiles, base: Model) -> bool:
    return files.config.peft_type == PeftType.LORA and not alters_base(files, base.module)


def _put_all(fitted: Mapping[str, Fitted], base: Model) -> Any:
    on: Any = base.module
    for name, each in fitted.items():
        on = put(each, on, base.anatomy, name=_inside(name))
    return on


def _inside(name: str) -> str:
    """What an adapter is called inside the wrapper: PEFT splits names at dots."""
    return "side-" + name.replace(".", "_")
