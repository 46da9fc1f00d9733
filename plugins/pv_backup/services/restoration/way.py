"""Where base backups lead: along which timelines, in whose WAL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from pv_backup.services.errors import NotPublished
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import Lineage, parse_lsn


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
