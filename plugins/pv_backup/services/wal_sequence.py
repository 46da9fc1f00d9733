"""Find the holes in the sequence of WAL, before and between the files that are about to be shipped (SPEC F2).

Recovery stops at the first missing segment, however many follow it. So for each stretch of files in the
directory, the segment in front of it must be in the bucket, on its own timeline or on an ancestor's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from pv_backup.services.artefacts import WAL_PREFIX, wal_name, wal_object_key
from pv_backup.services.errors import IntegrityError, PvBackupError, WalConflict, WalDamaged, WalGap
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_reader import StoredObject
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.progress import Progress
from pv_backup.services.verification import open_artefact, unpacked
from pv_backup.services.wal import Branch, Hole, Lineage, SegmentName, branches_of, history_name, runs_of
from pv_backup.services.wal_objects import SYSTEM_IDENTIFIER
from pv_backup.services.wal_spool import SegmentHeader, WalFile, WalSpool

log = logging.getLogger(__name__)

_TAKE_BASE_BACKUP = (
    "look for the file on the source (pg_wal) and in PostgreSQL's and pg_receivewal's logs; "
    "if it is lost, trigger pv_backup_weekly_basebackup now: nothing after the hole can be recovered from before it"
)
_COPY_HISTORY = "copy it from pg_wal of the source into the WAL directory; the next run ships it"


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
        segments = [segment for file in files if (segment := file.segment)]
        histories = [file.name for file in files if file.segment is None]
        # Stretch by stretch: one old file that had to stay must not make every run page through all that came after.
        stretches = [(str(first), str(last)) for first, last in runs_of(segments, self._segment_bytes)]
        listed = (
            self._store.keys_between(WAL_PREFIX, wal_object_key(first), wal_object_key(last))
            for first, last in chain(stretches, zip(histories, histories, strict=True))
        )
        return {wal_name(key) for key in chain.from_iterable(listed)} & {file.name for file in files}

    def breaks(self, files: Collection[WalFile]) -> Iterator[tuple[str, PvBackupError]]:
        """What is wrong in front of these files: the segment behind each break, and the error that names it.

        :raises StoreUnavailable: if S3 does not answer.
        :raises FailClosedError: if a history must be read from the bucket and Vault does not unwrap its key.
        """
        segments = [segment for file in files if (segment := file.segment)]
        for first, _ in runs_of(segments, self._segment_bytes):
            try:
                error = self._break_before(first, segments)
            except WalDamaged as damage:
                error = damage
            if error is not None:
                yield str(first), error

    def _break_before(self, segment: SegmentName, waiting: Collection[SegmentName]) -> PvBackupError | None:
        before = self._lineage(segment, []).before(segment)
        if before is None:
            return None
        if (there := self._stored(before)) or self._spool.contains(str(before)):
            return self._of_another_cluster(there)
        branches = self._branches(segment.timeline)
        if not branches and segment.timeline > 1:
            return WalGap(
                f"{history_name(segment.timeline)} is neither in the bucket nor in {self._spool.directory}: "
                f"recovery cannot find its way to {segment}",
                remedy=_COPY_HISTORY,
            )
        lineage = self._lineage(segment, branches)
        before = lineage.before(segment)
        if before is None:
            return None
        if (there := self._stored(before)) or self._spool.contains(str(before)):
            return self._of_another_cluster(there)
        ends = lineage.ends_up_to(before)
        newest = next((newest for end in ends if (newest := self._newest_up_to(end, waiting))), None)
        if newest is None:
            log.info("there is no WAL before %s: the archive begins here", segment)
            return None
        return WalGap(f"WAL is missing: {Hole(lineage.after(newest), before, segment)}", remedy=_TAKE_BASE_BACKUP)

    def _lineage(self, segment: SegmentName, branches: Sequence[Branch]) -> Lineage:
        return Lineage(segment.timeline, branches, segment_bytes=self._segment_bytes)

    def _newest_up_to(self, segment: SegmentName, waiting: Collection[SegmentName]) -> SegmentName | None:
        """The newest segment of that timeline in the bucket or the directory, up to this one."""
        lowest = SegmentName(segment.timeline, 0, 0)
        keys = self._store.keys_between(
            f"{WAL_PREFIX}{segment.timeline:08X}", wal_object_key(str(lowest)), wal_object_key(str(segment))
        )
        shipped = (SegmentName.parse(wal_name(key)) for key in keys)
        here = (other for other in waiting if lowest <= other <= segment)
        return max((other for other in chain(shipped, here) if other), default=None)

    def _stored(self, segment: SegmentName) -> StoredObject | None:
        return self._store.head(wal_object_key(str(segment)))

    def _of_another_cluster(self, there: StoredObject | None) -> PvBackupError | None:
        identifier = there.metadata.get(SYSTEM_IDENTIFIER) if there else None
        if there is None or identifier in (None, self._system_identifier):
            return None
        return WalConflict(
            f"{there.key} is of cluster {identifier}, the WAL that follows it in "
            f"{self._spool.directory} is of cluster {self._system_identifier}",
            remedy="one bucket takes the WAL of one cluster: point this one at a bucket of its own",
        )

    def _branches(self, timeline: int) -> list[Branch]:
        """Where a timeline comes from, by its history in the directory or else in the bucket.

        :raises WalDamaged: if the one in the bucket does not open.
        """
        name = history_name(timeline)
        if timeline == 1:
            return []
        if self._spool.contains(name):
            return branches_of((self._spool.directory / name).read_text(errors="replace"))
        key = wal_object_key(name)
        if self._store.head(key) is None:
            return []
        try:
            with open_artefact(self._store, self._keys, key, Progress(label=key, downloads=True)) as artefact:
                return branches_of(b"".join(unpacked(artefact.header, artefact.plaintext)).decode(errors="replace"))
        except IntegrityError as error:
            raise WalDamaged(
                f"the object {key} is damaged, and recovery cannot find its way to timeline {timeline} without it: "
                f"{error.what}",
                remedy=_COPY_HISTORY,
            ) from error
