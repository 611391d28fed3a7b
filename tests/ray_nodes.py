"""Ray nodes as processes of this machine, which can be killed: what `ray start` begins, one raylet each."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil


class Nodes:
    """A head and a second node, of one core each, on the loopback interface."""

    def __init__(self, environment: dict[str, str]):
        self._environment = environment | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1"}
        self._temporary = tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)  # short: sockets' paths are
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{free.getsockname()[1]}"
        self._nodes: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> Nodes:
        self.start("head")
        self.start("second")
        return self

    def __exit__(self, *_: object) -> None:
        for name in list(self._nodes):
            self.stop(name)
        self._temporary.cleanup()

    def start(self, name: str) -> None:
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", f"--temp-dir={self._temporary.name}", "--include-dashboard=false"]
        where = head if name == "head" else [f"--address={self.address}"]
        command = [sys.executable, "-m", "ray.scripts.scripts", "start", *where, "--block", "--node-ip-address=127.0.0.1", "--num-cpus=1",
                   "--object-store-memory=80000000"]  # fmt: skip
        log = open(Path(self._temporary.name) / f"{name}.log", "ab")  # noqa: SIM115
        self._nodes[name] = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log, start_new_session=True)
        log.close()
        end = time.monotonic() + 60
        while self.raylet(name) is None:
            assert time.monotonic() < end, (Path(self._temporary.name) / f"{name}.log").read_text()
            time.sleep(0.1)

    def raylet(self, name: str) -> int | None:
        """The process that is the node."""
        if self._nodes[name].poll() is not None:
            return None
        found = [each.pid for each in psutil.Process(self._nodes[name].pid).children(recursive=True) if each.name() == "raylet"]
        return found[0] if found else None

    def stop(self, name: str) -> None:
        """The node and all its processes, whether its raylet lives or not."""
        node = self._nodes.pop(name)
        end = time.monotonic() + 30
        while theirs := [each for each in psutil.pids() if _session(each) == node.pid]:
            assert time.monotonic() < end, f"processes {theirs} of node {name} do not end"
            for each in theirs:
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            node.poll()
            time.sleep(0.05)
        node.wait()


def _session(pid: int) -> int | None:
    """All processes of a node are of one session; None for one that has ended."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            return os.getsid(pid)
    return None
