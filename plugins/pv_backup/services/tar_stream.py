"""Tar archives as they pass by, in chunks of any size: members found, contents skipped, nothing held.

Python's own tarfile wants to pull from a file; a backup's bytes must go on to the bucket while we look at
them. The format is POSIX ustar, as PostgreSQL writes it (`src/port/tar.c`).
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import Final, NamedTuple

from pv_backup.services.errors import ExportFailed

BLOCK: Final = tarfile.BLOCKSIZE
END_OF_ARCHIVE: Final = bytes(2 * BLOCK)

_NAME: Final = slice(0, 100)
_SIZE: Final = slice(124, 136)
_CHECKSUM: Final = slice(148, 156)
_PREFIX: Final = slice(345, 500)


class Member(NamedTuple):
    """What we want to know of a member; all that tarfile.TarInfo reads doubles the time that a small one takes."""

    name: str
    size: int
    header: bytes


class Piece(NamedTuple):
    """A stretch of an archive: a member's whole header, or bytes of its content, up to and with its padding."""

    member: Member
    data: bytes | memoryview
    is_header: bool


class TarSplitter:
    """Cuts one archive into its pieces, which are views into the chunks that it is fed.

    :param name: what the archive is called in errors.
    :ivar ended: whether the end-of-archive mark has passed; only then is the archive whole.
    """

    def __init__(self, *, name: str) -> None:
        self._name = name
        self._header = bytearray()
        self._member = Member("", 0, b"")
        self._left = 0
        self.ended = False

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Cut the next bytes; what follows the end-of-archive mark is filling and is dropped.

        :raises ExportFailed: if they are no tar archive.
        """
        rest = memoryview(chunk)
        while rest and not self.ended:
            if self._left:
                content, rest = rest[: self._left], rest[self._left :]
                self._left -= len(content)
                yield Piece(self._member, content, is_header=False)
                continue
            missing = BLOCK - len(self._header)
            self._header += rest[:missing]
            rest = rest[missing:]
            if len(self._header) == BLOCK:
                raw = bytes(self._header)
                self._header.clear()
                if self._begin(raw):
                    yield Piece(self._member, raw, is_header=True)

    def _begin(self, raw: bytes) -> bool:
        if raw.count(0) == BLOCK:
            self.ended = True
            return False
        try:
            size, checksum = _number(raw[_SIZE]), _number(raw[_CHECKSUM])
        except ValueError:
            checksum = -1
        if checksum != _checksum_of(raw):
            raise ExportFailed(
                f"{self._name} is no tar archive, or was cut",
                remedy="run the export by hand and look at what it writes",
            )
        parts = (raw[field].partition(b"\0")[0] for field in (_PREFIX, _NAME))
        name = b"/".join(part for part in parts if part)
        self._member = Member(name.decode(errors="surrogateescape"), size, raw)
        self._left = self._member.size + padding_of(self._member.size)
        return True


def _number(field: bytes) -> int:
    """Octal digits, or for what they can't hold a marked big-endian integer: sizes of 8 GiB and more."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    return int(field.strip(b" \0"), 8)


def padding_of(size: int) -> int:
    """The bytes that fill a content's last block."""
    return -size % BLOCK


def moved_below(folder: str, header: bytes) -> bytes:
    """A member's header with its name put below a folder.

    The folder goes into ustar's prefix field, which PostgreSQL leaves empty, so that no name grows too long.
    """
    moved = bytearray(header)
    encoded = folder.encode()
    moved[_PREFIX] = encoded.ljust(_PREFIX.stop - _PREFIX.start, b"\0")
    moved[_CHECKSUM] = b"%06o\0 " % _checksum_of(moved)
    return bytes(moved)


def _checksum_of(header: bytes | bytearray) -> int:
    """The sum of all bytes, those of the sum itself counted as blanks."""
    return sum(header) - sum(header[_CHECKSUM]) + 8 * ord(" ")


def new_header(name: str, *, like: Member, mode: int, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    """The header of a member of our own.

    :param like: whose owner and time it takes.
    """
    known = tarfile.TarInfo.frombuf(like.header, "utf-8", "surrogateescape")
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.size, member.mtime = kind, mode, size, int(known.mtime)
    member.uid, member.gid, member.uname, member.gname = known.uid, known.gid, known.uname, known.gname
    return member.tobuf(tarfile.USTAR_FORMAT)
