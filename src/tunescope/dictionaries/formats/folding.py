"""What a training did to its inputs and to its decoder, folded into the weights so that activations can be read as they are."""

from __future__ import annotations

from torch import Tensor

from tunescope.dictionaries.formats.stored_tensors import StoredTensors

State = dict[str, Tensor]  # W_enc (d, n), W_dec (n, d), b_dec (d,), and what the architecture has beside them


def fold_scale(state: State, scale: float, *, rescaled: bool = False) -> State:
    """For x instead of x · scale: W_enc · scale, W_dec / scale, b_dec / scale.

    rescaled: a threshold is held against pre · ‖W_dec row‖, which the fold divides, so it is divided too (SAELens #763).
    """
    folded = state | {"W_enc": state["W_enc"] * scale, "W_dec": state["W_dec"] / scale, "b_dec": state["b_dec"] / scale}
    return folded | ({"topk_threshold": state["topk_threshold"] / scale} if rescaled and "topk_threshold" in state else {})


def fold_norms(state: State) -> State:
    """Decoder rows of norm 1, and the norms in what reads: for trainings that fire by pre · ‖W_dec row‖."""
    norms = state["W_dec"].norm(dim=1).clamp(min=1e-8)
    return state | {"W_enc": state["W_enc"] * norms, "b_enc": state["b_enc"] * norms, "W_dec": state["W_dec"] / norms[:, None]}


def fold_whitening(state: State, whitening: StoredTensors, *, centred: bool) -> State:
    """For x instead of (x − mean) M, with what comes out times M⁻¹ plus mean; in float64.

    Where b_dec is not subtracted from the input, mean W_enc is taken from the encoder's biases instead.
    """
    width = len(state["b_dec"])
    wide = {name: value.double() for name, value in whitening.values.items()}
    whitening.take("matrix", width, width)
    whitening.take("inverse_matrix", width, width)
    whitening.take("mean", width)
    encoder = wide["matrix"] @ state["W_enc"].double()
    folded = state | {
        "W_enc": encoder.float(),
        "W_dec": (state["W_dec"].double() @ wide["inverse_matrix"]).float(),
        "b_dec": (state["b_dec"].double() @ wide["inverse_matrix"] + wide["mean"]).float(),
    }
    if centred:
        return folded
    shift = wide["mean"] @ encoder
    steeper = {"b_mag": state["r_mag"].double().exp()} if "r_mag" in state else {}
    for name in ("b_enc", "b_gate", "b_mag"):
        if name in state:
            folded[name] = (state[name].double() - shift * steeper.get(name, 1)).float()
    return folded


def fold_normaliser(state: State, mean: Tensor, scale: Tensor) -> State:
    """For x instead of (x − mean) · scale, and scale and mean undone on what comes out; scale () or (d,), for b_dec subtracted."""
    return state | {
        "W_enc": state["W_enc"] * (scale if scale.dim() == 0 else scale[:, None]),
        "W_dec": state["W_dec"] / scale,
        "b_dec": state["b_dec"] / scale + mean,
    }
