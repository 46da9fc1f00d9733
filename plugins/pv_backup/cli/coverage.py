"""The part of `list` about WAL: how far recovery can go from each base backup, and which segments are missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import ConfigurationError, PvBackupError
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.catalogue import wal_keys
from pv_backup.services.restoration.commit_clock import WalCommitClock
from pv_backup.services.restoration.coverage import Coverage, coverages
from pv_backup.services.settings import Settings
from pv_backup.services.standalone import keys_from_environment


@dataclass(frozen=True)
class WalCovered:
    """What the WAL in the bucket is good for.

    :ivar files: how many there are.
    :ivar problem: what kept somebody from looking: the rest of the list is true without it.
    :ivar timeless: why no time of a last commit is told.
    """

    files: int
    coverages: list[Coverage] = field(default_factory=list)
    problem: str | None = None
    timeless: str | None = None

    @property
    def text(self) -> str:
        """For people; the command that follows from it stands at the end."""
        lines = [f"WAL: {self.files} files"]
        if self.problem:
            return f"{lines[0]}; how far they lead is not known: {self.problem}"
        if not self.coverages:
            return f"{lines[0]}, and no base backup: dumps can be restored, but not rolled forward"
        for found in self.coverages:
            reached = f"LSN {found.reached}, timeline {found.timeline}"
            last = found.last_commit.isoformat() if found.last_commit else "not known" if self.timeless else "none"
            lines.append(f"  from {found.base.manifest.key}, stopped at {found.base.stopped_at.isoformat()}")
            lines.append(f"    to {reached}, {len(found.segments)} segments; last commit {last}")
            if found.timeline < found.newest:
                lines.append(f"    {self._beside_the_newest(found)}")
            lines += [f"    MISSING {hole}: recovery ends in front of it" for hole in found.holes[:1]]
            lines += [f"    missing {hole}" for hole in found.holes[1:]]
        return "\n".join([*lines, *([f"  no time of a last commit: {self.timeless}"] if self.timeless else [])])

    def _beside_the_newest(self, found: Coverage) -> str:
        others = [each.last_commit for each in self.coverages if each.timeline == found.newest and each.last_commit]
        if found.last_commit and others and found.last_commit > max(others):
            return f"timeline {found.newest} does not lead on from it, but ended before: `restore` goes by this one"
        return (
            f"ABANDONED: timeline {found.newest} does not lead on from it; "
            "`restore` takes one from which it does, or this one by --base"
        )

    def to_json(self) -> dict[str, Any]:
        """The same as JSON types."""
        return {
            "files": self.files,
            "problem": self.problem,
            "times_absent": self.timeless,
            "coverage": [
                {
                    "base": found.base.manifest.key,
                    "backup_id": found.base.manifest.backup_id,
                    "from_time": found.base.stopped_at.isoformat(),
                    "from_lsn": found.base.manifest.stop_lsn,
                    "to_lsn": found.reached,
                    "to_time": found.last_commit.isoformat() if found.last_commit else None,
                    "timeline": found.timeline,
                    "newest_timeline": found.newest,
                    "segments": len(found.segments),
                    "holes": [
                        {"first": str(hole.first), "last": str(hole.last), "before": str(hole.before)}
                        for hole in found.holes
                    ],
                }
                for found in self.coverages
            ],
        }


def covered(settings: Settings, store: ObjectStore, backups: Sequence[Manifest]) -> WalCovered:
    """Look at the WAL; the newest of it is decrypted to a private directory for a moment, for pg_waldump."""
    files = sum(1 for _ in wal_keys(store))
    bases = [backup for backup in backups if backup.backup_type is ArtefactType.BASEBACKUP]
    tools, timeless = Server({}, settings.pg_bin_dir), None
    try:
        tools.tool("pg_waldump")
    except ConfigurationError as error:
        timeless = error.what
    try:
        keys = keys_from_environment(settings)
        with TemporaryDirectory(prefix="pv-backup-list-") as staging:
            clock_of = None if timeless else partial(WalCommitClock, tools=tools, staging=Path(staging))
            found = list(coverages(store, keys, bases, clock_of=clock_of))
    except PvBackupError as error:
        return WalCovered(files, problem=str(error))
    return WalCovered(files, found, timeless=timeless)
