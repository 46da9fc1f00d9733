"""How far the bucket leads: to which LSN and moment each base backup can be recovered, and what is missing behind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.route import CommitClock, find_route
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.way import Base, Way, Ways
from pv_backup.services.wal import Hole, Lineage, SegmentName, format_lsn


@dataclass(frozen=True)
class Coverage:
    """What recovery can reach from one base backup.

    :ivar segments: the WAL segments that lead on from it without a hole.
    :ivar reached: the LSN up to which the WAL is whole.
    :ivar timeline: that it ends on.
    :ivar newest: the newest timeline in the bucket; if that is another one, `restore` goes by when each was written to.
    :ivar last_commit: of that WAL; None if it holds none, or nobody looked.
    :ivar holes: what is missing in front of later segments; recovery ends at the first.
    """

    base: Base
    timeline: int
    newest: int
    segments: list[SegmentName]
    reached: str
    last_commit: datetime | None
    holes: list[Hole]


def coverages(
    store: ObjectStore,
    keys: KeyWrapper,
    bases: Iterable[Manifest],
    *,
    clock_of: Callable[[WalArchive], CommitClock] | None = None,
) -> Iterator[Coverage]:
    """Follow the WAL from each base backup.

    :param clock_of: makes who tells the time of the last commit, once for all base backups that lead to the same end.
    :raises IntegrityError: if a timeline history is damaged.
    :raises StoreUnavailable: if S3 does not answer.
    """
    known: dict[SegmentName, datetime | None] = {}
    all_bases = list(map(Base.of, bases))
    for way in map(Ways(all_bases, store=store, keys=keys), all_bases):
        found = _coverage(way)
        if clock_of is not None and found.segments:
            end = found.segments[-1]
            if end not in known:
                known[end] = clock_of(way.archive)(found.segments)
            found = replace(found, last_commit=known[end])
        yield found


def _coverage(way: Way) -> Coverage:
    base, lineage = way.base, way.lineage
    # The backup's own end is always reached: the artefact brings the WAL up to there along.
    route = find_route(way, RecoveryTarget(lsn=base.stop_lsn - 1), last_commit=_nobody)
    segments = [segment for name in route.files if (segment := SegmentName.parse(name))]
    following = lineage.after(segments[-1]) if segments else lineage.at(way.start_lsn)
    return Coverage(
        base,
        route.timeline,
        way.newest,
        segments,
        format_lsn(max(base.stop_lsn, following.start(base.segment_bytes))),
        None,
        list(_holes(following, way.archive, lineage, base.segment_bytes)),
    )


def _holes(following: SegmentName, archive: WalArchive, lineage: Lineage, segment_bytes: int) -> Iterator[Hole]:
    for segment in archive.on(lineage, following.start(segment_bytes)):
        if segment != following:
            last = lineage.before(segment)
            assert last is not None  # noqa: S101 - `following` comes before it
            yield Hole(following, last, segment)
        following = lineage.after(segment)


def _nobody(segments: Sequence[SegmentName]) -> datetime | None:
    raise AssertionError("a target that is no time asks for no clock")
