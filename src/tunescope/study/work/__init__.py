"""What a run does: from its spec to its rows. One file a kind; adding a kind is a file and a line here."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from tunescope.errors import UnknownName
from tunescope.study.row import Row
from tunescope.study.run_spec import RunSpec

Tell = Callable[[int, int, str], None]  # (step, steps, what)


def check_pretraining(specs: Iterable[RunSpec]) -> None:
    """That the families of models which a study pretrains have the sizes that are asked of them; transformers is loaded where one is.

    Raises: InputError, UnknownName.
    """
    asked = {spec.model.name: spec.model.pretrain for spec in specs if spec.model.pretrain is not None}
    if asked:
        from tunescope.study.work.base_model import check_config

        for pretraining in asked.values():
            check_config(pretraining)


def work(spec: RunSpec, folder: Path, tell: Tell) -> Iterable[Row]:
    """Make one run in its own folder, going on from what is there; folders of the runs it needs lie beside it, by their hashes.

    Raises: UnknownName (kind), and what training and measuring raise.
    """
    from transformers.utils import logging

    from tunescope.study.work.compared import compared
    from tunescope.study.work.featured import featured
    from tunescope.study.work.perturbed import perturbed
    from tunescope.study.work.trained import trained

    kinds = {"tune": trained, "perturb": perturbed, "compare": compared, "features": featured}
    if spec.kind not in kinds:
        raise UnknownName("kind of run", spec.kind, kinds)
    logging.disable_progress_bar()  # of files written and read: the study tells its own
    return kinds[spec.kind](spec, folder, tell)
