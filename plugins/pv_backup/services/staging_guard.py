"""The guard of a staging directory: it purges what lies there in clear when its time is over, whatever happens.

A program of its own, run by path (`python -I -S staging_guard.py DIRECTORY PARENT_PID TTL_S`), which needs the
standard library only and starts in milliseconds. It outlives the worker, in a session of its own: a worker that is
killed, stopped or hung can purge nothing (INV-47-01).

It purges at the first of: the worker's death (its pidfd, or the end of our standard input; a sibling that the worker
forked may keep that pipe open), the word `done`, and TTL_S seconds after the end of the tool whose pid it is told. It
watches the tool itself, since a worker that is stopped can't report its end. It answers a dot when it is ready, and
when it has the tool in sight.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from pathlib import Path

PURGED_SUFFIX = ".purged"

_PURGE_PATIENCE_S = 10.0
_KILL_PATIENCE_MS = 10_000
_STDIN, _STDOUT = 0, 1


def purge(directory: Path) -> None:
    """Empty every file, then remove all: an unlinked file that somebody holds open would keep its bytes.

    The directory is renamed first, so that whoever reads in it can tell a purged file from a short one. That it
    is gone already is well.

    :raises OSError: if something can't be removed; what could be emptied is empty then.
    """
    with contextlib.suppress(FileNotFoundError):
        if directory.suffix != PURGED_SUFFIX:
            directory = directory.rename(directory.with_name(directory.name + PURGED_SUFFIX))
        deadline = time.monotonic() + _PURGE_PATIENCE_S
        while True:
            for path in directory.iterdir():
                os.truncate(path, 0)
                path.unlink()
            try:
                directory.rmdir()
            except FileNotFoundError:
                raise
            except OSError:  # a tool made another file meanwhile
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


def watch(parent: int, ttl_s: float) -> int | None:
    """Wait for the hour of the purge.

    :returns: the pidfd of the tool, if one was named that ran.
    """
    parent_fd = _pidfd(parent)
    if parent_fd is None:
        return None
    tool_fd: int | None = None
    deadline: float | None = None
    poller = select.poll()
    for descriptor in (_STDIN, parent_fd):
        poller.register(descriptor, select.POLLIN)
    while deadline is None or time.monotonic() < deadline:
        left_ms = None if deadline is None else (deadline - time.monotonic()) * 1000 + 1
        ready = {descriptor for descriptor, _ in poller.poll(left_ms)}
        if parent_fd in ready:
            break
        if tool_fd is not None and tool_fd in ready:
            poller.unregister(tool_fd)
            deadline = time.monotonic() + ttl_s
        if _STDIN in ready:
            said = os.read(_STDIN, 64).strip()
            if not said.isdigit():
                break
            tool_fd = _pidfd(int(said))
            if tool_fd is None:
                deadline = time.monotonic() + ttl_s
            else:
                poller.register(tool_fd, select.POLLIN)
            _answer()
    return tool_fd


def end(tool_fd: int) -> None:
    """Kill a tool that is still at work: it would go on writing into what is unlinked."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(tool_fd, signal.SIGKILL)
    gone = select.poll()
    gone.register(tool_fd, select.POLLIN)
    gone.poll(_KILL_PATIENCE_MS)


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _answer() -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the poll says so too
        os.write(_STDOUT, b".")


def main(directory: str, parent: str, ttl_s: str) -> None:
    """Guard until the hour, then purge."""
    # Whoever stops the worker's service signals all its processes; this one has work left to do then.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    _answer()
    try:
        tool_fd = watch(int(parent), float(ttl_s))
        if tool_fd is not None:
            end(tool_fd)
    finally:
        purge(Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
