"""Run one of the programs that a restoration needs: it ends with us, and its failure is told in its own words."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, TypedDict

from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.progress import human_bytes
from pv_backup.services.restoration.said import Tail

log = logging.getLogger(__name__)

#: Is told the pid of each program before it begins.
Started = Callable[[int], None]

_PACKAGED_USER: Final = "postgres"
_PIPE_BYTES: Final = 1024 * 1024
# The program takes the place of a shell that waits for a word: killed before it, we leave nothing running.
_WHEN_TOLD: Final = ("/bin/sh", "-c", 'read -r go && exec "$@"', "sh")


class _AsUser(TypedDict):
    cwd: str
    user: str | None
    group: str | None
    extra_groups: list[str] | None


def run_as() -> str | None:
    """The user that PostgreSQL's programs run as: they refuse to be root.

    :raises ConfigurationError: if we are root and Debian's user is not there.
    """
    if os.geteuid() != 0:
        return None
    if subprocess.run(["id", _PACKAGED_USER], capture_output=True, check=False).returncode != 0:
        raise ConfigurationError(
            f"PostgreSQL does not run as root, and there is no user {_PACKAGED_USER} here",
            remedy="apt-get install postgresql-15, or run this as an ordinary user",
        )
    return _PACKAGED_USER


def as_user(user: str | None) -> _AsUser:
    """How a program is started as that user, None for ourselves: what `subprocess` is told."""
    # The directory we were called from may be closed to the other user.
    return {"cwd": "/", "user": user, "group": user, "extra_groups": [] if user else None}


def make_private(directory: Path, user: str | None) -> None:
    """Make a directory for that user alone, as PostgreSQL demands it of a data directory."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    directory.chmod(0o700)
    hand_to(user, directory)


def hand_to(user: str | None, *paths: Path) -> None:
    """Let that user own what we made; None is ourselves."""
    if user:
        for path in paths:
            shutil.chown(path, user, user)


def passes(user: str | None, directory: Path) -> bool:
    """Whether that user can get into a directory: each one on the way lets it pass."""
    return subprocess.run(["test", "-x", str(directory)], check=False, **as_user(user)).returncode == 0


def unwatched(pid: int) -> None:
    """Nobody needs to know: what is restored shall stay, whatever becomes of us."""


@dataclass(frozen=True)
class Place:
    """The disk that a restoration fills, and how its owner gets more of it.

    :ivar directory: on that disk.
    :ivar is_staging: whether a setting put it there; else somebody named it.
    """

    directory: Path
    is_staging: bool = False

    def full(self, what: str) -> RestoreFailed:
        """The error of a disk that has no room left."""
        if self.is_staging:
            return StagingFull(
                what,
                remedy=f"make room on the disk of {self.directory.parent}, or set PV_BACKUP_STAGING_DIRECTORY to a "
                "directory on one that holds the whole database; then start the drill again",
            )
        return RestoreFailed(what, remedy=f"make room on the disk of {self.directory}, then restore again")

    def demand_room(self, needed_bytes: int, purpose: str) -> None:
        """Refuse at once what would fail after an hour.

        :raises RestoreFailed: (StagingFull in a staging directory) saying how much is needed and how much is free.
        """
        free = shutil.disk_usage(self.directory).free
        if free < needed_bytes:
            raise self.full(
                f"{purpose} needs at least {human_bytes(needed_bytes)}, "
                f"and the disk of {self.directory} has {human_bytes(free)} free"
            )


def start(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    user: str | None,
    started: Started,
    output: int,
    stderr: int,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, which does nothing before `started` has heard of it.

    Its standard input is a pipe, unbuffered.

    :param output: its standard output, as `subprocess` names such.
    :param stderr: its standard error, likewise.
    """
    process = subprocess.Popen(
        [*_WHEN_TOLD, *command],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=output,
        stderr=stderr,
        bufsize=0,
        start_new_session=True,
        **as_user(user),
    )
    try:
        started(process.pid)
        assert process.stdin is not None  # noqa: S101 - Popen was told PIPE
        process.stdin.write(b"go\n")
    except BaseException:
        process.kill()
        process.communicate()
        raise
    return process


@dataclass(frozen=True)
class ToolRunner:
    """Runs programs one after the other.

    :ivar tools: where PostgreSQL's are.
    :ivar place: what they fill.
    :ivar user: whom they run as, None for ourselves (:func:`run_as`).
    :ivar started: is told of each.
    """

    tools: Server
    place: Place
    user: str | None
    started: Started = unwatched

    def run(
        self,
        command: Sequence[str],
        *,
        failing: str,
        remedy: str,
        server: Server | None = None,
        stdin: Iterable[bytes] = (),
    ) -> None:
        """Run a program to its good end.

        :param failing: what could not be done, should it fail; its own words follow.
        :param remedy: what to do then, unless its words or the disk say it better.
        :param server: which it connects to, by the environment.
        :param stdin: what it reads; an error of this iterator kills it, and goes on.
        :raises RestoreFailed: with the end of what it said; StagingFull if the staging disk is full.
        """
        name = Path(command[0]).name
        process = start(
            command,
            environment=(server or self.tools).environment(),
            user=self.user,
            started=self.started,
            output=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None  # noqa: S101 - as start() makes it
        assert process.stderr is not None  # noqa: S101 - Popen was told PIPE
        tail = Tail(process.stderr, name=name)
        try:
            _feed(process.stdin, stdin)
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            process.stdin.close()
            raise
        finally:
            tail.end()
        if status == 0:
            return
        how = f"{name} was ended by signal {-status}" if status < 0 else f"{name} ended with status {status}"
        what = f"{failing}: {how}: {tail.last()}"
        raise self.place.full(what) if tail.no_room else RestoreFailed(what, remedy=remedy)


def _feed(pipe: IO[bytes], chunks: Iterable[bytes]) -> None:
    """Write all to a program's standard input and close it; one that reads no more says why by its exit status."""
    descriptor = pipe.fileno()
    # A user near the kernel's limit for pipes keeps the default, and loses some speed only.
    with suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    with suppress(BrokenPipeError):
        for chunk in chunks:
            left = memoryview(chunk)
            while left:
                left = left[os.write(descriptor, left) :]
    # Only now: closed by an error of the iterator, the pipe would tell the program that this was all.
    pipe.close()
