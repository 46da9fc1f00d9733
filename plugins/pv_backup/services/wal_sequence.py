"""Find the holes in the sequence of WAL, before and between the files that are about to be shipped (SPEC F2).

Recovery stops at the first missing segment, however many follow it. So for each stretch of files in the
directory, the segment in front of it must be in the bucket, on its own timeline or on the parent's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from pv_backup.services.artefacts import WAL_PREFIX, wal_object_key
from pv_backup.services.compression import decompress
from pv_backup.services.errors import PvBackupError, WalConflict, WalGap
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.verification import open_artefact
from pv_backup.services.wal import Branch, Hole, SegmentName, branch_of, history_name, predecessor, runs_of, segment_of
from pv_backup.services.wal_objects import SYSTEM_IDENTIFIER
from pv_backup.services.wal_spool import SegmentHeader, WalFile, WalSpool

log = logging.getLogger(__name__)

_TAKE_BASE_BACKUP = (
    "look for the file on the source (pg_wal) and in PostgreSQL's and pg_receivewal's logs; "
    "if it is lost, trigger pv_backup_weekly_basebackup now: nothing after the hole can be recovered from before it"
)


class WalSequence:
    """Knows what must have been shipped before.

    :param header: of a segment of this cluster, for its segment size and system identifier.
    """

    def __init__(self, *, store: ObjectStore, keys: KeyWrapper, spool: WalSpool, header: SegmentHeader) -> None:
        self._store = store
        self._keys = keys
        self._spool = spool
        self._segment_bytes = header.segment_bytes
        self._system_identifier = header.system_identifier

    def present(self, files: Collection[WalFile]) -> set[str]:
        """The names among these files that the bucket has an object of.

        :raises StoreUnavailable: if S3 does not answer.
        """
        if not files:
            return set()
        names = sorted(file.name for file in files)
        listed = self._store.keys_between(WAL_PREFIX, wal_object_key(names[0]), wal_object_key(names[-1]))
        wanted = {wal_object_key(name): name for name in names}
        return {wanted[key] for key in listed if key in wanted}

    def breaks(self, files: Collection[WalFile]) -> Iterator[tuple[str, PvBackupError]]:
        """What is wrong in front of these files: the segment behind each break, and the error that names it.

        :raises StoreUnavailable: if S3 does not answer.
        :raises FailClosedError: if a history must be read from the bucket and Vault does not unwrap its key.
        """
        segments = [segment for file in files if (segment := file.segment)]
        for first, _ in runs_of(segments, self._segment_bytes):
            if (error := self._break_before(first)) is not None:
                yield str(first), error

    def _break_before(self, segment: SegmentName) -> PvBackupError | None:
        before = predecessor(segment, None, self._segment_bytes)
        if before is None or self._has(before):
            return self._of_another_cluster(before) if before else None
        branch = self._branch(segment.timeline)
        if branch is None and segment.timeline > 1:
            return WalGap(
                f"{history_name(segment.timeline)} is neither in the bucket nor in {self._spool.directory}: "
                f"recovery cannot find its way to {segment}",
                remedy="copy it from pg_wal of the source into the WAL directory",
            )
        on_parent = predecessor(segment, branch, self._segment_bytes)
        if on_parent is not None and on_parent != before:
            before = on_parent
            if self._has(before):
                return self._of_another_cluster(before)
        hole = self._hole(segment, before, branch)
        if hole is None:
            log.info("the bucket has no WAL before %s: the archive begins here", segment)
            return None
        return WalGap(f"WAL is missing: {hole}", remedy=_TAKE_BASE_BACKUP)

    def _hole(self, segment: SegmentName, before: SegmentName, branch: Branch | None) -> Hole | None:
        """What is missing, from the newest segment that the bucket has below it; None if it has none."""
        newest = self._newest_up_to(before)
        if newest is not None:
            return Hole(newest.next(self._segment_bytes), before, segment)
        if branch is None or branch.parent == before.timeline:
            return None
        fork = segment_of(branch.switch_lsn, branch.parent, self._segment_bytes)
        newest = self._newest_up_to(fork)
        if newest is None:
            return None
        # The parent's own segment of the fork is never finished: the child's begins with its bytes.
        first_missing = newest.next(self._segment_bytes)
        if first_missing >= fork:
            first_missing = SegmentName(before.timeline, fork.log, fork.segment)
        return Hole(first_missing, before, segment)

    def _newest_up_to(self, segment: SegmentName) -> SegmentName | None:
        timeline = f"{WAL_PREFIX}{segment.timeline:08X}"
        lowest = wal_object_key(str(SegmentName(segment.timeline, 0, 0)))
        newest = None
        for newest in self._store.keys_between(timeline, lowest, wal_object_key(str(segment))):  # noqa: B007 - the last one
            pass
        return SegmentName.parse(newest.removeprefix(WAL_PREFIX).removesuffix(".enc")) if newest else None

    def _has(self, segment: SegmentName) -> bool:
        return self._spool.contains(str(segment)) or self._store.head(wal_object_key(str(segment))) is not None

    def _of_another_cluster(self, segment: SegmentName) -> PvBackupError | None:
        there = self._store.head(wal_object_key(str(segment)))
        identifier = there.metadata.get(SYSTEM_IDENTIFIER) if there else None
        if identifier in (None, self._system_identifier):
            return None
        return WalConflict(
            f"{wal_object_key(str(segment))} is of cluster {identifier}, the WAL that follows it in "
            f"{self._spool.directory} is of cluster {self._system_identifier}",
            remedy="one bucket takes the WAL of one cluster: point this one at a bucket of its own",
        )

    def _branch(self, timeline: int) -> Branch | None:
        """Where a timeline left its parent, by its history in the directory or else in the bucket."""
        name = history_name(timeline)
        if timeline == 1:
            return None
        if self._spool.contains(name):
            return branch_of((self._spool.directory / name).read_text(errors="replace"))
        key = wal_object_key(name)
        if self._store.head(key) is None:
            return None
        with open_artefact(self._store, self._keys, key, Progress(label=key, downloads=True)) as artefact:
            return branch_of(b"".join(decompress(artefact.plaintext)).decode(errors="replace"))
