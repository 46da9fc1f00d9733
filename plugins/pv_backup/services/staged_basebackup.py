"""pg_basebackup of a cluster with extra tablespaces: staged to files, and read while they grow as one archive.

pg_basebackup writes one tar after the other, each from its beginning to its end: `<oid>.tar` of each tablespace,
`base.tar`, then `backup_manifest`. We make of them what it streams of a cluster without extra tablespaces: one tar of
one data directory, tablespaces in `pg_tblspc/<oid>/`, the manifest as the last member. PostgreSQL 15
recovers with directories in the place of the usual links there once `tablespace_map` is removed, with
`allow_in_place_tablespaces = on` (https://www.postgresql.org/docs/15/runtime-config-developer.html).
"""

from __future__ import annotations

import ctypes
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from pv_backup.services.basebackup_manifest import MEMBER
from pv_backup.services.errors import ExportFailed
from pv_backup.services.postgres import ExportProcess
from pv_backup.services.progress import Ticker
from pv_backup.services.staging import StagingDirectory
from pv_backup.services.tar_stream import END_OF_ARCHIVE, Member, TarSplitter, moved_below, new_header, padding_of

# What may lie there in clear and unread: enough for pg_basebackup not to wait, little enough for a disk and for
# an upload within the time that is left after the export.
MOST_UNREAD_BYTES: Final = 1024 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
_FORGET_EVERY_BYTES: Final = 16 * 1024 * 1024
_LOOK_EVERY_S: Final = 0.02
_THROTTLE_EVERY_S: Final = 0.1
_BASE: Final = "base.tar"

_FALLOC_FL_KEEP_SIZE, _FALLOC_FL_PUNCH_HOLE = 0x01, 0x02  # linux/falloc.h; Python has no os.fallocate
_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_LIBC.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class StagedBasebackup:
    """The tars of one pg_basebackup under way, merged; what is read is given back to the disk at once.

    :param tool: pg_basebackup, writing tars to the staging directory; its exit status decides as always.
    :param most_unread_bytes: with more than this unread the tool is paused, below half of it it goes on.
    """

    def __init__(
        self, *, tool: ExportProcess, staging: StagingDirectory, most_unread_bytes: int = MOST_UNREAD_BYTES
    ) -> None:
        self._tool = tool
        self._staging = staging
        self._most_unread_bytes = most_unread_bytes
        self._consumed = 0
        self._waiting = False
        self._newest: Member | None = None

    def throttling(self) -> Ticker:
        """While the returned context is open, the tool waits for a reader that does not keep pace."""
        return Ticker(every_s=_THROTTLE_EVERY_S, action=self._throttle, name="throttle of pg_basebackup")

    def chunks(self) -> Iterator[bytes]:
        """Yield the merged archive.

        :raises ExportFailed: if the tool ended badly, or its files are gone or cut.
        """
        while path := self._next_tar():
            with self._reading(path) as descriptor:
                yield from self._members(path, descriptor)
        with self._reading(self._staging.path / MEMBER) as descriptor:
            yield from self._manifest(descriptor)
        yield END_OF_ARCHIVE

    def _next_tar(self) -> Path | None:
        """The oldest tar that is not read yet; waits for it, and is None once the tool has ended well."""
        while True:
            # Asked before the look, so that what it wrote last is seen.
            ended = self._tool.has_ended()
            with suppress(FileNotFoundError):  # a purge, or the tool tidies up after a failure
                if found := [(path.name == _BASE, path.stat().st_mtime_ns, path) for path in self._tars()]:
                    return min(found)[-1]
            if ended:
                self._tool.finish()
                self._staging.check()
                return None
            self._staging.check()
            self._wait()

    def _tars(self) -> list[Path]:
        return list(self._staging.path.glob("*.tar"))

    @contextmanager
    def _reading(self, path: Path) -> Iterator[int]:
        """A file's descriptor; read to its end, it is emptied and gone."""
        try:
            descriptor = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            self._staging.check()
            self._tool.finish()
            raise ExportFailed(
                f"pg_basebackup left no {path.name}", remedy="see who deletes in its staging directory, and try again"
            ) from None
        try:
            yield descriptor
            os.truncate(descriptor, 0)
            path.unlink(missing_ok=True)
            self._consumed = 0
        finally:
            os.close(descriptor)

    def _members(self, path: Path, descriptor: int) -> Iterator[bytes]:
        """The members of one tar as they belong into the merged one, without its end-of-archive mark."""
        splitter = TarSplitter(name=path.name)
        folder = "" if path.name == _BASE else f"pg_tblspc/{path.stem}"
        is_first = bool(folder)
        while not splitter.ended:
            pieces: list[bytes | memoryview] = []
            for piece in splitter.feed(self._read_grown(path.name, descriptor)):
                if is_first:
                    pieces.append(new_header(folder, like=piece.member, mode=0o700, kind=tarfile.DIRTYPE))
                    is_first = False
                is_moved = piece.is_header and folder
                pieces.append(moved_below(folder, bytes(piece.data)) if is_moved else piece.data)
                self._newest = piece.member
            yield b"".join(pieces)

    def _read_grown(self, name: str, descriptor: int) -> bytes:
        """The next bytes of a file that may still grow: its own end-of-archive mark says that it is whole."""
        while True:
            ended = self._tool.has_ended()
            if chunk := os.read(descriptor, _READ_BYTES):
                self._consumed += len(chunk)
                if self._consumed % _FORGET_EVERY_BYTES < len(chunk):
                    _forget(descriptor, self._consumed)
                return chunk
            self._staging.check()
            if ended:
                self._tool.finish()
                raise ExportFailed(
                    f"pg_basebackup ended well, but its {name} was cut",
                    remedy=f"see whether the disk of {self._staging.path.parent} is full or failing, and try again",
                )
            self._wait()

    def _manifest(self, descriptor: int) -> Iterator[bytes]:
        if self._newest is None:
            raise ExportFailed(
                "pg_basebackup ended well, but left no tar",
                remedy="see who deletes in its staging directory, and try again",
            )
        left = size = os.fstat(descriptor).st_size
        yield new_header(MEMBER, like=self._newest, mode=0o600, size=size)
        while left:
            chunk = self._read_grown(MEMBER, descriptor)
            left -= len(chunk)
            yield chunk
        yield bytes(padding_of(size))

    def _wait(self) -> None:
        self._waiting = True
        self._tool.has_ended(within_s=_LOOK_EVERY_S)
        self._waiting = False

    def _throttle(self) -> None:
        """Pause the tool when the upload does not keep pace, but never while the reader waits for the tool."""
        unread = -self._consumed
        for path in self._tars():
            with suppress(FileNotFoundError):  # read and gone meanwhile
                unread += path.stat().st_size
        if self._waiting or unread < self._most_unread_bytes // 2:
            self._tool.resume()
        elif unread > self._most_unread_bytes:
            self._tool.pause()


def _forget(descriptor: int, read_bytes: int) -> None:
    """Give back the disk below what was read of a file that still grows: `base.tar` is nearly the whole cluster.

    A file system that can't (fallocate(2)) keeps it until the file is removed.
    """
    _LIBC.fallocate(descriptor, _FALLOC_FL_KEEP_SIZE | _FALLOC_FL_PUNCH_HOLE, 0, read_bytes)
