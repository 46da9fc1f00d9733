"""Which base backup a recovery begins with: the newest one that leads to the newest timeline, or the one that is named.

A base backup may lie on a timeline that was abandoned: where a lagging standby was promoted, or somebody recovered to a
moment before its end, the newest timeline branched off before it, and no WAL leads from it to what was committed since.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Self

from pv_backup.services.errors import NotPublished, TargetRefused
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import Lineage, parse_lsn

log = logging.getLogger(__name__)

_SEE_LIST = "`python -m pv_backup list` shows the keys and how far each leads"


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

    @property
    def cluster(self) -> tuple[str, int]:
        """What it shares with every base backup that its WAL could belong to."""
        return self.manifest.system_identifier, self.segment_bytes

    def ended_before(self, target: RecoveryTarget) -> bool:
        """Whether recovery from here can stop at the target; of a restore point nobody knows where it is."""
        if target.time is not None:
            return self.stopped_at <= target.time
        return target.lsn is None or self.stop_lsn <= target.lsn

    def __str__(self) -> str:
        return f"{self.manifest.key} (stopped at {self.stopped_at.isoformat()}, {self.manifest.stop_lsn})"


@dataclass(frozen=True)
class Way:
    """A base backup, and where the WAL in the bucket leads from it.

    :ivar lineage: the timelines on the way, up to the newest that it leads to.
    :ivar newest: the newest timeline of its cluster, whether this leads there or not.
    :ivar before: the base backup to take if this one is damaged; None if there is none, or nobody asked.
    """

    base: Base
    lineage: Lineage
    archive: WalArchive
    newest: int
    before: Base | None = None

    @property
    def timeline(self) -> int:
        """The one that it ends on."""
        return self.lineage.timelines[-1]

    @property
    def is_abandoned(self) -> bool:
        """Whether the newest timeline left this base backup's history before its end."""
        return self.timeline < self.newest

    @property
    def start_lsn(self) -> int:
        """Where what the bucket must add begins: the artefact itself holds the WAL up to the base backup's end."""
        size = self.base.segment_bytes
        if self.lineage.at(self.base.stop_lsn - 1).timeline != self.base.timeline:
            # A later timeline branched off behind that end, in the same segment: its copy of that is the valid one.
            return self.base.stop_lsn // size * size
        return -(-self.base.stop_lsn // size) * size


class Ways:
    """Finds where base backups lead; what is read of the bucket is read once for all of them.

    :param bases: all that are published.
    """

    def __init__(self, bases: Iterable[Base], *, store: ObjectStore, keys: KeyWrapper) -> None:
        self._timelines: dict[tuple[str, int], set[int]] = {}
        for base in bases:
            self._timelines.setdefault(base.cluster, set()).add(base.timeline)
        self._archives: dict[tuple[str, int], WalArchive] = {}
        self._store = store
        self._keys = keys

    def __call__(self, base: Base) -> Way:
        """Where this one of them leads.

        :raises IntegrityError: if a timeline history is damaged.
        :raises StoreUnavailable: if S3 does not answer.
        """
        timelines, archive = self._timelines[base.cluster], self._archive(base)
        newest = max(archive.newest_timeline, *timelines)
        lineage = next(
            line for line in archive.lineages(base.timeline) if line.includes(base.timeline, up_to=base.stop_lsn)
        )
        return Way(base, lineage, archive, newest)

    def _archive(self, base: Base) -> WalArchive:
        if base.cluster not in self._archives:
            self._archives[base.cluster] = WalArchive(
                store=self._store,
                keys=self._keys,
                timeline=min(self._timelines[base.cluster]),
                segment_bytes=base.segment_bytes,
                system_identifier=base.manifest.system_identifier,
            )
        return self._archives[base.cluster]


def choose_base(
    bases: Iterable[Base], target: RecoveryTarget, way_of: Callable[[Base], Way], *, key: str | None = None
) -> Way:
    """Of the base backups that ended before the target, those that lead to the newest timeline; of these the newest.

    Where none does, the newest timeline that any leads to counts, if the target may lie on it, and a warning says so.

    :param key: of the base backup to take in any case, None: the choice is ours.
    :raises NotPublished: if there is none, or none of that key.
    :raises TargetRefused: if all of them, or that one, ended after the target; or if it is the end of the WAL, and none
        leads to the timeline that has it.
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
        way = _leading_furthest([other for other in reaching if other.cluster == base.cluster], way_of)
        _tell(way, passed_over=reaching[: reaching.index(way.base)], target=target)
    older = [other for other in reaching if other.cluster == base.cluster and other.stopped_at < way.base.stopped_at]
    return replace(way, before=_leading_furthest(older, way_of).base if older else None)


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


def _tell(way: Way, *, passed_over: Sequence[Base], target: RecoveryTarget) -> None:
    """Say what nobody expects: that a newer base backup is not taken, or that the newest timeline is out of reach.

    :raises TargetRefused: if what is out of reach is the target.
    """
    for base in passed_over:
        log.warning(
            "%s is passed over: timeline %d does not lead on from it; `restore --base %s` would take it",
            *(base, way.timeline, base.manifest.key),
        )
    if not way.is_abandoned:
        return
    what = (
        f"no base backup that ended before {target} leads to timeline {way.newest}, the newest in the bucket; "
        f"the furthest that any leads is timeline {way.timeline}, from {way.base}"
    )
    if target == RecoveryTarget():
        raise TargetRefused(
            what,
            remedy="take a base backup at once if the source still runs (pv_backup_weekly_basebackup); if not, restore "
            f"the newest dump (`fetch … | pg_restore`), or the older timeline to its end: `restore … --base "
            f"{way.base.manifest.key}`",
        )
    log.warning("%s; it is taken nevertheless", what)
