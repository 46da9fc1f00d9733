"""Restore a whole cluster to a target: base backup, WAL, recovery, promotion; or an error that names what is wrong."""

from __future__ import annotations

import logging
import re
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import ConfigurationError, IntegrityError, RefusedError, RestoreFailed
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.restoration.base_choice import choose_base
from pv_backup.services.restoration.catalogue import published_backups
from pv_backup.services.restoration.commit_clock import WalCommitClock
from pv_backup.services.restoration.configuration import add_missing_configuration
from pv_backup.services.restoration.feed import MOST_AT_ONCE, WalFeed
from pv_backup.services.restoration.route import Route, find_route
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from pv_backup.services.restoration.source_settings import put_back, set_aside
from pv_backup.services.restoration.steps import step
from pv_backup.services.restoration.target import RecoveryTarget
from pv_backup.services.restoration.tools import Place, ToolRunner, hand_to, make_private, passes, run_as
from pv_backup.services.restoration.unpacking import unpack_cluster, verify_unpacked
from pv_backup.services.restoration.way import Base, Ways
from pv_backup.services.restoration.writing import writing

log = logging.getLogger(__name__)

_SHOWN_CHARACTERS: Final = 2000
_LAST_COMMIT: Final = re.compile(r"last completed transaction was at log time (\S+ \S+)")


@dataclass(frozen=True)
class Restored:
    """What a recovery reached.

    :ivar lsn: where the new timeline begins.
    :ivar last_commit: the time of the last commit that was replayed, None if there was none after the base backup.
    :ivar wal_files: how many files were read from the bucket.
    :ivar seconds: from the first look into the bucket until queries are answered.
    :ivar superuser: of the cluster; `postgres`, unless there is no such role.
    :ivar database: that lets it in; `template1`, unless that one is closed.
    """

    base: Base
    target: RecoveryTarget
    timeline: int
    lsn: str
    last_commit: datetime | None
    wal_files: int
    seconds: float
    superuser: str
    database: str

    @property
    def reached_at(self) -> datetime:
        """The moment whose rows are there: of the last commit, or of the base backup's end if nothing came after."""
        return self.last_commit or self.base.stopped_at


