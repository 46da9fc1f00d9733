"""The way from a base backup to a target: which timeline, which WAL; refused before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pv_backup.services.errors import PvBackupError, TargetAhead, TargetRefused, WalGap
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.way import Base, Way
from pv_backup.services.wal import SegmentName, format_lsn, history_name

log = logging.getLogger(__name__)


class CommitClock(Protocol):
    """Tells when the last commit in a row of segments was made, None if they hold none."""

    def __call__(self, segments: Sequence[SegmentName]) -> datetime | None: ...


@dataclass(frozen=True)
class Route:
    """What a recovery reads: the base backup, then these files and no others.

    :ivar target: as given; the very last commit's own time becomes the end of the WAL, since PostgreSQL would wait
        for a later commit to know that it has arrived.
    :ivar taken: timelines behind that one whose numbers the new one must not get.
    :ivar archive: that has the files.
    :ivar before: the base backup to take if this one is damaged, None if there is none.
    """

    base: Base
    target: RecoveryTarget
    timeline: int
    files: list[str]
    taken: range
    archive: WalArchive
    before: Base | None

    @contextmanager
    def naming_another_base(self, kind: type[PvBackupError]) -> Iterator[None]:
        """An error that may be the base backup's own says what there is in its place."""
        try:
            yield
        except kind as error:
            if self.before is None:
                other = (
                    "there is no base backup before it that --base could name: restore a dump (`fetch … | pg_restore`)"
                )
            else:
                key = self.before.manifest.key
                other = f"or take the base backup before it, with all the WAL since: `restore … --base {key}`"
            error.remedy = f"{error.remedy}; {other}"
            raise


def find_route(way: Way, target: RecoveryTarget, *, last_commit: CommitClock) -> Route:
    """Follow the newest timeline that comes from the base backup, and make sure that it leads to the target.

    :param last_commit: is asked only when the target is a time.
    :raises WalGap: naming the missing segment, if the target may lie behind it.
    :raises TargetAhead: if the target is past the last shipped commit, or past the last byte of WAL.
    :raises TargetRefused: likewise, if a newer timeline may lead there, but not from this base backup.
    """
    base, archive, lineage = way.base, way.archive, way.lineage
    stretch = archive.stretch(lineage, way.start_lsn)
    reached = max(base.stop_lsn, way.start_lsn + len(stretch.segments) * base.segment_bytes)
    if target.lsn is not None and target.lsn >= reached:
        raise _not_reached(f"WAL is shipped up to LSN {format_lsn(reached)}", target, stretch.missing, way)
    if target.time is not None:
        newest = last_commit(stretch.segments) or base.stopped_at
        if target.time > newest:
            raise _not_reached(
                f"the last shipped commit was made at {newest.isoformat()}", target, stretch.missing, way
            )
        if target.time == newest:
            target = RecoveryTarget()
    elif target.lsn is None and stretch.missing is not None:
        raise _not_reached(f"WAL is whole up to LSN {format_lsn(reached)}", target, stretch.missing, way)
    histories = [history_name(timeline) for timeline in lineage.timelines]
    files = [name for name in histories if name in archive.names] + [str(segment) for segment in stretch.segments]
    log.info("from %s on timeline %d to %s: %d files", base, way.timeline, target, len(files))
    taken = archive.taken_after(way.timeline, way.newest)
    return Route(base, target, way.timeline, files, taken, archive, way.before)


def _not_reached(what: str, target: RecoveryTarget, missing: SegmentName | None, way: Way) -> WalGap | TargetRefused:
    if missing is not None:
        return WalGap(
            f"{what}; {missing} is missing behind it, and {target} needs it",
            remedy="look for another version of that object, or for the file in pg_wal of the source; "
            "or choose a target before the hole",
        )
    if way.is_abandoned:
        return TargetRefused(
            f"{what} on timeline {way.timeline}, and {target} is later; timeline {way.newest} goes on, but no WAL "
            f"leads there from {way.base}",
            remedy="choose an earlier target, or a base backup that leads there: `python -m pv_backup list` shows them",
        )
    return TargetAhead(
        f"{what}, and {target} is later: recovery would end before it",
        remedy="choose an earlier target, or --latest for the end of what was shipped",
    )
