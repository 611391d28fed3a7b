"""What the published tables hold: the columns of each, which of them are numbers, and which cells may be empty."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Columns:
    """key: what names a line, of which no two may be alike. numbers: columns of numbers; sparse: of these, the ones that may be empty."""

    key: tuple[str, ...]
    numbers: tuple[str, ...]
    words: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """All columns."""
        return tuple(dict.fromkeys((*self.key, *self.words, *self.numbers)))


COLUMNS = {
    "anchor_robustness": Columns(
        ("condition",), ("nps_msmarco", "cka_msmarco", "nps_nfcorpus", "cka_nfcorpus", "nps_wikipedia", "cka_wikipedia")
    ),
    "bert_mlm_trajectory": Columns(
        ("epoch",), ("epoch", "nps", "nps_std", "nfcorpus_ndcg10_percent", "nfcorpus_std"), sparse=("nps_std", "nfcorpus_std")
    ),
    "depth_profiles": Columns(("model", "objective", "condition", "metric", "depth"), ("depth", "value")),
    "distilbert_imdb": Columns(
        ("layer",), ("layer", "cka", "pretrained_accuracy", "finetuned_accuracy", "delta_accuracy"), words=("status",)
    ),
    "drift_conditions": Columns(
        ("model", "condition", "anchor"),
        ("nps", "nps_std", "cka", "cka_std", "msmarco_delta_pp", "msmarco_std", "nfcorpus_delta_pp", "nfcorpus_std"),
        words=("regime",),
        sparse=("nps_std", "cka", "cka_std", "msmarco_delta_pp", "msmarco_std", "nfcorpus_delta_pp", "nfcorpus_std"),
    ),
    "objective_distance": Columns(("model", "objective"), ("cosine", "procrustes")),
    "width_profiles": Columns(("model", "depth"), ("depth", "share")),
}
