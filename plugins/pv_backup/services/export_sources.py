"""What is exported: a stream of bytes from a PostgreSQL tool, and the facts that its manifest will state."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

import psycopg

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.postgres import Server, one_row
from pv_backup.services.row_counts import RowCounter
from pv_backup.services.timestamps import rfc3339
from pv_backup.services.tool_source import ToolSource, server_facts

log = logging.getLogger(__name__)

_LOCK_PATIENCE_MS = 600_000


class ExportSource(Protocol):
    """An export about to run; a context, whose end leaves no process and no connection behind."""

    artefact_type: ArtefactType

    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None: ...
    def expected_bytes(self) -> int:
        """An upper estimate of the artefact's size, for sizing parts."""
        ...

    def chunks(self) -> Iterator[bytes]:
        """The bytes, ending only if the export ended well."""
        ...

    def facts(self) -> dict[str, Any]:
        """What the manifest says of it, known once the chunks have ended."""
        ...

    def cancel(self) -> None:
        """End the export from another thread or a signal handler."""
        ...


class GlobalsSource(ToolSource):
    """The role definitions, without which pg_restore on an empty server fails on owners and grants (SPEC F1)."""

    artefact_type = ArtefactType.GLOBALS

    def __enter__(self) -> Self:
        with self._server.naming_errors(), self._server.connect() as connection:
            self._facts = server_facts(self._server, connection, "pg_dumpall")
            self._facts["exported_at"] = rfc3339(datetime.now(UTC))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()

    def expected_bytes(self) -> int:
        """Unknown, and always small."""
        return 0

    def chunks(self) -> Iterator[bytes]:
        """`pg_dumpall --roles-only`, without password hashes: they belong to the server, not to its backup."""
        command = [self._server.tool("pg_dumpall"), "--roles-only", "--no-role-passwords", "--no-password"]
        return self._run(command)

    def facts(self) -> dict[str, Any]:
        """Server and tool versions."""
        return self._facts


class DumpSource(ToolSource):
    """One database as pg_dump sees it, in a snapshot that we hold, so that row counts match the dump exactly.

    The counts run beside the dump on the same snapshot (https://www.postgresql.org/docs/15/functions-admin.html,
    snapshot synchronisation functions).
    """

    artefact_type = ArtefactType.PG_DUMP

    def __init__(self, *, server: Server) -> None:
        super().__init__(server=server)
        self._connection: psycopg.Connection | None = None
        self._counter: RowCounter | None = None
        self._snapshot = ""
        self._database_bytes = 0

    def __enter__(self) -> Self:
        self._connection = connection = self._server.connect()
        with self._server.naming_errors():
            connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            connection.read_only = True
            connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            self._snapshot, exported_at, self._database_bytes = one_row(
                connection, "SELECT pg_export_snapshot(), clock_timestamp(), pg_database_size(current_database())"
            )
            self._facts = server_facts(self._server, connection, "pg_dump")
            self._facts |= {"exported_at": rfc3339(exported_at), "database": self._server.database}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._end()
        if self._counter is not None:
            self._counter.cancel()
        if self._connection is not None:
            self._connection.close()

    def expected_bytes(self) -> int:
        """The database's size on disk: compressed, its dump is hardly ever larger."""
        return self._database_bytes

    def chunks(self) -> Iterator[bytes]:
        """`pg_dump -Fc -Z0` in our snapshot; zstd compresses better and faster than its gzip."""
        assert self._connection is not None  # noqa: S101 - a context, entered by the caller
        command = [
            self._server.tool("pg_dump"),
            "--format=custom",
            "--compress=0",
            f"--snapshot={self._snapshot}",
            f"--lock-wait-timeout={_LOCK_PATIENCE_MS}",
            "--no-password",
        ]
        self._counter = RowCounter(connection=self._connection)
        self._counter.start()
        return self._run(command)

    def facts(self) -> dict[str, Any]:
        """Server facts and the row counts, or the reasons why they are absent."""
        assert self._counter is not None  # noqa: S101 - only known once the chunks have ended
        return self._facts | self._counter.result()
