"""Restore a whole cluster to a target: base backup, WAL, recovery, promotion; or an error that names what is wrong."""

from __future__ import annotations

import logging
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import RefusedError, RestoreFailed
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.commit_clock import WalCommitClock
from pv_backup.services.restoration.feed import WalFeed
from pv_backup.services.restoration.route import Base, Route, choose_base, find_route
from pv_backup.services.restoration.server import RestoredServer, as_user, run_as
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.unpacking import unpack_cluster, verify_unpacked
from pv_backup.services.restoration.wal_archive import WalArchive

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Restored:
    """What a recovery reached.

    :ivar lsn: where the new timeline begins.
    :ivar last_commit: the time of the last commit that was replayed, None if there was none after the base backup.
    :ivar wal_files: how many files were read from the bucket.
    :ivar seconds: from the first look into the bucket until queries are answered.
    """

    base: Base
    target: RecoveryTarget
    timeline: int
    lsn: str
    last_commit: datetime | None
    wal_files: int
    seconds: float


class ClusterRestore:
    """Restores into one directory.

    :param directory: empty or absent; the cluster's data directory in the end.
    :param tools: where PostgreSQL's programs are.
    """

    def __init__(self, *, store: ObjectStore, keys: KeyWrapper, tools: Server, directory: Path) -> None:
        self._store = store
        self._keys = keys
        self._tools = tools
        self._directory = directory.absolute()
        self._user = run_as()

    def plan(self, target: RecoveryTarget) -> Route:
        """Choose the backup and the WAL, and refuse what cannot be reached, before anything is written.

        :raises NotPublished, TargetRefused, WalGap, IntegrityError: naming what is wrong.
        """
        base = choose_base(published_backups(self._store, (ArtefactType.BASEBACKUP,)), target)
        archive = self._archive(base)
        with self._staging() as staging:
            clock = WalCommitClock(archive=archive, tools=self._tools, staging=staging)
            return find_route(base, archive, target, last_commit=clock)

    def run(self, target: RecoveryTarget) -> Restored:
        """Restore, recover to the target, promote, and leave a clean cluster that is stopped.

        :raises RestoreFailed: if a tool or the server fails.
        :raises IntegrityError: naming the object, if one is damaged or swapped.
        """
        began = time.monotonic()
        self._demand_empty()
        route = self.plan(target)
        self._make_directory()
        unpack_cluster(self._store, self._keys, route.base.manifest, self._directory, run_as=self._user)
        verify_unpacked(self._tools, self._directory)
        self._prepare()
        restored = self._recover(route, began)
        self._sync()
        return restored

    def _recover(self, route: Route, began: float) -> Restored:
        with self._staging() as staging:
            feed = WalFeed(
                archive=self._archive(route.base),
                files=route.files,
                segment_bytes=route.base.segment_bytes,
                directory=staging,
            )
            settings = route.target.settings | {
                "restore_command": feed.restore_command,
                "recovery_target_timeline": str(route.timeline),
                "recovery_target_action": "promote",
            }
            with feed, RestoredServer(data=self._directory, tools=self._tools, settings=settings) as server:
                try:
                    with feed.progress.reporting():
                        server.wait_until_recovered()
                except RestoreFailed:
                    if feed.failure is not None:
                        raise feed.failure from None
                    raise
                seconds = time.monotonic() - began
                with server.connect() as connection:
                    lsn, segment, last_commit = one_row(
                        connection,
                        "SELECT pg_current_wal_lsn()::text, pg_walfile_name(pg_current_wal_lsn()),"
                        " pg_last_xact_replay_timestamp()",
                    )
                server.stop()
        timeline = int(segment[:8], 16)
        log.info("recovered to %s in %.1f s: timeline %d from %s", route.target, seconds, timeline, lsn)
        return Restored(route.base, route.target, timeline, lsn, last_commit, feed.served, seconds)

    def _archive(self, base: Base) -> WalArchive:
        return WalArchive(
            store=self._store,
            keys=self._keys,
            timeline=base.timeline,
            segment_bytes=base.segment_bytes,
            system_identifier=base.manifest.system_identifier,
        )

    def _demand_empty(self) -> None:
        if self._directory.exists() and any(self._directory.iterdir()):
            raise RefusedError(
                f"{self._directory} is not empty", remedy="name an empty directory, or one that is not there yet"
            )

    def _make_directory(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory.chmod(0o700)
        if self._user:
            shutil.chown(self._directory, self._user, self._user)

    def _prepare(self) -> None:
        """Make the directory one that recovers from an archive, whatever its server was."""
        # In-place tablespaces need no map; with one, PostgreSQL would link to where they were on the source.
        for leftover in ("tablespace_map", "standby.signal"):
            (self._directory / leftover).unlink(missing_ok=True)
        signal = self._directory / "recovery.signal"
        signal.touch()
        if self._user:
            shutil.chown(signal, self._user, self._user)

    def _sync(self) -> None:
        """Bring to the disk, once, what was restored without waiting for it."""
        command = [self._tools.tool("initdb"), "--sync-only", f"--pgdata={self._directory}"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False, **as_user(self._user))
        if answer.returncode != 0:
            raise RestoreFailed(
                f"{self._directory} could not be brought to the disk: {answer.stderr.strip()}",
                remedy="look at the disk, then restore again",
            )

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A private directory beside the cluster, for WAL on its way."""
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pv-backup-wal-", dir=self._directory.parent) as name:
            if self._user:
                shutil.chown(name, self._user, self._user)
            yield Path(name)
