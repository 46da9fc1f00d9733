"""The shipped WAL, as a recovery looks at it: which files there are, and how far they lead without a hole."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

from pv_backup.services.artefacts import WAL_PREFIX, wal_name, wal_object_key
from pv_backup.services.errors import WalConflict
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.verification import copy_verified
from pv_backup.services.wal import Branch, Lineage, SegmentName, branches_of, history_name, is_history_name, is_wal_name
from pv_backup.services.wal_objects import SYSTEM_IDENTIFIER, expected_of_wal

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stretch:
    """Segments that follow each other without a hole.

    :ivar missing: the first segment that is not there although a later one is, None if nothing is known to be missing.
    """

    segments: list[SegmentName]
    missing: SegmentName | None


class WalArchive:
    """The WAL files in the bucket from one timeline on.

    :param timeline: nothing of an older one is looked at.
    :param system_identifier: of the cluster; another cluster's file is refused.
    """

    def __init__(
        self, *, store: ObjectStore, keys: KeyWrapper, timeline: int, segment_bytes: int, system_identifier: str
    ) -> None:
        self._store = store
        self._keys = keys
        self._timeline = timeline
        self._segment_bytes = segment_bytes
        self._system_identifier = system_identifier
        self._read: dict[str, list[Branch] | None] = {}

    @cached_property
    def names(self) -> frozenset[str]:
        """Every file, by the name that PostgreSQL asks for.

        :raises StoreUnavailable: if S3 does not answer.
        """
        first = wal_object_key(history_name(self._timeline))
        keys = self._store.keys_between(WAL_PREFIX, first, f"{WAL_PREFIX}G")
        return frozenset(name for key in keys if is_wal_name(name := wal_name(key)))

    @cached_property
    def newest_timeline(self) -> int:
        """The newest that anything of this cluster is there of, its history or no more than a segment.

        :raises StoreUnavailable: if S3 does not answer.
        """
        first: dict[int, str] = {}
        for name in sorted(filter(SegmentName.parse, self.names)):
            first.setdefault(int(name[:8], 16), name)
        histories = {int(name[:8], 16): name for name in filter(is_history_name, self.names)}
        for timeline in sorted(first.keys() | histories.keys(), reverse=True):
            if any(timeline in found and self._is_ours(found[timeline]) for found in (histories, first)):
                return timeline
        return self._timeline

    def taken_after(self, timeline: int, newest: int) -> range:
        """The timelines whose histories a recovery to the first must find, so that its new one has a number of its own.

        PostgreSQL takes the first number without a history, and its WAL would get names that are here already. Of a
        timeline there may be segments only, or nothing any more: up to the newest each counts, beyond it what is here
        of whatever cluster.
        """
        here = {int(name[:8], 16) for name in self.names}
        while newest + 1 in here:
            newest += 1
        return range(timeline + 1, newest + 1)

    def lineages(self, timeline: int) -> Iterator[Lineage]:
        """The ways that lead to this timeline and later ones, the newest first; the last is the timeline's own.

        A timeline of another cluster is none of them: its history may outlive it in the bucket.

        :raises IntegrityError: if a history is damaged.
        """
        own = history_name(timeline)
        for name in sorted((name for name in self.names if is_history_name(name) and name > own), reverse=True):
            if (branches := self._branches(name)) is not None:
                yield Lineage(int(name.removesuffix(".history"), 16), branches, segment_bytes=self._segment_bytes)
        branches = self._branches(own) if own in self.names else None
        yield Lineage(timeline, branches or [], segment_bytes=self._segment_bytes)

    def stretch(self, lineage: Lineage, start_lsn: int) -> Stretch:
        """The segments from an LSN on, as far as they go without a hole."""
        segments: list[SegmentName] = []
        following = lineage.at(start_lsn)
        while str(following) in self.names:
            segments.append(following)
            following = lineage.after(following)
        beyond = following.start(self._segment_bytes)
        return Stretch(segments, following if self.on(lineage, beyond) else None)

    def on(self, lineage: Lineage, lsn: int) -> list[SegmentName]:
        """The segments of a way from the one with this LSN on, whatever is missing between them."""
        first = lsn // self._segment_bytes * self._segment_bytes
        return [
            segment
            for segment in self._segments
            if (start := segment.start(self._segment_bytes)) >= first and lineage.at(start) == segment
        ]

    def of_timeline(self, timeline: int) -> list[SegmentName]:
        """All of its own segments."""
        return [segment for segment in self._segments if segment.timeline == timeline]

    @cached_property
    def _segments(self) -> list[SegmentName]:
        """All segments of whatever timeline, by where they begin."""
        parsed = filter(None, map(SegmentName.parse, self.names))
        return sorted(parsed, key=lambda segment: segment.start(self._segment_bytes))

    def fetch(self, name: str, path: Path) -> None:
        """Write one file, its hash, header and cluster checked before a byte of it can be read under its name.

        :raises IntegrityError: naming the object, if it is damaged, another file's or another cluster's.
        """
        key = wal_object_key(name)
        expected = expected_of_wal(self._store, key)
        theirs = expected.further_metadata.get(SYSTEM_IDENTIFIER)
        if theirs != self._system_identifier:
            raise WalConflict(
                f"{key} is of cluster {theirs}, the base backup is of cluster {self._system_identifier}",
                remedy="look for another version of the object; without it recovery ends before this file",
            )
        draft = path.with_name(path.name + ".draft")
        progress = Progress(label=key, downloads=True)
        with draft.open("wb") as file:
            # The directory is closed to all but the server's user, who need not be ourselves.
            os.fchmod(file.fileno(), 0o644)
            copy_verified(self._store, self._keys, key, expected, file, progress=progress)
        draft.rename(path)

    def _is_ours(self, name: str) -> bool:
        there = self._store.head(wal_object_key(name))
        return there is not None and there.metadata.get(SYSTEM_IDENTIFIER) == self._system_identifier

    def _branches(self, name: str) -> list[Branch] | None:
        """What a history says, None if it is another cluster's."""
        if name not in self._read:
            self._read[name] = self._branches_in(wal_object_key(name))
        return self._read[name]

    def _branches_in(self, key: str) -> list[Branch] | None:
        content, expected = BytesIO(), expected_of_wal(self._store, key)
        theirs = expected.further_metadata.get(SYSTEM_IDENTIFIER)
        if theirs != self._system_identifier:
            log.warning("%s is of cluster %s, not of %s: it is left out", key, theirs, self._system_identifier)
            return None
        progress = Progress(label=key, downloads=True)
        copy_verified(self._store, self._keys, key, expected, content, progress=progress)
        return branches_of(content.getvalue().decode(errors="replace"))
