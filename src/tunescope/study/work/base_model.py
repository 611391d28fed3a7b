"""The model a run begins with: loaded, or made by the study itself on local text and then kept beside the runs for all of them."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError, UnknownName
from tunescope.identity import spec_hash
from tunescope.study.embedded import packaged_model
from tunescope.study.run_spec import Model, Pretraining
from tunescope.study.work.sources import texts_of

if TYPE_CHECKING:
    from tunescope.models import Model as Loaded

MADE = ".models"  # beside the runs
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


def load_base(model: Model, runs: Path) -> Loaded:
    """Load it, making it first where the study makes it. Raises as `ts.load_model`."""
    from tunescope.models import load_model

    return load_model(place_of(model, runs), revision=model.revision, name=model.name, pretraining=model.pretraining)


def place_of(model: Model, runs: Path) -> str:
    """Its hub id or folder, a package's too; it is made first where the study makes it."""
    return packaged_model(model.place) if model.pretrain is None else str(made(model.pretrain, runs))


def made(asked: Pretraining, runs: Path) -> Path:
    """The folder of a small pretrained model, trained unless it is there; the same spec gives the same weights, so two may make it at once.

    Raises: InputError (a family transformers does not know, sizes it does not take), and as `ts.finetune`.
    """
    from tunescope.training import finetune

    name = spec_hash(asdict(asked))[:16]
    folder = runs / MADE / name
    if folder.exists():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=folder.parent))
    try:
        corpus = texts_of(asked.texts)
        drawn(asked, corpus.texts, draft / "drawn")
        finetune(
            str(draft / "drawn"), objective=asked.objective, update="uniform", texts=corpus, out=draft / "run", steps=asked.steps,
            seed=asked.seed, max_length=asked.max_length, schedule={"batch_size": asked.batch_size, "lr": asked.lr}, trajectory=None,
        )  # fmt: skip
        try:
            (draft / "run").rename(folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return folder


def drawn(asked: Pretraining, texts: Any, folder: Path) -> None:
    """Write the model with drawn weights, and a tokenizer of byte pairs learned on the texts."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForMaskedLM

    check_config(asked)
    tokenizer = byte_pairs(texts, vocabulary=asked.vocabulary, length=asked.max_length, encloses=asked.objective != "causal-lm")
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    try:
        config_class: Any = CONFIG_MAPPING[asked.family]
        config = config_class(vocab_size=len(tokenizer), **{k: v for k, v in ids.items() if v is not None}, **asked.config)
        with torch.random.fork_rng():
            torch.manual_seed(asked.seed)
            kind = AutoModelForCausalLM if asked.objective == "causal-lm" else AutoModelForMaskedLM
            model = kind.from_config(config)
    except (TypeError, ValueError) as error:
        raise InputError(f"pretraining of a '{asked.family}' with {asked.config} asked for, which it does not take: {error}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def check_config(asked: Pretraining) -> None:
    """Raises InputError for a family that there is not, UnknownName for a size it has not: transformers would keep that and make the model
    of another size."""
    from transformers import CONFIG_MAPPING

    if asked.family not in CONFIG_MAPPING:
        raise InputError(f"pretraining of a '{asked.family}' asked for, and transformers has no such model type; try bert or gpt_neox")
    known = CONFIG_MAPPING[asked.family]()
    for name in asked.config:
        if not hasattr(known, name):
            raise UnknownName(f"config of a '{asked.family}'", name, known.to_dict())


def byte_pairs(texts: Any, *, vocabulary: int, length: int, encloses: bool) -> Any:
    """A fast tokenizer. encloses: puts [CLS] before and [SEP] after every text, as encoders read them."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import PreTrainedTokenizerFast

    own = Tokenizer(models.BPE(unk_token="[UNK]"))
    own.pre_tokenizer, own.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    own.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=list(SPECIAL.values()), initial_alphabet=alphabet, show_progress=False),
    )
    if encloses:
        pairs = [(token, own.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
        single = "[CLS] $A [SEP]"
        own.post_processor = processors.TemplateProcessing(single=single, pair=f"{single} $B:1 [SEP]:1", special_tokens=pairs)
    more = {} if encloses else {"bos_token": "[CLS]", "eos_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=own, model_max_length=length, **SPECIAL, **more)
