"""Which base backup a recovery begins with: the newest one whose history leads to the target, or the one that is named.

A base backup may lie on a timeline that was abandoned: where a lagging standby was promoted, or somebody recovered to a
moment before its end, the newest timeline branched off before it, and no WAL leads from it to what was committed since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from pv_backup.services.errors import NotPublished, PvBackupError, TargetRefused
from pv_backup.services.restoration.histories import LifeClock, life_end, lived_in
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.restoration.way import Base, Way

log = logging.getLogger(__name__)

_SEE_LIST = "`python -m pv_backup list` shows the keys and how far each leads"


def choose_base(
    bases: Iterable[Base],
    target: RecoveryTarget,
    way_of: Callable[[Base], Way],
    *,
    key: str | None = None,
    clock_of: Callable[[WalArchive], LifeClock],
) -> Way:
    """The newest base backup that ended before the target, and whose history the database had then (:func:`lived_in`).

    :param key: of the base backup to take in any case, None: the choice is ours.
    :param clock_of: is asked only where there is more than one history.
    :raises NotPublished: if there is none, or none of that key.
    :raises TargetRefused: if all of them, or that one, ended after the target; if the target is the end of the WAL, and
        none leads to the timeline that has it; or if it is a time at which no history was written.
    """
    newest_first = sorted(bases, key=lambda base: base.stopped_at, reverse=True)
    if not newest_first:
        raise NotPublished(
            "the bucket holds no published base backup",
            remedy="a dump can be restored with `fetch … | pg_restore`, but not rolled forward",
        )
    reaching = [base for base in newest_first if base.ended_before(target)]
    if key is not None:
        base = _named(key, newest_first, target)
        way = way_of(base)
    elif not reaching:
        raise TargetRefused(
            f"{target} is before the end of the oldest base backup in the bucket, {newest_first[-1]}",
            remedy="choose a later target, or restore a dump of that day: `fetch … | pg_restore`",
        )
    else:
        base = reaching[0]
        way = furthest = _leading_furthest([other for other in reaching if other.cluster == base.cluster], way_of)
        if furthest.base != base:
            way = lived_in(furthest, way_of(base), target, clock_of=clock_of)
        if way.is_abandoned and way is furthest and target == RecoveryTarget():
            _demand_end(way, clock_of(way.archive))
    older = [other for other in reaching if other.cluster == base.cluster and other.stopped_at < way.base.stopped_at]
    return replace(way, before=_one_before(older, way_of))


def _one_before(older: Sequence[Base], way_of: Callable[[Base], Way]) -> Base | None:
    """Which to name if the chosen one turns out to be damaged; what is wrong with it is no reason not to try that."""
    try:
        return _leading_furthest(older, way_of).base if older else None
    except PvBackupError as error:
        log.warning("where the base backups before it lead is not known: %s", error)
        return older[0]


def _named(key: str, newest_first: Sequence[Base], target: RecoveryTarget) -> Base:
    for base in newest_first:
        if base.manifest.key == key:
            break
    else:
        raise NotPublished(
            f"{key!r} is not the key of a published base backup; the newest is {newest_first[0].manifest.key}",
            remedy=_SEE_LIST,
        )
    if not base.ended_before(target):
        raise TargetRefused(
            f"{target} is before the end of the base backup {base}",
            remedy=f"choose a later target or an earlier base backup: {_SEE_LIST}",
        )
    return base


def _leading_furthest(newest_first: Sequence[Base], way_of: Callable[[Base], Way]) -> Way:
    best = way_of(newest_first[0])
    for base in newest_first[1:]:
        if not best.is_abandoned:
            break
        way = way_of(base)
        if way.timeline > best.timeline:
            best = way
    return best


def _demand_end(way: Way, clock: LifeClock) -> None:
    """Refuse the end of a way for the end of all WAL, unless the timelines after it were written to no longer.

    :raises TargetRefused: naming what is out of reach, and what is not.
    """
    beyond = clock(way.archive.of_timeline(way.newest))
    if beyond is not None and beyond < life_end(way, clock):
        log.warning("timeline %d ended at %s, before timeline %d", way.newest, beyond.isoformat(), way.timeline)
        return
    raise TargetRefused(
        f"no base backup leads to timeline {way.newest}, the newest in the bucket; the furthest that any leads is "
        f"timeline {way.timeline}, from {way.base}",
        remedy="take a base backup at once if the source still runs (pv_backup_weekly_basebackup); if not, restore the "
        "newest dump (`fetch … | pg_restore`), or the older timeline to its end: `restore … --base "
        f"{way.base.manifest.key}`",
    )
