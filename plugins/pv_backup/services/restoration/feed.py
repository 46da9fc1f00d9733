"""Feed a recovering PostgreSQL with WAL from the bucket: each file verified before it has its name, fetched ahead.

PostgreSQL asks for one file at a time by `restore_command`. A process of Python for each would cost half a second a
segment, so the command is a few words of shell that leave a note and wait; this side reads the notes, and has the next
files ready.
"""

from __future__ import annotations

import fcntl
import logging
import os
import shlex
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TextIO

from pv_backup.services.errors import PvBackupError, RestoreFailed
from pv_backup.services.progress import Progress
from pv_backup.services.restoration.tools import Place
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.writing import writing
from pv_backup.services.wal import is_history_name

log = logging.getLogger(__name__)

_AHEAD: Final = 8
# At its end recovery asks once more for the file that its last record begins in, and it must not go while it is copied.
_BEHIND: Final = 2
_AT_ONCE: Final = 4
#: Files that lie in the directory at a time; the server has a copy of one more.
MOST_AT_ONCE: Final = _BEHIND + _AHEAD + 2
_LOOK_EVERY_S: Final = 0.02
_SERVING: Final = "serving"
_LOCKED: Final = 9
# The directory is closed to all but the server's user, who need not be ourselves.
_READABLE: Final = 0o644


class WalFeed:
    """A directory that recovery finds its files in, kept a few files ahead of it; a context.

    A file that is damaged ends recovery when it is asked for, and not before: the target may be reached without it.
    Then we serve no more, and the command answers with a status that PostgreSQL takes for fatal; :attr:`failure` tells
    which file and why. It is the same with a full disk, with a defect of ours, and with our own end: recovery never
    waits for somebody who is not there.

    :param files: all that recovery may read, in its order; whatever else it asks for is answered as absent.
    :param taken: timelines whose histories recovery shall find nevertheless, as empty files: it only asks whether they
        are there, for a number that its new timeline can have.
    :param directory: private, and open to the user that the server runs as.
    :param place: the disk that it is on.
    :ivar failure: why a file that was asked for can't be had, None while all is well.
    :ivar progress: how far recovery is, in bytes of WAL; a target may be reached before the last of them.
    """

    def __init__(
        self,
        *,
        archive: WalArchive,
        files: Sequence[str],
        taken: range,
        segment_bytes: int,
        directory: Path,
        place: Place,
    ) -> None:
        self._archive = archive
        self._files = files
        self._taken = taken
        self._places = {name: place for place, name in enumerate(files)}
        self._directory = directory
        self._place = place
        self._notes = directory / "asked"
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="wal-feed")
        self._fetched: dict[str, Future[None]] = {}
        self._awaited: Future[None] | None = None
        self._closed = threading.Event()
        self.failure: PvBackupError | None = None
        self.progress = Progress(label="recovering", downloads=True, total_bytes=len(files) * segment_bytes)
        self._segment_bytes = segment_bytes
        self._served = 0

    @property
    def served(self) -> int:
        """How many files recovery has asked for."""
        return self._served

    @property
    def restore_command(self) -> str:
        """The server's `restore_command` (PostgreSQL 15, section 26.3.5): 1 for an absent file, 255 to give up."""
        here = shlex.quote(str(self._directory)).replace("%", "%%")
        # Our lock is the sign that somebody serves: it goes with us, and the server's user may see no process of ours.
        # Taken for the end of the WAL, a failure of ours or of the disk would end in a promotion short of the target.
        return (
            f'echo "%f" >> {here}/asked || exit 255; '
            f'while [ ! -e {here}/"%f" ]; do '
            f'[ -e {here}/"%f".absent ] && exit 1; '
            f"flock --shared --nonblock --conflict-exit-code {_LOCKED} {here}/{_SERVING} true; "
            f"[ $? -eq {_LOCKED} ] || exit 255; sleep {_LOOK_EVERY_S}; "
            f'done; cp {here}/"%f" "%p" || exit 255'
        )

    def _serve(self, lock: TextIO) -> None:
        """Serve until we are closed or fail; by the time the lock is free, :attr:`failure` is there."""
        with lock:
            try:
                for name in self._asked():
                    self._ask(name)
            except PvBackupError as error:
                self.failure = error
            except Exception as error:  # noqa: BLE001 - whatever it is, recovery must not wait for us
                self.failure = _unforeseen("the WAL could not be served", error)
            if self.failure is not None:
                log.error("recovery cannot go on: %s", self.failure)

    def _asked(self) -> Iterator[str]:
        """The names as recovery asks for them.

        :raises Exception: that of the fetch of the last one, if it failed.
        """
        read = 0
        while not self._closed.wait(_LOOK_EVERY_S):
            if self._awaited is not None and self._awaited.done():
                self._awaited.result()
            if not self._notes.exists():
                continue
            with self._notes.open() as notes:
                notes.seek(read)
                asked = [line for line in notes if line.endswith("\n")]
            read += sum(map(len, asked))
            yield from (name.strip() for name in asked)

    def _ask(self, name: str) -> None:
        place = self._places.get(name)
        if place is None:
            is_taken = is_history_name(name) and int(name[:8], 16) in self._taken
            self._leave(name if is_taken else f"{name}.absent")
            return
        self._served = max(self._served, place + 1)
        self.progress.read_bytes = self._served * self._segment_bytes
        wanted = self._files[place : place + 1 + _AHEAD]
        kept = {*self._files[max(0, place - _BEHIND) : place], *wanted}
        for other in list(self._fetched):
            if other not in kept and self._fetched[other].done():
                del self._fetched[other]
                (self._directory / other).unlink(missing_ok=True)
        for other in wanted:
            if other not in self._fetched:
                self._fetched[other] = self._pool.submit(self._fetch, other)
        self._awaited = self._fetched[name]

    def _leave(self, name: str) -> None:
        """An empty file, which has its name only when the server's user may read it."""
        with writing(name, self._place):
            draft = self._directory / f"{name}.draft"
            draft.touch()
            draft.chmod(_READABLE)
            draft.rename(self._directory / name)

    def prefetch(self) -> None:
        """Have the first files ready before recovery asks for them."""
        for name in self._files[:_AHEAD]:
            self._fetched[name] = self._pool.submit(self._fetch, name)

    def _fetch(self, name: str) -> None:
        try:
            with writing(name, self._place):
                self._archive.fetch(name, self._directory / name)
        except PvBackupError as error:
            log.warning("%s can't be had, should recovery ask for it: %s", name, error)
            raise
        except Exception as error:
            raise _unforeseen(f"{name} could not be fetched", error) from error

    def __enter__(self) -> Self:
        with writing(_SERVING, self._place), ExitStack() as held:
            lock = held.enter_context((self._directory / _SERVING).open("w"))
            os.fchmod(lock.fileno(), _READABLE)
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._thread = threading.Thread(target=self._serve, args=[lock], name="wal-feed", daemon=True)
            self._thread.start()
            held.pop_all()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()
        self._pool.shutdown(cancel_futures=True)


def _unforeseen(what: str, error: Exception) -> RestoreFailed:
    log.error("%s", what, exc_info=error)
    return RestoreFailed(
        f"{what}: {type(error).__name__}: {error}",
        remedy="if this machine lacks memory or threads, give it more and restore again; else report this with the "
        "log: it was not foreseen",
    )
