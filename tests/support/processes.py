"""Children of a process, which may end at the very moment at which somebody asks what they are."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import psutil


def children_named(name: str, *, of: psutil.Process | None = None, recursive: bool = False) -> list[psutil.Process]:
    """Those of that name; of this process by default."""
    return _children(of, recursive, lambda child: child.name() == name)


def children_running(word: str, *, of: psutil.Process | None = None) -> list[psutil.Process]:
    """Those that live and have the word in their command line; of this process by default."""
    return _children(
        of, False, lambda child: child.status() != psutil.STATUS_ZOMBIE and word in " ".join(child.cmdline())
    )


def _children(
    of: psutil.Process | None, recursive: bool, fits: Callable[[psutil.Process], bool]
) -> list[psutil.Process]:
    found = []
    for child in (of or psutil.Process()).children(recursive=recursive):
        with suppress(psutil.NoSuchProcess):
            if fits(child):
                found.append(child)
    return found
