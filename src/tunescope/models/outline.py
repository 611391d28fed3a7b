"""What a model's files say of it before a weight is read: its blocks, its tokenizer, its length."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModel

from tunescope.models.anatomy import read_anatomy, text_body
from tunescope.models.body import load_tokenizer, read_config
from tunescope.models.load import deployed
from tunescope.models.model import Model
from tunescope.models.quiet import quietly
from tunescope.models.sources import Folder, find_folder


def outline(source: str | Path | Folder, *, revision: str | None = None, trust_remote_code: bool = False) -> Model:
    """A model without its weights, in an instant and next to no memory: anatomy, tokenizer, deployed length. It cannot be run.

    source: a hub id or a folder, of a plain or a sentence-transformers model. Raises as `load_model` does of names and configs.
    """
    found = source if isinstance(source, Folder) else find_folder(source, revision=revision, trust_remote_code=trust_remote_code)
    config = read_config(found, trust_remote_code)
    with quietly(), torch.device("meta"):
        body = text_body(AutoModel.from_config(config, trust_remote_code=trust_remote_code))
    tokenizer = load_tokenizer(found, trust_remote_code)
    return deployed(Model(name=found.name, module=body, tokenizer=tokenizer, anatomy=read_anatomy(body)), found)
