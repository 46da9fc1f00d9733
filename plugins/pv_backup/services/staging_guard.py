"""The guard of a staging directory: it purges what lies there in clear when its time is over, whatever happens.

A program of its own, run by path (`python -I -S staging_guard.py DIRECTORY PARENT_PID TTL_S LIMIT_S`), which needs the
standard library only and starts in milliseconds. It outlives the worker, in a session of its own: a worker that is
killed, stopped or hung can purge nothing (INV-47-01).

It purges at the first of: the worker's death (its pidfd, or the end of our standard input; a sibling that the worker
forked may keep that pipe open), the word `done`, TTL_S seconds without a tool, and LIMIT_S seconds (`inf`: none) since
the beginning, since a server is a tool that works on until a worker ends it, which may be stopped. A tool is named by
a line `PID SIGNAL`; the clock starts when the last one has ended and stops when another is named. The guard watches the
tools itself, since a worker that is stopped can't report their end. It answers a dot when it is ready, and when it has
a tool in sight. Before it purges, it ends the tools that still run, and all that they started.
"""

from __future__ import annotations

import contextlib
import math
import os
import select
import signal
import stat
import sys
import time
from pathlib import Path

PURGED_SUFFIX = ".purged"
#: The tools of a directory, one `PID START SIGNAL` a line, for whoever finds it when its guard is dead too.
TOOLS_FILE = "tools"

_PURGE_PATIENCE_S = 10.0
_KILL_PATIENCE_MS = 10_000
# A postmaster that is told to quit kills its children after 5 s itself.
_ORDER_PATIENCE_MS = 7_000
_LOOK_EVERY_S = 0.01
_STDIN, _STDOUT = 0, 1


class Tool:
    """A process that works in the directory.

    :ivar ending: the signal that ends it in order; SIGKILL follows where it stays.
    """

    # No named tuple: importing typing would double the time that the guard takes to start.
    def __init__(self, pid: int, pidfd: int, ending: int) -> None:
        self.pid = pid
        self.pidfd = pidfd
        self.ending = ending


def purge(directory: Path) -> None:
    """Empty every file of the tree, then remove all: an unlinked file that somebody holds open would keep its bytes.

    The directory is renamed first, so that whoever reads in it can tell a purged file from a short one. That it
    is gone already is well. Links are removed and never followed: nothing outside is touched.

    :raises OSError: if something can't be removed; what could be emptied is empty then.
    """
    with contextlib.suppress(FileNotFoundError):
        if directory.suffix != PURGED_SUFFIX:
            directory = directory.rename(directory.with_name(directory.name + PURGED_SUFFIX))
        deadline = time.monotonic() + _PURGE_PATIENCE_S
        while True:
            failures: list[OSError] = []
            folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                _empty(folder, failures)
            finally:
                os.close(folder)
            try:
                directory.rmdir()
            except FileNotFoundError:
                raise
            except OSError as error:  # a tool made another file meanwhile
                if time.monotonic() > deadline:
                    raise (failures or [error])[0] from None
                time.sleep(_LOOK_EVERY_S)
            else:
                return


def _empty(folder: int, failures: list[OSError]) -> None:
    """Remove what is in an opened directory; what can't be removed does not keep the rest."""
    with os.scandir(folder) as entries:
        names = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_folder in names:
        try:
            if is_folder:
                inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    os.fchmod(inner, stat.S_IRWXU)
                    _empty(inner, failures)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=folder)
            else:
                _truncate(name, folder, failures)
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            failures.append(error)


