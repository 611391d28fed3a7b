"""Runs made on Ray: over the cores, GPUs and hosts of a cluster, each with the resources it declares.

The study's folder must be one that all hosts share: a mounted path, or an fsspec URL. https://docs.ray.io/en/latest/ray-core/tasks.html
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from tunescope.errors import InputError
from tunescope.study.jobs import ANY, Resources
from tunescope.study.perform import Assignment, Ended, perform

if TYPE_CHECKING:
    import ray

LOCAL = "local"  # Ray's word for nodes of one's own, on this machine


class OnRay:
    """All runs that are ready are handed to Ray, which places each where its resources are free.

    address: of a cluster ("host:6379", "ray://…", "auto"); default: what RAY_ADDRESS says, or Ray begun here for as long as this lasts.
    Raises InputError when Ray is not installed, nothing answers there, or Ray begun here has less than a run takes.
    """

    def __init__(self, address: str | None = None, resources: Resources = ANY):
        self._ray = _imported()
        self._options: dict[str, Any] = {"num_cpus": resources.cpus or 1, "num_gpus": resources.gpus, "max_retries": 0}
        if resources.memory is not None:
            self._options["memory"] = int(resources.memory * 1e6)
        self.threads: int | None = int(resources.cpus or 1)
        self._running: dict[ray.ObjectRef, str] = {}
        self.address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        self._connect()

    def _connect(self) -> None:
        ray = self._ray
        if ray.is_initialized():
            raise InputError("this process is connected to Ray already; call ray.shutdown() first")
        own = {"include_dashboard": False} if self.address == LOCAL else {}
        try:
            _knock(self.address)
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            said = str(error).strip().splitlines()[0]
            raise InputError(f"no Ray at '{self.address}' ({said}); start it with: ray start --head, or leave the address out") from error
        self._remote = ray.remote(perform).options(**self._options)
        if self.address == LOCAL and not self.fits():
            ray.shutdown()
            raise InputError(f"a run takes {self.asked}, more than this machine has; ask for less, or name a cluster with --ray ADDRESS")

    def fits(self) -> bool:
        """Whether some node has what a run takes; a cluster that grows by itself may get one later."""
        wanted = {"CPU": self._options["num_cpus"], "GPU": self._options["num_gpus"], "memory": self._options.get("memory", 0)}
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return any(all(has.get(name, 0) >= amount for name, amount in wanted.items()) for has in nodes)

    @property
    def asked(self) -> str:
        """What a run takes, for messages."""
        memory = f", {self._options['memory'] / 1e6:g} MB" if "memory" in self._options else ""
        return f"{self._options['num_cpus']:g} cores, {self._options['num_gpus']:g} GPUs{memory}"

    def room(self) -> bool:
        return True

    def submit(self, given: Assignment) -> None:
        self._running[self._remote.remote(given)] = given.run

    def poll(self, seconds: float) -> Iterable[Ended]:
        if not self._running:
            return
        over, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        for reference in over:
            yield self._ended(reference, self._running.pop(reference))

    def _ended(self, reference: ray.ObjectRef, run: str) -> Ended:
        """What Ray says of a task; one whose worker or node died is begun again by the study, which counts that."""
        failures = self._ray.exceptions
        lost = (failures.WorkerCrashedError, failures.NodeDiedError, failures.OutOfMemoryError, failures.ObjectLostError)
        try:
            return self._ray.get(reference)
        except lost as error:
            return Ended(run, f"its process died ({type(error).__name__})", lost=True)
        except failures.RayError as error:
            said = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
            return Ended(run, f"{type(error).__name__}: {said.strip()}", str(error))

    def close(self) -> None:
        """What runs is ended; Ray begun here with it."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running.clear()
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at HOST:PORT: Ray itself waits minutes for somebody."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _imported() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'tunescope[ray]', or leave --ray out") from error
    return ray
