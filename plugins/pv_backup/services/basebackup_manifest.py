"""PostgreSQL's own `backup_manifest`, picked out of a base backup that passes by.

It is the last member of the archive and tells what nothing else does while the backup is made: timeline and
WAL range (https://www.postgresql.org/docs/15/backup-manifest-wal.html). It also lets pg_verifybackup check
a restored directory file by file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from pv_backup.services.errors import ExportFailed
from pv_backup.services.tar_stream import Piece, TarSplitter
from pv_backup.services.wal import parse_lsn, segments_between

MEMBER: Final = "backup_manifest"
MOST_BYTES: Final = 16 * 1024 * 1024
# The WAL ranges stand at the end of the text, one line a timeline.
_TAIL_BYTES: Final = 64 * 1024
_RANGES: Final = b'"WAL-Ranges":'


@dataclass(frozen=True)
class BackupManifest:
    """What a base backup says of itself.

    :ivar text: the whole document without its final newline, which `jq -r` adds; None if it is too large to travel
        in our manifest.
    :ivar start_lsn: where recovery begins, :ivar stop_lsn: and what it must reach, as PostgreSQL writes them.
    """

    text: str | None
    size: int
    timeline: int
    start_lsn: str
    stop_lsn: str

    def facts(self, wal_segment_bytes: int) -> dict[str, Any]:
        """What our manifest says of it; without `wal_files` the backup cannot be recovered."""
        first, last = parse_lsn(self.start_lsn), parse_lsn(self.stop_lsn)
        needed = segments_between(first, last, self.timeline, wal_segment_bytes)
        facts: dict[str, Any] = {
            "timeline": self.timeline,
            "start_lsn": self.start_lsn,
            "stop_lsn": self.stop_lsn,
            "wal_segment_bytes": wal_segment_bytes,
            "wal_files": [str(segment) for segment in needed],
        }
        if self.text is None:
            absent = f"it has {self.size} bytes, more than {MOST_BYTES}; the artefact holds it as {MEMBER}"
            return facts | {"backup_manifest_absent": absent}
        return facts | {"backup_manifest": self.text}


class ManifestCatcher:
    """Lets a base backup pass, and keeps its manifest.

    :param most_bytes: a larger one is not kept; only its end is read.
    """

    def __init__(self, *, most_bytes: int = MOST_BYTES) -> None:
        self._splitter = TarSplitter(name="the base backup")
        self._most_bytes = most_bytes
        self._size = 0
        self._seen = 0
        self._kept = bytearray()

    def watch(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Hand on every chunk as it is.

        :raises ExportFailed: if the archive ends without a whole manifest: then it is no whole backup.
        """
        for chunk in chunks:
            for piece in self._splitter.feed(chunk):
                if piece.member.name == MEMBER:
                    self._take(piece)
            yield chunk
        if not (self._splitter.ended and self._size and self._seen == self._size):
            raise ExportFailed(
                f"pg_basebackup ended well, but its archive ends without a whole {MEMBER}",
                remedy="look at the disk and at PostgreSQL's log of the source, and try again",
            )

    def _take(self, piece: Piece) -> None:
        if piece.is_header:
            self._size = piece.member.size
            return
        payload = piece.data[: self._size - self._seen]
        self._seen += len(payload)
        self._kept += payload
        if self._size > self._most_bytes:
            del self._kept[:-_TAIL_BYTES]

    def manifest(self) -> BackupManifest:
        """What was caught, once the chunks have ended.

        :raises ExportFailed: if it does not name the one WAL range of a backup from a primary.
        """
        ranges = self._ranges()
        if len(ranges) != 1:
            raise ExportFailed(
                f"{MEMBER} names {len(ranges)} WAL ranges instead of one",
                remedy="see whether the source was promoted or switched over meanwhile, and try again",
            )
        (only,) = ranges
        kept_whole = self._size <= self._most_bytes
        return BackupManifest(
            text=self._kept.decode().removesuffix("\n") if kept_whole else None,
            size=self._size,
            timeline=int(only["Timeline"]),
            start_lsn=str(only["Start-LSN"]),
            stop_lsn=str(only["End-LSN"]),
        )

    def _ranges(self) -> list[dict[str, Any]]:
        _, found, rest = self._kept.rpartition(_RANGES)
        try:
            ranges, _ = json.JSONDecoder().raw_decode(rest.decode().lstrip()) if found else ([], 0)
        except ValueError:
            return []
        return list(ranges)
