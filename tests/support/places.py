"""Where the tests put their servers: in memory, where there is plenty of it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import psutil

from dev import guard

_MEMORY = Path("/dev/shm")
_PLENTY = 12 << 30  # bytes; the whole suite takes a third of it

_in_memory = False


def prefer_memory() -> None:
    """Use memory from now on if it is there.

    A suite copies and removes some hundred clusters of a thousand files each, and ext4 looks at every file that was
    removed lately before it makes a new one: half of what the kernel did for the tests.
    """
    global _in_memory
    _in_memory = _is_plenty()


def new_directory(prefix: str) -> Path:
    """An empty directory of a server; for the caller to remove, or for the guard when pytest is killed."""
    directory = Path(tempfile.mkdtemp(prefix=prefix, dir=_MEMORY if _in_memory else None))
    guard.watch_path(directory)
    return directory


def _is_plenty() -> bool:
    try:
        room = os.statvfs(_MEMORY)
    except FileNotFoundError:
        return False
    free = min(room.f_bavail * room.f_frsize, psutil.virtual_memory().available)
    # A container's cannot run what tests put there.
    return free >= _PLENTY and not room.f_flag & os.ST_NOEXEC
