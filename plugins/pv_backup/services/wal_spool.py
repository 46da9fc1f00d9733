"""The directory into which pg_receivewal writes: the queue of WAL shipping (SPEC F2).

A file leaves it only when its object was verified and journaled, so the directory needs no other record
of what is still to do. Files are taken as they are and never changed.
"""

from __future__ import annotations

import fcntl
import json
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pv_backup.services.errors import ConfigurationError, RunAlive, WalDamaged
from pv_backup.services.wal import SegmentName, is_wal_name

PARTIAL: Final = ".partial"
_COMPRESSED: Final = (".gz", ".lz4")
_NOTES: Final = ".pv_backup.json"
_LOCK: Final = ".pv_backup.lock"
KEEP_FILE: Final = "keep the file for inspection, find out who wrote it, and take a base backup now"
_REMEDY: Final = (
    "set PV_BACKUP_WAL_DIRECTORY to the directory of pg_receivewal, and serve queue pv_backup_wal on its host only"
)

# XLogLongPageHeaderData (src/include/access/xlog_internal.h, PostgreSQL 15): magic, info, timeline, address,
# rem_len, padding, system identifier, segment size, page size.
_PAGE_HEADER: Final = struct.Struct("=HHIQI4xQII")
LONG_HEADER_BYTES: Final = _PAGE_HEADER.size
_MAGIC_15: Final = 0xD110
_LONG_HEADER: Final = 0x0002


@dataclass(frozen=True)
class WalFile:
    """A finished file.

    :ivar finished_at: Unix seconds of its last write.
    :ivar size: bytes.
    """

    path: Path
    finished_at: float
    size: int

    @property
    def name(self) -> str:
        """The file's name, which is its name in the bucket too."""
        return self.path.name

    @property
    def segment(self) -> SegmentName | None:
        """Which segment it is, None for a timeline history."""
        return SegmentName.parse(self.name)


@dataclass(frozen=True)
class SegmentHeader:
    """What the first page of a segment says of it.

    :ivar address: LSN of its first byte.
    """

    timeline: int
    address: int
    system_identifier: str
    segment_bytes: int


def segment_header(path: Path) -> SegmentHeader | None:
    """Read a segment's first page header, None if there is none yet (a `.partial` that was just made).

    :raises WalDamaged: if these are not the first bytes of a segment of PostgreSQL 15.
    """
    with path.open("rb") as file:
        raw = file.read(_PAGE_HEADER.size)
    if len(raw) == _PAGE_HEADER.size and not any(raw) and path.suffix == PARTIAL:
        return None
    if len(raw) < _PAGE_HEADER.size:
        raise WalDamaged(f"{path} is cut: it has {len(raw)} bytes", remedy=KEEP_FILE)
    magic, info, timeline, address, _, system_identifier, segment_bytes, _ = _PAGE_HEADER.unpack(raw)
    if magic != _MAGIC_15 or not info & _LONG_HEADER:
        raise WalDamaged(f"{path} does not begin like a WAL segment of PostgreSQL 15", remedy=KEEP_FILE)
    return SegmentHeader(timeline, address, str(system_identifier), segment_bytes)


class WalSpool:
    """Lists, marks and removes the files of one directory.

    :param directory: where pg_receivewal writes, mode 0700.
    """

    def __init__(self, *, directory: Path) -> None:
        self.directory = directory
        self._writing = threading.Lock()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Let one process at a time ship: a second one would do the same work twice.

        :raises RunAlive: if another one is at it.
        :raises ConfigurationError: if the directory can't be used.
        """
        with self._naming_errors():
            descriptor = os.open(self.directory / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunAlive(
                f"another process ships WAL out of {self.directory}", remedy="wait for it; the files are in its hands"
            ) from None
        else:
            yield
        finally:
            os.close(descriptor)

    def files(self) -> list[WalFile]:
        """The finished files, histories first, then segments in the order in which they were written.

        :raises ConfigurationError: if the directory can't be read.
        """
        found: list[WalFile] = []
        with self._naming_errors(), os.scandir(self.directory) as entries:
            for entry in entries:
                # Whoever looks while a run ships may see one go.
                with suppress(FileNotFoundError):
                    if is_wal_name(entry.name) and entry.is_file():
                        status = entry.stat()
                        found.append(WalFile(Path(entry.path), status.st_mtime, status.st_size))
        return sorted(found, key=lambda file: (file.segment is not None, file.name))

    def faults(self) -> Iterator[ConfigurationError]:
        """What is wrong with the directory itself, and keeps no file of it from being shipped."""
        with self._naming_errors():
            mode = self.directory.stat().st_mode
            names = sorted(path.name for path in self.directory.iterdir() if path.suffix in _COMPRESSED)
        if mode & 0o077:
            yield ConfigurationError(
                f"the WAL directory {self.directory} has mode {mode & 0o777:04o}: "
                "others than its owner may look at WAL in clear",
                remedy=f"chmod 0700 {self.directory}",
            )
        if packed := [name for name in names if SegmentName.parse(name.partition(".")[0])]:
            yield ConfigurationError(
                f"pg_receivewal compresses into {self.directory} ({packed[0]}, {len(packed)} in all): "
                "such files are never shipped",
                remedy="start pg_receivewal without --compress, and decompress what it wrote in its place",
            )

    def newest(self) -> SegmentName | None:
        """The segment furthest on that there is a file of, the one being written included."""
        with self._naming_errors():
            names = [path.name.removesuffix(PARTIAL) for path in self.directory.iterdir()]
        segments = [segment for name in names if (segment := SegmentName.parse(name))]
        return max(segments, key=lambda segment: (segment.log, segment.segment), default=None)

    def contains(self, name: str) -> bool:
        """Whether a finished file of this name is there."""
        return (self.directory / name).is_file()

    def any_header(self) -> SegmentHeader | None:
        """The header of a segment that is there, the one being written included; None if there is none."""
        with self._naming_errors():
            paths = sorted(self.directory.iterdir(), reverse=True)
        for path in paths:
            if SegmentName.parse(path.name.removesuffix(PARTIAL)) is None:
                continue
            # One that is renamed meanwhile, damaged, or no file at all is not the only one that knows.
            with suppress(OSError, WalDamaged):
                if header := segment_header(path):
                    return header
        return None

    def remove(self, file: WalFile) -> None:
        """Take a file out of the queue: its object is verified and journaled.

        :raises ConfigurationError: if the directory does not let it go.
        """
        with self._naming_errors():
            file.path.unlink(missing_ok=True)

    def read_note(self, subject: str) -> Any:
        """What an earlier run noted for the next one; None where it is missing or unreadable."""
        return self._read_notes().get(subject)

    def write_note(self, subject: str, note: Any) -> None:
        """Keep something for the next run, as JSON; a loss costs it no more than a guess."""
        draft = self.directory / f"{_NOTES}.new"
        with self._writing, self._naming_errors():
            draft.write_text(json.dumps(self._read_notes() | {subject: note}))
            draft.replace(self.directory / _NOTES)

    def _read_notes(self) -> dict[str, Any]:
        try:
            notes = json.loads((self.directory / _NOTES).read_bytes())
        except (OSError, ValueError):
            return {}
        return notes if isinstance(notes, dict) else {}

    @contextmanager
    def _naming_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigurationError(
                f"the WAL directory {self.directory} can't be used: {error.strerror}", remedy=_REMEDY
            ) from error
