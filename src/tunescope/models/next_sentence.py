"""BERT's pretrained next-sentence head: the pooler of the first token and the two scores on it."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from tunescope.errors import ModelError
from tunescope.models.heads import read_weights
from tunescope.models.model import Model
from tunescope.models.sources import Folder

_POOLER = ("bert.pooler.dense.weight", "bert.pooler.dense.bias")
_SCORES = ("cls.seq_relationship.weight", "cls.seq_relationship.bias")


class NextSentenceHead(nn.Module):
    """W tanh(P h + p) + w of the first token's state: final states (b, t, d) -> scores (b, 2), the first for "follows"."""

    def __init__(self, pooler: nn.Linear, scores: nn.Linear):
        super().__init__()
        self.pooler, self.scores = pooler, scores

    def in_checkpoint(self) -> dict[str, Tensor]:
        """Its tensors by their names in the checkpoint of BertForPreTraining."""
        own = (self.pooler.weight, self.pooler.bias, self.scores.weight, self.scores.bias)
        return dict(zip((*_POOLER, *_SCORES), own, strict=True))

    def forward(self, states: Float[Tensor, "b t d"]) -> Float[Tensor, "b 2"]:
        return self.scores(self.pooler(states[:, 0]).tanh()).float()


def next_sentence_head(model: Model) -> NextSentenceHead:
    """The head the checkpoint was pretrained with, from the loaded model the body sits in or from its folder.

    Raises ModelError for another family, and for a checkpoint that does not hold the head (its weights would be random).
    Reference: Devlin et al. 2019, https://arxiv.org/abs/1810.04805
    """
    if model.anatomy.family != "bert" or model.anatomy.causal:
        raise ModelError(
            f"nsp needs BERT's pretrained next-sentence head, and '{model.name}' is of type '{model.anatomy.family}'; use mlm or simcse"
        )
    own = model.origin
    scores = getattr(getattr(own, "cls", None), "seq_relationship", None)
    pooler = getattr(getattr(model.module, "pooler", None), "dense", None)
    if isinstance(own, nn.Module) and isinstance(scores, nn.Linear) and isinstance(pooler, nn.Linear):
        return NextSentenceHead(pooler, scores)
    found = read_weights(own, (*_POOLER, *_SCORES)) if isinstance(own, Folder) else {}
    missing = [key for key in (*_SCORES, *_POOLER) if key not in found]
    if missing:
        raise ModelError(
            f"nsp needs the pretrained next-sentence head, and the checkpoint of '{model.name}' lacks {missing[0]}: its weights would be "
            "random; give a BertForPreTraining checkpoint, or use mlm or simcse"
        )
    return NextSentenceHead(_linear(found, _POOLER, model), _linear(found, _SCORES, model))


def _linear(found: dict[str, Tensor], keys: tuple[str, str], model: Model) -> nn.Linear:
    weight, bias = (found[key].to(model.device, model.dtype) for key in keys)
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta")
    linear.weight, linear.bias = nn.Parameter(weight), nn.Parameter(bias)
    return linear
