"""Which row of a text an objective works on: a pooled final state, or the embedding the model deploys."""

from __future__ import annotations

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_MASKED_LM_MAPPING

from tunescope.models import Model

AUTO, DEPLOYED = "auto", "deployed"
POOLINGS = (AUTO, "cls", "mean", "last")
_DECLARED = {("cls",): "cls", ("mean",): "mean", ("lasttoken",): "last"}


def reads_left_only(model: Model) -> bool:
    """Whether a token's state depends on earlier tokens only; of a family not in the table, whether it only exists as a causal model."""
    if not model.anatomy.derived:
        return model.anatomy.causal
    config = type(getattr(model.module, "config", None))
    return model.anatomy.causal or (config in MODEL_FOR_CAUSAL_LM_MAPPING and config not in MODEL_FOR_MASKED_LM_MAPPING)


def resolved_pooling(model: Model, asked: str, *, deployed: bool = False) -> str:
    """`asked`, or for "auto": the deployed embedding where that is wanted and declared, the last token of causal models, else the
    declared pooling, else the mean."""
    if asked != AUTO:
        return asked
    if deployed and model.output.declared:
        return DEPLOYED
    return "last" if reads_left_only(model) else _DECLARED.get(model.output.pooling, "mean")