def _truncate(name: str, folder: int, failures: list[OSError]) -> None:
    if not stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
        return
    try:
        file = os.open(name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        try:
            # Another name of the file may lie outside. If it lies in here, it is the last one when its turn comes.
            if os.fstat(file).st_nlink == 1:
                os.ftruncate(file, 0)
        finally:
            os.close(file)
    except FileNotFoundError:
        raise
    except OSError as error:
        failures.append(error)


def watch(parent: int, ttl_s: float, limit_s: float) -> list[Tool]:
    """Wait for the hour of the purge.

    :returns: the tools that still run.
    """
    parent_fd = _pidfd(parent)
    if parent_fd is None:
        return []
    tools: dict[int, Tool] = {}
    deadline = latest = time.monotonic() + limit_s
    poller = select.poll()
    for descriptor in (_STDIN, parent_fd):
        poller.register(descriptor, select.POLLIN)
    while (left_s := deadline - time.monotonic()) > 0:
        ready = {descriptor for descriptor, _ in poller.poll(None if deadline == math.inf else left_s * 1000 + 1)}
        if parent_fd in ready:
            break
        said = os.read(_STDIN, 64).split() if _STDIN in ready else None
        ended = ready & tools.keys()
        for descriptor in ended:
            poller.unregister(descriptor)
            os.close(descriptor)
            del tools[descriptor]
        if said is not None:
            if not said or not said[0].isdigit():
                break
            tool = _tool(*map(int, said))
            if tool is not None:
                tools[tool.pidfd] = tool
                poller.register(tool.pidfd, select.POLLIN)
            _answer()
        if tools:
            deadline = latest
        elif ended or said is not None:
            deadline = min(latest, time.monotonic() + ttl_s)
    return list(tools.values())


def recorded(directory: Path) -> list[Tool]:
    """The tools of :data:`TOOLS_FILE` that still run."""
    try:
        lines = (directory / TOOLS_FILE).read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = []
    for pid, start, ending in map(str.split, lines):
        tool = _tool(int(pid), int(ending))
        # Process ids come again, and this may have been written before the machine was started anew.
        if tool is not None and started_at(tool.pid) == start:
            found.append(tool)
    return found


def end(tool: Tool) -> None:
    """End a tool that is still at work, and what it started: it would go on writing into what is unlinked."""
    if tool.ending != signal.SIGKILL:
        for number in (tool.ending, signal.SIGCONT):
            _send(tool.pidfd, number)
        if _is_gone(tool.pidfd, _ORDER_PATIENCE_MS):
            return
    # Stopped first, so that none starts another while we look who there is.
    family = {tool.pid: tool.pidfd}
    while True:
        for pidfd in family.values():
            _send(pidfd, signal.SIGSTOP)
        born = {child.pid: child.pidfd for pid in _children(set(family)) if (child := _tool(pid, signal.SIGKILL))}
        if not born:
            break
        family |= born
    for pidfd in family.values():
        _send(pidfd, signal.SIGKILL)
    for pidfd in family.values():
        _is_gone(pidfd, _KILL_PATIENCE_MS)


def started_at(pid: int) -> str:
    """When a process started, in clock ticks since the boot (proc(5), stat field 22); empty if it is gone."""
    fields = _stat(pid)
    return fields[19] if fields else ""


def _children(parents: set[int]) -> set[int]:
    pids = {int(name) for name in os.listdir("/proc") if name.isdigit()} - parents  # noqa: PTH208 - names are enough
    return {pid for pid in pids if (fields := _stat(pid)) and int(fields[1]) in parents}


def _stat(pid: int) -> list[str]:
    """The fields of proc(5)'s stat from the third on: state, parent, …; empty if the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _tool(pid: int, ending: int) -> Tool | None:
    pidfd = _pidfd(pid)
    return None if pidfd is None else Tool(pid, pidfd, ending)


def _send(pidfd: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, number)


def _is_gone(pidfd: int, patience_ms: float) -> bool:
    gone = select.poll()
    gone.register(pidfd, select.POLLIN)
    return bool(gone.poll(patience_ms))


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _answer() -> None:
    with contextlib.suppress(OSError):  # nobody listens any more: the poll says so too
        os.write(_STDOUT, b".")


def main(directory: str, parent: str, ttl_s: str, limit_s: str) -> None:
    """Guard until the hour, then purge."""
    # Whoever stops the worker's service signals all its processes; this one has work left to do then.
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(ignored, signal.SIG_IGN)
    _answer()
    try:
        for tool in watch(int(parent), float(ttl_s), float(limit_s)):
            end(tool)
    finally:
        purge(Path(directory))


if __name__ == "__main__":
    main(*sys.argv[1:])
