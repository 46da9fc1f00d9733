"""Which of two histories was lived in, where the newest timeline does not come from the newest base backup.

Numbers don't tell. After a promotion that was taken back the lower number lives on; after a recovery to an earlier
moment the higher one. What tells is when each was written to; and before the second began, the first was the only one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Protocol

from pv_backup.services.errors import TargetRefused
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.way import Way
from pv_backup.services.wal import SegmentName

log = logging.getLogger(__name__)


class LifeClock(Protocol):
    """Tells when the last and the first commit in a row of segments were made, None if they hold none."""

    def __call__(self, segments: Sequence[SegmentName]) -> datetime | None: ...

    def first(self, segments: Sequence[SegmentName], *, since_lsn: int) -> datetime | None: ...


def life_end(way: Way, clock: LifeClock) -> datetime:
    """When it was last written to; beyond a hole, too: what is missing makes no history an abandoned one."""
    return max(filter(None, (clock(way.archive.on(way.lineage, way.start_lsn)), way.base.stopped_at)))


def lived_in(
    newest: Way, passed_over: Way, target: RecoveryTarget, *, clock_of: Callable[[WalArchive], LifeClock]
) -> Way:
    """The way whose history the database had at the target.

    :param newest: to the newest timeline, from an older base backup.
    :param passed_over: from the newest base backup before the target, which does not lead there.
    :raises TargetRefused: if the target is a time after the last commit of one and before the first of the other.
    """
    clock = clock_of(newest.archive)
    their_end, our_end = life_end(passed_over, clock), life_end(newest, clock)
    if their_end > our_end:
        log.warning(
            "timeline %d was written to until %s, the newest one, %d, until %s: the former is taken; "
            "`restore --base %s` takes the latter",
            *(passed_over.timeline, their_end.isoformat(), newest.timeline, our_end.isoformat()),
            newest.base.manifest.key,
        )
        return passed_over
    if target.time is not None and not (began := _began(newest, passed_over, clock) or our_end) <= target.time:
        if target.time > their_end:
            raise TargetRefused(
                f"nobody wrote at {target}: timeline {passed_over.timeline} was written to until "
                f"{their_end.isoformat()}, what is timeline {newest.timeline} now from {began.isoformat()} on",
                remedy="choose a target on the latter, or the end of the former: "
                f"`restore … --latest --base {passed_over.base.manifest.key}`",
            )
        log.warning(
            "timeline %d was written to from %s on, after %s: timeline %d is taken",
            *(newest.timeline, began.isoformat(), target, passed_over.timeline),
        )
        return passed_over
    log.warning(
        "%s is passed over: timeline %d does not lead on from it; `restore --base %s` would take it",
        *(passed_over.base, newest.timeline, passed_over.base.manifest.key),
    )
    return newest


def _began(newest: Way, passed_over: Way, clock: LifeClock) -> datetime | None:
    """When the first was written to apart from the other, None if it never was."""
    branch = newest.lineage.left(passed_over.lineage)
    return clock.first(newest.archive.on(newest.lineage, branch), since_lsn=branch)
