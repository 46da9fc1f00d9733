"""The way from a base backup to a target: which backup, which timeline, which WAL; refused before anything starts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, Self

from pv_backup.services.errors import NotPublished, TargetAhead, TargetRefused, WalGap
from pv_backup.services.manifest import Manifest
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import SegmentName, format_lsn, history_name, parse_lsn

log = logging.getLogger(__name__)


class CommitClock(Protocol):
    """Tells when the last commit in a row of segments was made, None if they hold none."""

    def __call__(self, segments: Sequence[SegmentName]) -> datetime | None: ...


@dataclass(frozen=True)
class Base:
    """A base backup, with its positions as numbers."""

    manifest: Manifest
    timeline: int
    start_lsn: int
    stop_lsn: int
    segment_bytes: int
    stopped_at: datetime

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Read the positions, which the manifest's own rules demand."""
        positions = (manifest.timeline, manifest.start_lsn, manifest.stop_lsn, manifest.wal_segment_bytes)
        match (*positions, manifest.stopped_at):
            case (int(timeline), str(start), str(stop), int(segment_bytes), str(stopped_at)):
                return cls(
                    manifest,
                    timeline,
                    parse_lsn(start),
                    parse_lsn(stop),
                    segment_bytes,
                    datetime.fromisoformat(stopped_at),
                )
        raise NotPublished(f"{manifest.key} is no base backup", remedy="name the key of a base backup")

    def __str__(self) -> str:
        return f"{self.manifest.key} (stopped at {self.stopped_at.isoformat()}, {self.manifest.stop_lsn})"


def choose_base(backups: Iterable[Manifest], target: RecoveryTarget) -> Base:
    """The newest base backup that ended before the target.

    :raises NotPublished: if there is none, naming the oldest that there is.
    """
    bases = sorted(map(Base.of, backups), key=lambda base: base.stopped_at)
    if not bases:
        raise NotPublished(
            "the bucket holds no published base backup",
            remedy="a dump can be restored with `fetch … | pg_restore`, but not rolled forward",
        )
    for base in reversed(bases):
        if _ended_before(base, target):
            return base
    raise TargetRefused(
        f"{target} is before the end of the oldest base backup in the bucket, {bases[0]}",
        remedy="choose a later target, or restore a dump of that day: `fetch … | pg_restore`",
    )


def _ended_before(base: Base, target: RecoveryTarget) -> bool:
    if target.time is not None:
        return base.stopped_at <= target.time
    return target.lsn is None or base.stop_lsn <= target.lsn


@dataclass(frozen=True)
class Route:
    """What a recovery reads: the base backup, then these files and no others.

    :ivar target: as given; the very last commit's own time becomes the end of the WAL, since PostgreSQL would wait
        for a later commit to know that it has arrived.
    """

    base: Base
    target: RecoveryTarget
    timeline: int
    files: list[str]


def find_route(base: Base, archive: WalArchive, target: RecoveryTarget, *, last_commit: CommitClock) -> Route:
    """Follow the newest timeline that comes from the base backup, and make sure that it leads to the target.

    :param last_commit: is asked only when the target is a time.
    :raises WalGap: naming the missing segment, if the target may lie behind it.
    :raises TargetAhead: if the target is past the last shipped commit, or past the last byte of WAL.
    """
    lineage = next(line for line in archive.lineages() if line.at(base.stop_lsn - 1).timeline == base.timeline)
    # The artefact itself holds the WAL up to stop_lsn: what the bucket must add begins in the segment after it.
    stretch = archive.stretch(lineage, _end_of(base))
    reached = _end_of(base) + len(stretch.segments) * base.segment_bytes
    if target.lsn is not None and target.lsn >= reached:
        raise _not_reached(f"WAL is shipped up to LSN {format_lsn(reached)}", target, stretch.missing)
    if target.time is not None:
        newest = last_commit(stretch.segments) or base.stopped_at
        if target.time > newest:
            raise _not_reached(f"the last shipped commit was made at {newest.isoformat()}", target, stretch.missing)
        if target.time == newest:
            target = RecoveryTarget()
    elif target.lsn is None and stretch.missing is not None:
        raise _not_reached(f"WAL is whole up to LSN {format_lsn(reached)}", target, stretch.missing)
    histories = [history_name(timeline) for timeline in lineage.timelines]
    files = [name for name in histories if name in archive.names] + [str(segment) for segment in stretch.segments]
    log.info("from %s on timeline %d to %s: %d files", base, lineage.timelines[-1], target, len(files))
    return Route(base, target, lineage.timelines[-1], files)


def _end_of(base: Base) -> int:
    """The first byte of the segment after those that the base backup brings along."""
    return -(-base.stop_lsn // base.segment_bytes) * base.segment_bytes


def _not_reached(what: str, target: RecoveryTarget, missing: SegmentName | None) -> WalGap | TargetAhead:
    if missing is not None:
        return WalGap(
            f"{what}; {missing} is missing behind it, and {target} needs it",
            remedy="look for another version of that object, or for the file in pg_wal of the source; "
            "or choose a target before the hole",
        )
    return TargetAhead(
        f"{what}, and {target} is later: recovery would end before it",
        remedy="choose an earlier target, or --latest for the end of what was shipped",
    )
