"""A whole cluster as an export source: pg_basebackup, and a slot that keeps the WAL it needs (SPEC F3)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from uuid import uuid4

import psycopg

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.basebackup_manifest import ManifestCatcher
from pv_backup.services.postgres import ExportProcess, Server, one_row
from pv_backup.services.settings import CLEARTEXT_TTL_S
from pv_backup.services.staged_basebackup import StagedBasebackup
from pv_backup.services.staging import StagingDirectory
from pv_backup.services.timestamps import rfc3339
from pv_backup.services.tool_source import ToolSource, server_facts

log = logging.getLogger(__name__)

SLOT_PREFIX: Final = "pv_backup_basebackup_"

_CLUSTER = """
SELECT clock_timestamp(),
       (SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'),
       (SELECT sum(pg_tablespace_size(oid))::bigint FROM pg_tablespace)
           + pg_size_bytes(current_setting('max_wal_size')),
       (SELECT jsonb_object_agg(oid, pg_tablespace_location(oid))
          FROM pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global'))
"""


class BasebackupSource(ToolSource):
    """One cluster as one tar of its data directory, with all WAL that it needs to become consistent.

    `-X fetch` collects that WAL at the end and can't use a slot itself, so a connection beside it holds a temporary
    one, which the server drops with the connection
    (https://www.postgresql.org/docs/15/app-pgbasebackup.html, `--wal-method`).

    Without extra tablespaces the tar is streamed and never lies on a disk; with them it is staged.

    :param staging: where to stage; None takes the worker's temporary directory.
    :param ttl_s: seconds that what is staged may outlive the export (INV-47-01).
    """

    artefact_type = ArtefactType.BASEBACKUP

    def __init__(self, *, server: Server, staging: Path | None = None, ttl_s: float = CLEARTEXT_TTL_S) -> None:
        super().__init__(server=server)
        self._staging = staging
        self._ttl_s = ttl_s
        self._connection: psycopg.Connection | None = None
        # Closed with the source, not with its chunks: whoever stops reading half-way leaves nothing in clear behind.
        self._exits = ExitStack()
        self._catcher = ManifestCatcher()
        self._tablespaces: dict[str, str] = {}
        self._segment_bytes = 0
        self._expected_bytes = 0

    def __enter__(self) -> Self:
        self._connection = connection = self._server.connect()
        with self._server.naming_errors():
            # No transaction: it would hold back vacuum as long as the backup takes.
            connection.autocommit = True
            connection.execute("SET idle_session_timeout = 0")
            connection.execute(
                "SELECT pg_create_physical_replication_slot(%s, true, true)", [SLOT_PREFIX + uuid4().hex]
            )
            exported_at, self._segment_bytes, self._expected_bytes, tablespaces = one_row(connection, _CLUSTER)
            self._tablespaces = tablespaces or {}
            self._facts = server_facts(self._server, connection, "pg_basebackup")
            self._facts["exported_at"] = rfc3339(exported_at)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._exits.close()
        self._end()
        if self._connection is not None:
            self._connection.close()

    def expected_bytes(self) -> int:
        """All tablespaces on disk, and as much WAL as the server keeps."""
        return self._expected_bytes

    def chunks(self) -> Iterator[bytes]:
        """The tar, from standard output if PostgreSQL can do that for this cluster."""
        yield from self._catcher.watch(self._staged() if self._tablespaces else self._run(self._command("-")))
        self._facts["stopped_at"] = self._clock()

    def facts(self) -> dict[str, Any]:
        """Server facts, and what PostgreSQL's own manifest says of positions and WAL."""
        facts = self._facts | self._catcher.manifest().facts(self._segment_bytes)
        return facts | ({"tablespaces": self._tablespaces} if self._tablespaces else {})

    def _command(self, target: str) -> list[str]:
        # What is staged is read at once and never again: syncing it would only cost time.
        options = ["--wal-method=fetch", "--checkpoint=fast", "--no-password", "--no-sync"]
        return [self._server.tool("pg_basebackup"), "--pgdata", target, "--format=tar", *options]

    def _staged(self) -> Iterator[bytes]:
        staging = self._exits.enter_context(StagingDirectory(base=self._staging, ttl_s=self._ttl_s))
        log.info(
            "the cluster has extra tablespaces (%s), so it is staged through %s",
            ", ".join(self._tablespaces.values()),
            staging.path,
        )
        tool = ExportProcess(
            command=self._command(staging.tool_path),
            environment=self._server.environment(),
            pass_fds=[staging.descriptor],
        )
        self._process = self._exits.enter_context(tool)
        staging.watch(tool.pid)
        staged = StagedBasebackup(tool=tool, staging=staging)
        self._exits.enter_context(staged.throttling())
        yield from staged.chunks()

    def _clock(self) -> str:
        """The server's time now that the backup is made; no target before it can be recovered to.

        Asked on the slot's own connection: an answer proves that the slot was there to the end.
        """
        assert self._connection is not None  # noqa: S101 - a context, entered by the caller
        with self._server.naming_errors():
            (now,) = one_row(self._connection, "SELECT clock_timestamp()")
        return rfc3339(now)
