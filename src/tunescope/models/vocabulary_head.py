"""A language-model head as a part that trains: gradients flow through it, and weights tied to the embeddings are the embeddings."""

from __future__ import annotations

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tunescope.models.heads import LOADERS, Given, LanguageHead, NoLanguageHead, kind_for, tied, without_body
from tunescope.models.model import Model
from tunescope.models.quiet import quietly


class VocabularyHead(nn.Module):
    """Final hidden states (m, d) of any positions -> logits (m, v) float32, by the forward of the model's own head class.

    drawn: whether its weights are of no checkpoint.
    """

    def __init__(self, shell: nn.Module, given: Given, body: nn.Module, *, drawn: bool = False):
        super().__init__()
        self.shell, self.given, self.drawn = shell, given, drawn
        tie(shell, body)

    @classmethod
    def of(cls, head: LanguageHead) -> VocabularyHead:
        """The head of `language_head`, made to train."""
        return cls(head.shell, head.given, head.model.module)

    def in_checkpoint(self) -> dict[str, Tensor]:
        """Its tensors by their names in the checkpoint of the model it belongs to."""
        return {} if self.drawn else dict(self.shell.state_dict())

    def forward(self, states: Float[Tensor, "m d"]) -> Float[Tensor, "m v"]:
        self.given.states = states.unsqueeze(0)
        try:
            places = torch.zeros(1, len(states), dtype=torch.long, device=states.device)
            return self.shell(input_ids=places).logits[0].float()
        finally:
            self.given.states = None


def untrained_head(model: Model, *, seed: int) -> VocabularyHead:
    """A head of the family's class with random weights, drawn as the family draws them; what the class ties to the embeddings is tied.

    Raises NoLanguageHead when the family has no language model around the part that is read.
    """
    with torch.device("meta"), quietly():
        whole = LOADERS[kind_for(model)].from_config(copy.deepcopy(model.module.config))
    if type(getattr(whole, whole.base_model_prefix)) is not type(model.module):
        part = type(model.module).__name__
        raise NoLanguageHead(f"'{model.name}' is read through its {part} alone, on which no language-model head sits")
    shell, given = without_body(whole)
    shell.to_empty(device=model.device)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for name, parameter in shell.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
        for module in shell.modules():
            whole._init_weights(module)
    ties = dict(getattr(whole, "all_tied_weights_keys", {}))
    own = {key: tensor for key, tensor in shell.state_dict().items() if key not in ties}
    placed = {key: tensor.to(model.dtype) if tensor.is_floating_point() else tensor for key, tensor in own.items()}
    shell.load_state_dict(tied(placed, ties, f"{whole.base_model_prefix}.", model.module), assign=True)
    return VocabularyHead(shell.requires_grad_(True), given, model.module, drawn=True)


def tie(head: nn.Module, body: nn.Module) -> None:
    """Make every parameter of `head` that shares its memory with one of `body`, or of `head`, that very parameter."""
    known = {parameter.data_ptr(): parameter for parameter in body.parameters() if parameter.numel() and not parameter.is_meta}
    for module in head.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and not parameter.is_meta:
                same = known.setdefault(parameter.data_ptr(), parameter)
                if same.shape == parameter.shape:
                    module._parameters[name] = same