class ClusterRestore:
    """Restores into one directory.

    :param directory: empty or absent; the cluster's data directory in the end.
    :param tools: where PostgreSQL's programs are.
    :param sandbox: what the directory is in (:attr:`Sandbox.data`), if all of it shall go again, whatever happens.
    :param base_key: of the base backup to begin with, None: the choice is ours (:func:`choose_base`).
    """

    def __init__(
        self,
        *,
        store: ObjectStore,
        keys: KeyWrapper,
        tools: Server,
        directory: Path,
        sandbox: Sandbox | None = None,
        base_key: str | None = None,
    ) -> None:
        self._store = store
        self._keys = keys
        self._tools = tools
        self._directory = directory.absolute()
        self._sandbox = sandbox
        self._base_key = base_key
        self._user = run_as()
        self._place = sandbox.place if sandbox else Place(self._directory)
        self._runner = sandbox.runner(tools) if sandbox else ToolRunner(tools, self._place, self._user)

    def plan(self, target: RecoveryTarget) -> Route:
        """Choose the backup and the WAL, and refuse what cannot be reached, before anything is written.

        :raises NotPublished, TargetRefused, WalGap, IntegrityError: naming what is wrong.
        """
        bases = list(map(Base.of, published_backups(self._store, (ArtefactType.BASEBACKUP,))))
        ways = Ways(bases, store=self._store, keys=self._keys)
        with self._staging() as staging:
            clock_of = partial(WalCommitClock, tools=self._tools, staging=staging, place=self._place)
            way = choose_base(bases, target, ways, key=self._base_key, clock_of=clock_of)
            return find_route(way, target, last_commit=clock_of(way.archive))

    def run(self, target: RecoveryTarget) -> Restored:
        """Restore, recover to the target, promote, and leave a clean cluster that is stopped.

        What ALTER SYSTEM set on the source is there again, less recovery and archive (:func:`put_back`): its next
        start fails by no leftover of another recovery, and archives nothing.

        :raises RestoreFailed: if a tool or the server fails.
        :raises IntegrityError: naming the object, if one is damaged or swapped.
        """
        with self.recovered(target) as (server, restored), step("shutdown"):
            server.stop()
        with writing("the configuration", self._place):
            written = add_missing_configuration(
                self._directory,
                user=self._user,
                superuser=restored.superuser,
                in_place=bool(restored.base.manifest.tablespaces),
            )
            put_back(self._directory, user=self._user, stop_archiving="postgresql.conf" not in written)
        with step("sync"):
            self._sync()
        return restored

    @contextmanager
    def recovered(
        self, target: RecoveryTarget, *, route: Route | None = None
    ) -> Iterator[tuple[RestoredServer, Restored]]:
        """Restore, recover to the target and promote; while the context is open, the server answers queries.

        :param route: of :meth:`plan` for this target, if the caller has asked already.
        :raises RestoreFailed: if a tool or the server fails, or the disk is full.
        :raises IntegrityError: naming the object, if one is damaged or swapped.
        """
        began = time.monotonic()
        self._demand_empty()
        route = route or self.plan(target)
        make_private(self._directory, self._user)
        self._demand_passage()
        manifest, needed = route.base.manifest, self._needed_bytes(route)
        self._place.demand_room(needed, f"the cluster in {manifest.key}")
        with ExitStack() as server_exit:
            with self._staging() as staging, self._feed(route, staging) as feed:
                feed.prefetch()
                with route.naming_another_base(IntegrityError):
                    unpack_cluster(
                        self._store, self._keys, manifest, self._directory, runner=self._runner, needed_bytes=needed
                    )
                if self._sandbox is None:
                    server_exit.enter_context(self._syncing())
                with route.naming_another_base(RestoreFailed):
                    verify_unpacked(self._directory, runner=self._runner)
                self._prepare()
                server = server_exit.enter_context(self._server(route, feed))
                with step("recovery"):
                    self._wait(server, feed)
            yield server, self._restored(server, route, feed, began)

    def _feed(self, route: Route, staging: Path) -> WalFeed:
        return WalFeed(
            archive=route.archive,
            files=route.files,
            taken=route.taken,
            segment_bytes=route.base.segment_bytes,
            directory=staging,
            place=self._place,
        )

    def _server(self, route: Route, feed: WalFeed) -> RestoredServer:
        settings = route.target.settings | {
            "restore_command": feed.restore_command,
            "recovery_target_timeline": str(route.timeline),
            "recovery_target_action": "promote",
        }
        if self._sandbox is None:
            return RestoredServer(data=self._directory, tools=self._tools, settings=settings)
        return self._sandbox.new_server(self._tools, data=self._directory, settings=settings)

    @staticmethod
    def _wait(server: RestoredServer, feed: WalFeed) -> None:
        try:
            with feed.progress.reporting():
                server.wait_until_recovered()
        except RestoreFailed:
            if feed.failure is not None:
                raise feed.failure from None
            raise

    def _restored(self, server: RestoredServer, route: Route, feed: WalFeed, began: float) -> Restored:
        seconds = time.monotonic() - began
        try:
            with server.connect() as connection:
                lsn, segment, last_commit = one_row(
                    connection,
                    "SELECT pg_current_wal_lsn()::text, pg_walfile_name(pg_current_wal_lsn()),"
                    " pg_last_xact_replay_timestamp()",
                )
        except psycopg.Error as error:
            raise server.failed_query(error) from None
        if route.target == RecoveryTarget() and feed.served < len(route.files):
            raise RestoreFailed(
                f"recovery ended at {lsn} and never asked for {route.files[feed.served]}: PostgreSQL takes what is "
                f"before it for the end of the WAL; the end of its log:\n{server.log_text[-_SHOWN_CHARACTERS:]}",
                remedy="look at that WAL with pg_waldump (`python -m pv_backup fetch`); a target before it is reached",
            )
        # The server knows no more, if it had to be started again for another superuser.
        if last_commit is None and (told := _LAST_COMMIT.search(server.log_text)):
            last_commit = datetime.fromisoformat(told[1])
        timeline = int(segment[:8], 16)
        log.info("recovered to %s in %.1f s: timeline %d from %s", route.target, seconds, timeline, lsn)
        return Restored(
            base=route.base,
            target=route.target,
            timeline=timeline,
            lsn=lsn,
            last_commit=last_commit,
            wal_files=feed.served,
            seconds=seconds,
            superuser=server.superuser,
            database=server.database,
        )

    @staticmethod
    def _needed_bytes(route: Route) -> int:
        """What the disk must hold at least: nobody knows by how much the WAL lets the cluster grow."""
        ahead = min(len(route.files), MOST_AT_ONCE) * route.base.segment_bytes
        return route.base.manifest.exported_bytes + ahead

    def _demand_empty(self) -> None:
        if self._directory.exists() and any(self._directory.iterdir()):
            raise RefusedError(
                f"{self._directory} is not empty", remedy="name an empty directory, or one that is not there yet"
            )

    def _demand_passage(self) -> None:
        """Refuse at once what tar would fail by, after all of the base backup was downloaded and verified."""
        if not passes(self._user, self._directory):
            raise ConfigurationError(
                f"{self._user}, whom PostgreSQL runs as, can't get to {self._directory}: a directory on the way is "
                "closed to it",
                remedy="open the way for it (chmod o+x), or restore into another directory",
            )

    def _prepare(self) -> None:
        """Make the directory one that recovers from an archive, whatever its server was."""
        with writing("recovery.signal", self._place):
            # In-place tablespaces need no map; with one, PostgreSQL would link to where they were on the source.
            for leftover in ("tablespace_map", "standby.signal"):
                (self._directory / leftover).unlink(missing_ok=True)
            set_aside(self._directory)
            signal = self._directory / "recovery.signal"
            signal.touch()
            hand_to(self._user, signal)

    @contextmanager
    def _syncing(self) -> Iterator[None]:
        """Let the disk take what was unpacked while recovery goes on, so that the last sync finds little left."""
        with ThreadPoolExecutor(1, thread_name_prefix="sync") as pool:
            # What it finds broken must be told: the system may not tell a second one.
            syncing = pool.submit(self._bring_to_disk, "sync", "--file-system", str(self._directory))
            yield
        syncing.result()

    def _sync(self) -> None:
        """Bring to the disk, once, what was restored without waiting for it."""
        self._bring_to_disk(self._tools.tool("initdb"), "--sync-only", f"--pgdata={self._directory}")

    def _bring_to_disk(self, *command: str) -> None:
        self._runner.run(
            command,
            failing=f"{self._directory} could not be brought to the disk",
            remedy="look at the disk, then restore again",
        )

    @contextmanager
    def _staging(self) -> Iterator[Path]:
        """A private directory for WAL on its way: in the sandbox, or beside the cluster."""
        if self._sandbox is not None:
            with self._sandbox.folder("wal-") as folder:
                yield folder
            return
        self._directory.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="pv-backup-wal-", dir=self._directory.parent) as name:
            hand_to(self._user, Path(name))
            yield Path(name)
