"""Cleans up behind a test run that was killed.

Fixtures stop their servers, but SIGKILL and the OOM killer run no fixtures. PR_SET_PDEATHSIG is no answer: it fires
when the *thread* that started a server ends, and servers are started by threads, in parallel. So the test run starts
this process and writes to its standard input what there is to clean up. The kernel closes that pipe however the test
run ends; then the guard kills what still runs and removes the directories. It is started in a session of its own.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_guard: subprocess.Popen[bytes] | None = None


def start() -> None:
    """Guard this process from now on; all :func:`watch_process` and :func:`watch_path` calls register with it."""
    global _guard
    if _guard is None:
        _guard = subprocess.Popen(
            [sys.executable, "-S", "-E", __file__], stdin=subprocess.PIPE, cwd="/", start_new_session=True
        )


def finish() -> None:
    """End the guard, which removes whatever is still there, and wait for it."""
    global _guard
    if _guard is not None:
        _guard.communicate()
        _guard = None


def watch_process(pid: int) -> None:
    """Have this child killed when we die; without a guard (``make up``) servers are meant to live on."""
    _tell(f"process {pid} {_started_at(pid)}")


def watch_path(path: Path) -> None:
    """Have this file or directory removed when we die."""
    _tell(f"path {path}")


def _tell(line: str) -> None:
    if _guard is not None and _guard.stdin is not None:
        _guard.stdin.write(line.encode() + b"\n")
        _guard.stdin.flush()


def _started_at(pid: int) -> str:
    """Start time in clock ticks (proc(5), stat field 22): process ids are reused, the pair is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def _signal_all(processes: list[tuple[int, str]], what: signal.Signals) -> None:
    for pid, started_at in processes:
        if _started_at(pid) == started_at:
            os.kill(pid, what)


def _clean_up_after_parent() -> None:
    told = [line.rstrip("\n").split(" ", 1) for line in sys.stdin]
    processes = [
        (int(pid), started_at) for kind, value in told if kind == "process" for pid, started_at in [value.split()]
    ]
    # SIGQUIT first: it is PostgreSQL's immediate shutdown, which gives back the shared memory that SIGKILL would leak.
    _signal_all(processes, signal.SIGQUIT)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and any(_started_at(pid) == started_at for pid, started_at in processes):
        time.sleep(0.05)
    _signal_all(processes, signal.SIGKILL)
    for kind, value in told:
        if kind == "path":
            path = Path(value)
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


if __name__ == "__main__":
    # Ctrl-C reaches the whole foreground group; the parent's end is the only signal that counts here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _clean_up_after_parent()
