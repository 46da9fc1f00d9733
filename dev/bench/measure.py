"""Wall time, CPU time and peak memory of a process tree, and CPU time of the servers that it keeps busy."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_SAMPLE_S = 0.25


@dataclass
class Measured:
    """One run: seconds of wall clock, CPU seconds by name, peak resident bytes of the client's processes.

    :ivar stored_bytes: what it left in its bucket; 0 if it stores nothing.
    """

    wall_s: float
    peak_rss: int
    cpu_s: dict[str, float] = field(default_factory=dict)
    stored_bytes: int = 0


def family(process: psutil.Process) -> Iterator[psutil.Process]:
    """A process and all below it, by the kernel's own lists (proc(5), task/children).

    psutil's would read the whole of /proc, four times a second, at the cost of whoever is being measured.
    """
    yield process
    try:
        lists = [(task / "children").read_text() for task in Path(f"/proc/{process.pid}/task").iterdir()]
        children = [psutil.Process(int(pid)) for pid in " ".join(lists).split()]
    except (FileNotFoundError, ProcessLookupError, psutil.NoSuchProcess):
        return
    for child in children:
        yield from family(child)


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process and of all its children, ended ones included."""
    total = 0.0
    for member in family(process):
        try:
            times = member.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def tree_rss(process: psutil.Process) -> int:
    """Resident bytes of a process and its children, now."""
    total = 0
    for member in family(process):
        try:
            total += member.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


class PeakRss:
    """Sample a tree's resident memory until stopped."""

    def __init__(self, process: psutil.Process) -> None:
        self._process = process
        self._stopped = threading.Event()
        self.peak = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(_SAMPLE_S):
            try:
                self.peak = max(self.peak, tree_rss(self._process))
            except psutil.NoSuchProcess:
                return

    def stop(self) -> int:
        """End sampling and give the peak."""
        self._stopped.set()
        self._thread.join()
        return self.peak


def measure_command(
    command: Sequence[str | Path], *, env: Mapping[str, str], servers: Mapping[str, psutil.Process]
) -> Measured:
    """Run a program to its successful end."""
    before = {name: cpu_seconds(process) for name, process in servers.items()}
    usage = psutil.Process().cpu_times()
    started = time.perf_counter()
    program = subprocess.Popen(command, env=dict(env))
    sampler = PeakRss(psutil.Process(program.pid))
    status = program.wait()
    wall = time.perf_counter() - started
    if status != 0:
        raise SystemExit(f"{command[0]} ended with status {status}; its own message is above")
    after = psutil.Process().cpu_times()
    client = after.children_user + after.children_system - usage.children_user - usage.children_system
    cpu = {name: cpu_seconds(process) - before[name] for name, process in servers.items()}
    return Measured(wall, sampler.stop(), {"client": client, **cpu})


def measure_shell(script: str, *, env: Mapping[str, str], servers: Mapping[str, psutil.Process]) -> Measured:
    """Run a bash pipeline, any part of which may fail it."""
    return measure_command(["bash", "-o", "pipefail", "-c", script], env=env, servers=servers)


def measure_call(call: Callable[[], object], *, servers: Mapping[str, psutil.Process]) -> Measured:
    """Run a function of this process, whose tree is this process's."""
    me = psutil.Process()
    before = {name: cpu_seconds(process) for name, process in servers.items()} | {"client": cpu_seconds(me)}
    sampler = PeakRss(me)
    started = time.perf_counter()
    call()
    wall = time.perf_counter() - started
    peak = sampler.stop()
    cpu = {name: cpu_seconds(process) - before[name] for name, process in servers.items()}
    return Measured(wall, peak, {"client": cpu_seconds(me) - before["client"], **cpu})
