"""Restore a dump and the roles that it needs into a throw-away server: the drill's logical leg (SPEC F4.1)."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import psycopg
from psycopg import sql

from pv_backup.services.drill_errors import StagingFull
from pv_backup.services.errors import NotPublished, RestoreFailed
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.manifest import Manifest
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.content import VerifiedContent
from pv_backup.services.restoration.discretion import told
from pv_backup.services.restoration.sandbox import Sandbox
from pv_backup.services.restoration.server import RestoredServer
from pv_backup.services.restoration.steps import step
from pv_backup.services.restoration.tools import make_private

log = logging.getLogger(__name__)

# initdb's own cluster, and the WAL that it makes before the first checkpoint.
_EMPTY_CLUSTER_BYTES: Final = 128 * 1024 * 1024
# Nothing is recovered here and nothing follows: as little WAL as PostgreSQL can do with.
_THROWN_AWAY: Final = {"wal_level": "minimal", "max_wal_senders": "0", "max_wal_size": "256MB", "min_wal_size": "32MB"}

_NO_TABLESPACE: Final = re.compile(r'ERROR: +tablespace "(.+)" does not exist')
_READ_ITS_MESSAGE: Final = (
    "read its message; look with `python -m pv_backup fetch KEY | pg_restore --list` at what the dump holds"
)
# What pg_restore and psql say, and what helps.
_REMEDIES: Final = (
    (
        re.compile(r"could not open extension control file|extension \".*\" is not available|could not access file"),
        "install that extension's package for PostgreSQL 15 on this worker: whoever needs the backup will need it too",
    ),
    (
        re.compile(r"role \".*\" does not exist"),
        "see why the day's roles (globals) were not published, or whether the role was made between them and the dump",
    ),
    (
        re.compile(r"invalid locale name|could not create locale|collation .* does not exist"),
        "generate that locale on this worker (locale-gen): whoever needs the backup will need it too",
    ),
)


@dataclass(frozen=True)
class DumpRestored:
    """What a dump came back as.

    :ivar roles: whose definitions were restored before it; None if there were none.
    :ivar database: the database's name, as on the source.
    :ivar seconds: from the first look at the artefacts until queries are answered.
    """

    dump: Manifest
    roles: Manifest | None
    database: str
    seconds: float


class DumpRestore:
    """Restores into a sandbox, of which nothing stays.

    :param tools: where PostgreSQL's programs are.
    """

    def __init__(self, *, store: ObjectStore, keys: KeyWrapper, tools: Server, sandbox: Sandbox) -> None:
        self._store = store
        self._keys = keys
        self._tools = tools
        self._sandbox = sandbox
        self._runner = sandbox.runner(tools)
        # The dump's roles may have any name, `postgres` first of all; none has this one.
        self._superuser = f"pv_backup_{uuid4().hex}"

    @contextmanager
    def restored(self, dump: Manifest, roles: Manifest | None) -> Iterator[tuple[RestoredServer, DumpRestored]]:
        """Verify both artefacts, then restore them; while the context is open, the server answers queries.

        What was decrypted is never on a disk but as what psql and pg_restore made of it.

        :raises IntegrityError: if one is not what its manifest says; no tool has seen a byte then (INV-47-08).
        :raises RestoreFailed: with the tool's own words; StagingFull if the disk is full.
        """
        began = time.monotonic()
        database = dump.database
        if database is None:
            raise NotPublished(f"{dump.key} names no database", remedy="name the key of a dump")
        # The artefact is compressed harder than PostgreSQL does it: less than that does not suffice.
        self._sandbox.demand_room(_EMPTY_CLUSTER_BYTES + dump.size_bytes, f"the database in {dump.key}")
        with ExitStack() as kept:
            roles_content = kept.enter_context(self._verified(roles)) if roles else None
            content = kept.enter_context(self._verified(dump))
            self._make_cluster()
            server = kept.enter_context(
                self._sandbox.new_server(
                    self._tools, data=self._sandbox.data, settings=_THROWN_AWAY, superuser=self._superuser
                )
            )
            server.wait_until_recovered()
            if roles_content is not None:
                with step("psql"):
                    self._restore_roles(server, roles_content)
            with step("pg_restore"):
                self._restore_database(server, content, database)
            seconds = self._answered(server, database, began)
            yield server, DumpRestored(dump, roles, database, seconds)

    def _verified(self, manifest: Manifest) -> VerifiedContent:
        return VerifiedContent(
            store=self._store,
            keys=self._keys,
            manifest=manifest,
            place=self._sandbox.place,
            spare_bytes=_EMPTY_CLUSTER_BYTES + manifest.exported_bytes,
        )

    def _make_cluster(self) -> None:
        """An empty cluster, UTF-8; each database brings its own locale."""
        data = self._sandbox.data
        make_private(data, self._sandbox.user)
        self._runner.run(
            [
                self._tools.tool("initdb"),
                f"--pgdata={data}",
                f"--username={self._superuser}",
                "--auth=trust",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
                "--no-instructions",
            ],
            failing=f"initdb could not make a cluster in {data}",
            remedy="read its message; see that PostgreSQL 15's server is installed whole on this worker",
        )

    def _restore_roles(self, server: RestoredServer, roles: VerifiedContent) -> None:
        with roles.read(label="restoring") as content:
            self._run(
                server,
                ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", "--file=-"],
                failing=f"psql could not restore the roles in {roles.key}",
                stdin=content,
            )

    def _restore_database(self, server: RestoredServer, dump: VerifiedContent, database: str) -> None:
        """By pg_restore; a tablespace that the database itself lies in is made first, inside of the data directory.

        `--no-tablespaces` spares all objects theirs, and CREATE DATABASE not, which has it from pg_dump.
        """
        try:
            self._restore_objects(server, dump, database)
        except RestoreFailed as error:
            missing = _NO_TABLESPACE.search(error.what)
            if missing is None:
                raise
            with server.connect() as connection:
                connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION ''").format(sql.Identifier(missing[1])))
            self._restore_objects(server, dump, database)

    def _restore_objects(self, server: RestoredServer, dump: VerifiedContent, database: str) -> None:
        with server.connect() as connection:
            # initdb makes one that is called `postgres`, as the dump's may be.
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(database)))
        into = f"--dbname={server.server().database}"
        with dump.read(label="restoring") as content:
            self._run(
                server,
                ["pg_restore", "--create", "--exit-on-error", "--no-tablespaces", into],
                failing=f"pg_restore could not restore {dump.key}",
                stdin=content,
            )

    def _run(self, server: RestoredServer, command: list[str], *, failing: str, stdin: Iterator[bytes]) -> None:
        try:
            self._runner.run(
                [self._tools.tool(command[0]), *command[1:]],
                failing=failing,
                remedy=_READ_ITS_MESSAGE,
                server=server.server(),
                stdin=stdin,
            )
        except StagingFull:
            raise
        except RestoreFailed as error:
            remedies = (remedy for pattern, remedy in _REMEDIES if pattern.search(error.what))
            raise server.explained(RestoreFailed(error.what, remedy=next(remedies, error.remedy))) from None

    @staticmethod
    def _answered(server: RestoredServer, database: str, began: float) -> float:
        try:
            with server.connect(database) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            refused = RestoreFailed(
                f"{database} was restored and does not let us in: {told(error)}",
                remedy="see in what pg_restore was given how that database differs from others",
            )
            raise server.explained(refused) from None
        seconds = time.monotonic() - began
        log.info("%s restored in %.1f s", database, seconds)
        return seconds
