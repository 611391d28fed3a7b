"""What did fine-tuning do to this model: where it changed, and by how much against chance.

    import tunescope as ts
    comparison = ts.diff(base, tuned, texts)

Names are loaded on first use, so that importing the package (and `tunescope --help`) costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

from tunescope.version import __version__ as __version__

_HOME = {
    "Collection": "texts",
    "Comparison": "comparison",
    "DeltaStore": "dictionaries",
    "Dictionary": "dictionaries",
    "EqualStep": "training",
    "MEASURES": "geometry",
    "Pairs": "texts",
    "StepSizes": "training",
    "TextSet": "texts",
    "Trajectory": "training",
    "TrajectoryCallback": "training",
    "bisect_tau": "training",
    "capture": "activations",
    "cca": "geometry.front",
    "change_rank": "geometry.front",
    "cka": "geometry.front",
    "continuity": "geometry.front",
    "cross_cka": "geometry",
    "cross_nps": "geometry",
    "debiased_cka": "geometry.front",
    "diff": "comparison",
    "doctor": "dictionaries.doctor",
    "external_results": "outcome.external",
    "features": "comparison.features",
    "finetune": "training",
    "interpolate": "training",
    "isotropy": "geometry.front",
    "language_loss": "outcome.language",
    "linear_r2": "geometry.front",
    "load": "comparison",
    "load_capture": "activations",
    "load_deltas": "dictionaries",
    "load_model": "models",
    "load_pair": "models",
    "load_run": "training",
    "match": "training",
    "match_dictionaries": "dictionaries",
    "mean_cosine": "geometry.front",
    "mutual_knn": "geometry.front",
    "nps": "geometry.front",
    "nps_curve": "geometry.front",
    "objective_distance": "comparison.objective_distances",
    "partition_ratio": "geometry.front",
    "perturb": "training",
    "perturb_to": "training",
    "plateau": "training",
    "principal_angles": "geometry",
    "probe": "outcome.probes",
    "probe_audit": "outcome.probe_audit",
    "procrustes": "geometry.front",
    "pwcca": "geometry.front",
    "rbf_cka": "geometry.front",
    "read_collection": "texts",
    "read_dictionary": "dictionaries.formats",
    "read_ledger": "study.ledger",
    "read_pairs": "texts",
    "read_texts": "texts",
    "read_trajectory": "training",
    "reembedding": "outcome.reembedding",
    "relative_drift": "geometry.front",
    "replay": "study.replay",
    "retrieval": "outcome.retrieval",
    "row_cosine": "geometry.front",
    "rsa": "geometry.front",
    "run_report": "comparison.run_report",
    "save_capture": "activations",
    "save_deltas": "dictionaries",
    "save_dictionary": "dictionaries.formats",
    "subspace_overlap": "geometry.front",
    "svcca": "geometry.front",
    "tau_from": "training",
    "train_sae": "dictionaries",
    "trustworthiness": "geometry.front",
    "weight_profile": "comparison.weights",
}

__all__ = sorted(["__version__", *_HOME])


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tunescope' has no attribute '{name}'")
    return getattr(importlib.import_module(f"tunescope.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
