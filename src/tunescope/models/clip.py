"""How CLIP deploys a text: the state at the end-of-text token, projected into the space of the images, at unit length."""

from __future__ import annotations

from torch import Tensor, nn

from tunescope.models.output import Normalize, OutputHead

_TYPES = ("clip", "clip_text_model")


class Projection(nn.Module):
    """W x, in the number format of W and back to float32."""

    def __init__(self, linear: nn.Module):
        super().__init__()
        self.linear = linear

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear(rows.to(self.linear.weight.dtype)).float()


def text_head(module: nn.Module, *, projected: bool = True) -> OutputHead | None:
    """The output head of a CLIP model, or None for another family.

    With its text projection P: P h / |P h|, h the final state at the end-of-text token (Radford et al. 2021,
    https://arxiv.org/abs/2103.00020). Without one (a bare text tower, or projected=False): h.
    """
    if getattr(getattr(module, "config", None), "model_type", None) not in _TYPES:
        return None
    linear = getattr(module, "text_projection", None) if projected else None
    layers = () if linear is None else (Projection(linear), Normalize())
    return OutputHead(("eos",), layers, declared=True)
