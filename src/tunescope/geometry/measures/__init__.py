"""The registry of measures: one explicit dict. Adding a measure is a file and a line here; its laws are tested by being listed."""

from __future__ import annotations

from collections.abc import Iterable

from tunescope.errors import InputError, UnknownName
from tunescope.geometry.measures.base import Estimate, Measure, OneSided, permutation_p
from tunescope.geometry.measures.cca import CCA, PWCCA, SVCCA, LinearR2
from tunescope.geometry.measures.cka import CKA, RBFCKA, DebiasedCKA
from tunescope.geometry.measures.drift import ChangeRank, RelativeDrift, RowCosine, SubspaceOverlap
from tunescope.geometry.measures.isotropy import Isotropy, MeanCosine, PartitionRatio
from tunescope.geometry.measures.nps import NPS, Continuity, MutualKNN, Trustworthiness
from tunescope.geometry.measures.procrustes import Procrustes
from tunescope.geometry.measures.rsa import RSA

MEASURES: dict[str, Measure] = {
    m.name: m
    for m in (
        CKA(),
        DebiasedCKA(),
        Procrustes(),
        NPS(),
        Isotropy(),
        RBFCKA(),
        RSA(),
        CCA(),
        SVCCA(),
        PWCCA(),
        LinearR2(),
        MutualKNN(),
        Trustworthiness(),
        Continuity(),
        RelativeDrift(),
        RowCosine(),
        SubspaceOverlap(),
        ChangeRank(),
        MeanCosine(),
        PartitionRatio(),
    )
}
DEFAULT = ("cka", "debiased_cka", "procrustes", "nps", "isotropy")


def select(names: Iterable[str] | str | None) -> dict[str, Measure]:
    """Measures by name, in registry order: None gives the default set, "all" every one. `cka` is always among them, because layer
    statuses, the width and the cross-layer map read it.

    Raises: UnknownName, with the nearest names.
    """
    if isinstance(names, str):
        names = [part.strip() for part in names.split(",") if part.strip()]
    wanted = set(DEFAULT if names is None else names)
    if not wanted:
        raise InputError(f"no measures asked for; name some of {', '.join(MEASURES)}, or 'all'")
    if "all" in wanted:
        wanted = wanted - {"all"} | set(MEASURES)
    for name in sorted(wanted - set(MEASURES)):
        raise UnknownName("measure", name, [*MEASURES, "all"])
    return {name: measure for name, measure in MEASURES.items() if name in wanted | {"cka"}}


__all__ = ["DEFAULT", "MEASURES", "Estimate", "Measure", "OneSided", "permutation_p", "select"]
