"""Training a TopK autoencoder of 6,144 latents, 32 active, on rows of 384 features: whole trainings of as many steps on the same batches.

Against the libraries that train them, each by its own modules and loss, all with the same first weights, the same learning rates and
torch's fused Adam. The shares unexplained at the end, on rows that nobody trained on, must be within 1% of each other. A library that
is not installed has no line (`pip install eai-sparsify sae-lens`, `pip install --no-deps dictionary-learning`).
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from pairing import Line, Pairs, within
from tunescope.dictionaries.architectures import Weights
from tunescope.dictionaries.delta_rows import ArrayRows
from tunescope.dictionaries.sae_training import SaeSpec, Schedule, Training

THREADS = os.cpu_count() or 1
WIDTH, LATENTS, K, BATCH, STEPS = 384, 6144, 32, 2048, 100
SPEC, SCHEDULE = SaeSpec(LATENTS, K, "topk", 0), Schedule(BATCH, STEPS, 0, 2e-3)
Trained = Callable[[], float]


def lines(repeats: int) -> Iterator[Line]:
    rows = ArrayRows(planted(STEPS * BATCH + BATCH))
    held = (rows.array[-BATCH:] - rows.mean.float()) / rows.rms
    batches = [(batch - rows.mean.float()) / rows.rms for batch in rows.array[: STEPS * BATCH].split(BATCH)]
    ours = lambda: own(batches, held)  # noqa: E731
    for name, peer in PEERS.items():
        if importlib.util.find_spec(name) is None:
            continue
        theirs = lambda peer=peer: peer(batches, held)  # noqa: E731
        one, two = ours(), theirs()
        within(abs(one / two - 1), 0.01, f"the unexplained share ({one:.4f}) against that of {name} ({two:.4f})")
        line = Pairs.time(ours, theirs, max(1, repeats // 3))
        yield line.faster(f"TopK autoencoder, {WIDTH} → {LATENTS:,}, k = {K}, {STEPS} steps of {BATCH:,}", name, target=1.5)


def planted(rows: int) -> Tensor:
    """Sums of 16 of 4,000 directions, and a little noise."""
    draw = np.random.default_rng(5)
    directions = draw.standard_normal((4000, WIDTH), dtype=np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    x = 0.02 * draw.standard_normal((rows, WIDTH), dtype=np.float32)
    for _ in range(16):
        x += directions[draw.integers(4000, size=rows)] * draw.uniform(0.5, 1.5, (rows, 1)).astype(np.float32)
    return torch.from_numpy(x)


def own(batches: list[Tensor], held: Tensor) -> float:
    training = Training.begin(SPEC, WIDTH, torch.device("cpu"))
    with torch.no_grad():
        for step, x in enumerate(batches):
            training.step(x, SCHEDULE.rate(step, LATENTS), SCHEDULE.dead_after)
        return float(training.architecture.step(training.weights, held, None).unexplained)


def learn(module: nn.Module, loss: Callable[[Tensor], tuple[Tensor, Tensor]], batches: list[Tensor], after: dict[str, Callable]) -> None:
    """Steps of torch's Adam on a peer's loss; after: what it does to its gradients and to its weights around a step."""
    optimizer = torch.optim.Adam(module.parameters(), lr=0.0, fused=True)
    for step, x in enumerate(batches):
        optimizer.param_groups[0]["lr"] = SCHEDULE.rate(step, LATENTS)
        optimizer.zero_grad()
        loss(x)[0].backward()
        after.get("gradients", lambda: None)()
        optimizer.step()
        after.get("weights", lambda: None)()


def share(rebuilt: Tensor, held: Tensor) -> float:
    return float((rebuilt - held).square().sum() / held.square().sum())


def sparsify(batches: list[Tensor], held: Tensor) -> float:
    from sparsify import SparseCoder, SparseCoderConfig

    coder, first = SparseCoder(WIDTH, SparseCoderConfig(num_latents=LATENTS, k=K)), Weights.drawn(LATENTS, WIDTH, seed=0)
    coder.encoder.weight.data.copy_(first.encoder)
    coder.W_dec.data.copy_(first.decoder)
    after = {"gradients": coder.remove_gradient_parallel_to_decoder_directions, "weights": coder.set_decoder_norm_to_unit_norm}
    learn(coder, lambda x: ((out := coder(x)).fvu + out.auxk_loss, out.fvu), batches, after)
    with torch.no_grad():
        return share(coder(held).sae_out, held)


def stand_in(*names: str) -> None:
    """Empty modules for what a peer imports and its training step does not use, where it is not installed."""
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            module = types.ModuleType(name)
            module.__spec__ = importlib.util.spec_from_loader(name, None)
            module.LanguageModel = object  # type: ignore[attr-defined]
            sys.modules[name] = module


def dictionary_learning(batches: list[Tensor], held: Tensor) -> float:
    stand_in("nnsight", "wandb")
    from dictionary_learning.trainers.top_k import TopKTrainer

    first = Weights.drawn(LATENTS, WIDTH, seed=0)
    trainer = TopKTrainer(STEPS, WIDTH, LATENTS, K, 0, "", lr=1.0, warmup_steps=0, device="cpu")
    trainer.ae.encoder.weight.data.copy_(first.encoder)
    trainer.ae.decoder.weight.data.copy_(first.decoder.T)
    trainer.ae.b_dec.data.zero_()
    trainer.optimizer = torch.optim.Adam(trainer.ae.parameters(), lr=0.0, fused=True)
    trainer.scheduler = torch.optim.lr_scheduler.LambdaLR(trainer.optimizer, lambda step: 1.0)
    for step, x in enumerate(batches, 1):  # step 0 would set its bias to a geometric median
        trainer.optimizer.param_groups[0]["lr"] = SCHEDULE.rate(step - 1, LATENTS)
        trainer.update(step, x)
    with torch.no_grad():
        return share(trainer.ae(held), held)


def sae_lens(batches: list[Tensor], held: Tensor) -> float:
    stand_in("wandb")
    from sae_lens.saes.sae import TrainStepInput
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    first = Weights.drawn(LATENTS, WIDTH, seed=0)
    asked = TopKTrainingSAEConfig(d_in=WIDTH, d_sae=LATENTS, k=K, use_sparse_activations=False, decoder_init_norm=1.0)
    sae = TopKTrainingSAE(asked)
    sae.W_enc.data.copy_(first.encoder.T)
    sae.W_dec.data.copy_(first.decoder)

    def loss(x: Tensor) -> tuple[Tensor, Tensor]:
        out = sae.training_forward_pass(
            TrainStepInput(sae_in=x, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
        )
        return out.loss / WIDTH, out.loss  # the scale of a loss is nothing to Adam

    learn(sae, loss, batches, {})
    with torch.no_grad():
        return share(sae(held), held)


PEERS: dict[str, Callable[[list[Tensor], Tensor], float]] = {
    "sparsify": sparsify,
    "dictionary_learning": dictionary_learning,
    "sae_lens": sae_lens,
}
