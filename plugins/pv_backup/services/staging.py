"""A private directory in which data may lie in clear for a while, and the guard that ends the while (INV-47-01).

A cluster with extra tablespaces is exported through it: pg_basebackup can't stream those to standard output (SPEC F3).
A drill restores in it (:mod:`pv_backup.services.restoration.sandbox`).
"""

from __future__ import annotations

import fcntl
import logging
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from pv_backup.services import staging_guard
from pv_backup.services.errors import ConfigurationError, ExportFailed, RestoreFailed
from pv_backup.services.settings import CLEARTEXT_TTL_S

log = logging.getLogger(__name__)

PREFIX: Final = "pv-backup-staging-"
_GUARD_PATIENCE_S: Final = 10.0


class StagingDirectory:
    """A directory that goes when its context ends, and at the latest when its guard says so.

    The guard purges it at our death, however we die, and when `ttl_s` passed without one of the tools that it was
    told of. On entry, what guards left behind that were killed themselves is purged too.

    :param base: where to make it; None takes the worker's temporary directory.
    :param ttl_s: seconds from the last tool's end to the purge.
    :param limit_s: seconds from the beginning to the purge, whatever works there then; for tools that end only when
        we tell them, which a stopped worker never does.
    :param unguarded: as what the loss of the guard is raised.
    :ivar path: the directory, mode 0700.
    :ivar descriptor: the directory, opened. A tool that reaches it by :attr:`tool_path` can't make it anew once
        it is purged, which pg_basebackup would do with a path.
    """

    def __init__(
        self,
        *,
        base: Path | None,
        ttl_s: float = CLEARTEXT_TTL_S,
        limit_s: float = math.inf,
        unguarded: type[ExportFailed | RestoreFailed] = ExportFailed,
    ) -> None:
        self._base = base or Path(tempfile.gettempdir())
        self._ttl_s = ttl_s
        self._limit_s = limit_s
        self._unguarded = unguarded
        self._talk = threading.Lock()
        self.path: Path
        self.descriptor = -1
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def tool_path(self) -> str:
        """The directory as a tool names it that inherited the descriptor."""
        return f"/dev/fd/{self.descriptor}"

    def __enter__(self) -> Self:
        try:
            purge_orphans(self._base)
            self.path, lock = _make(self._base)
        except OSError as error:
            raise ConfigurationError(
                f"no staging directory can be made in {self._base}: {error.strerror}",
                remedy="make that directory for the worker alone, or set PV_BACKUP_STAGING_DIRECTORY to one with room",
            ) from error
        try:
            order = [str(self.path), str(os.getpid()), str(self._ttl_s), str(self._limit_s)]
            self._guard = subprocess.Popen(
                # The guard holds the lock as long as it lives: it shares our open file, and we close ours.
                [sys.executable, "-I", "-S", staging_guard.__file__, *order],
                pass_fds=[lock],
                env={},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                bufsize=0,
                start_new_session=True,
            )
            self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            self._await_answer()
        except BaseException:
            self._close()
            raise
        finally:
            os.close(lock)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._close()

    def watch(self, pid: int, ending: signal.Signals = signal.SIGKILL) -> None:
        """Tell the guard which tool works here: it stops the clock, its end starts it, and no purge leaves it running.

        :param ending: what ends it in order; SIGKILL follows where it stays.
        :raises ExportFailed: or what the constructor was told, if there is no guard any more.
        """
        with self._talk:
            self._tell(f"{pid} {ending:d}")
            self._await_answer()

    def check(self) -> None:
        """Demand that what was written is still there, and guarded.

        :raises ExportFailed: if it was purged, or the guard has died.
        """
        assert self._guard is not None  # noqa: S101 - a context, entered by the caller
        if not self.path.exists():
            raise ExportFailed(
                f"the staged export in {self.path} was purged {self._ttl_s:g} s after the export's end (INV-47-01): "
                "the upload is too slow to take the rest in that time",
                remedy="see in the log how fast S3 takes parts, and what slows it or this worker; then try again",
            )
        if self._guard.poll() is not None:
            raise self._lost()

    def _tell(self, word: str) -> None:
        assert self._guard is not None  # noqa: S101 - a context, entered by the caller
        assert self._guard.stdin is not None  # noqa: S101 - Popen was told PIPE
        try:
            self._guard.stdin.write(f"{word}\n".encode())
        except BrokenPipeError:
            raise self._lost() from None

    def _await_answer(self) -> None:
        assert self._guard is not None  # noqa: S101 - a context, entered by the caller
        assert self._guard.stdout is not None  # noqa: S101 - Popen was told PIPE
        ready, _, _ = select.select([self._guard.stdout], [], [], _GUARD_PATIENCE_S)
        if not ready or not self._guard.stdout.read(1):
            raise self._lost()

    def _lost(self) -> ExportFailed | RestoreFailed:
        return self._unguarded(
            f"the guard of the staging directory {self.path} is gone or hangs; without it nothing is staged in clear",
            remedy="see who kills processes on this worker (the OOM killer?), and try again",
        )

    def _close(self) -> None:
        """Purge at once, by the guard if it can, and let nothing run on."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if self._guard is None:
            staging_guard.purge(self.path)
            return
        with self._guard:
            try:
                self._tell("done")
                self._guard.wait(_GUARD_PATIENCE_S)
            except (ExportFailed, RestoreFailed, subprocess.TimeoutExpired):
                self._guard.kill()
        staging_guard.purge(self.path)
        staging_guard.purge(self.path.with_name(self.path.name + staging_guard.PURGED_SUFFIX))


def _make(base: Path) -> tuple[Path, int]:
    """A new directory and a descriptor that holds its lock, by which others know that it is alive."""
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
        # Somebody may take it for an orphan before we hold its lock; then it is gone, and another one is made.
        with _locked(path) as lock:
            if lock is not None and path.exists():
                return path, os.dup(lock)


def purge_orphans(base: Path | None, tell: Callable[[Path], None] = lambda path: None) -> None:
    """Purge what killed guards left: directories of ours that nobody holds the lock of, and who still works in them.

    :param base: as :class:`StagingDirectory`.
    :param tell: is told of each, before it is purged.
    :raises OSError: the first one, if something can't be removed; all that could be emptied is empty then.
    """
    failed: list[OSError] = []
    for path in (base or Path(tempfile.gettempdir())).glob(f"{PREFIX}*"):
        with _locked(path) as lock:
            if lock is None or not path.exists() or os.fstat(lock).st_uid != os.geteuid():
                continue
            log.warning("purging %s, which a worker and its guard left behind when they were killed", path)
            tell(path)
            try:
                for tool in staging_guard.recorded(path):
                    staging_guard.end(tool)
                staging_guard.purge(path)
            except OSError as error:
                failed.append(error)
    if failed:
        raise failed[0]


@contextmanager
def _locked(path: Path) -> Iterator[int | None]:
    """A descriptor that holds the directory's lock, None if it is gone or somebody else's."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        yield None
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        yield None
        return
    try:
        yield descriptor
    finally:
        os.close(descriptor)
