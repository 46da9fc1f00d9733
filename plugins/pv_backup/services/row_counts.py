"""Count the rows of each table: in the dump's own snapshot, and again after a restoration, by one rule.

At dump time a count is worth having and never worth a backup: whatever prevents it is recorded in its place. So the
source's own `statement_timeout` holds there: it is to keep long queries from slowing others down, and this is one.
After a restoration nothing may prevent a count, and no setting of the database does (`session_options`).
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from pv_backup.services.postgres import Server
from pv_backup.services.restoration.asking import asking
from pv_backup.services.restoration.discretion import told

log = logging.getLogger(__name__)

#: How the reason begins for a table that was dropped between snapshot and count: pg_dump did not see it, either.
DROPPED = "dropped meanwhile"

_PATIENCE_AFTER_DUMP_S = 900.0
_LOCK_TIMEOUT = "5s"
_CANCEL_PATIENCE_S = 5.0

# Tables whose rows pg_dump writes: ordinary ones, partitions rather than their parents. An
# extension's own tables are not dumped, so they are not counted.
_TABLES = """
SELECT n.nspname, c.relname, c.relpersistence = 'u'
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind = 'r' AND c.relpersistence <> 't'
   AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\\_%'
   AND NOT EXISTS (SELECT FROM pg_depend d
                    WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
 ORDER BY 1, 2
"""


class RowCounter:
    """Counts in a thread of its own, on the connection whose snapshot pg_dump uses.

    :param connection: in a read-only REPEATABLE READ transaction, used by nobody else meanwhile.
    """

    def __init__(self, *, connection: psycopg.Connection) -> None:
        self._connection = connection
        self._counts: dict[str, int] = {}
        self._absent: dict[str, str] = {}
        self._cancelled = threading.Event()
        self._thread = threading.Thread(target=self._run, name="row-counts", daemon=True)

    def start(self) -> None:
        """Begin counting beside the dump."""
        self._thread.start()

    def cancel(self) -> None:
        """Stop counting, within seconds; raises nothing, since no count is worth a dump."""
        self._cancelled.set()
        deadline = time.monotonic() + _CANCEL_PATIENCE_S
        while self._thread.is_alive() and time.monotonic() < deadline:
            # Again and again: a cancel that arrives between two statements is lost.
            with suppress(psycopg.Error):
                self._connection.cancel_safe(timeout=1)
            self._thread.join(0.2)
        if self._thread.is_alive():
            self._connection.close()

    def result(self) -> dict[str, Any]:
        """Wait for the counts, 15 minutes at most after the dump's end, and give them with what is absent."""
        self._thread.join(_PATIENCE_AFTER_DUMP_S)
        if self._thread.is_alive():
            self._absent["*"] = f"counting took over {_PATIENCE_AFTER_DUMP_S:.0f} s longer than the dump"
            self.cancel()
        facts: dict[str, Any] = {"row_counts": dict(self._counts)}
        return facts | ({"row_counts_absent": dict(self._absent)} if self._absent else {})

    def _run(self) -> None:
        try:
            self._connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
            # The two cores of a small machine are the dump's; one backend counts.
            self._connection.execute("SET LOCAL max_parallel_workers_per_gather = 0")
            for schema, table, _ in self._connection.execute(_TABLES).fetchall():
                if self._cancelled.is_set():
                    return
                self._count(schema, table)
        except psycopg.Error as error:
            reason = self._absent.setdefault("*", f"counting stopped: {told(error)}")
            log.warning("row counts of this dump are incomplete: %s", reason)

    def _count(self, schema: str, table: str) -> None:
        name = f"{schema}.{table}"
        try:
            with self._connection.transaction():
                count = _count(self._connection, schema, table)
        except psycopg.errors.QueryCanceled:
            raise
        except psycopg.errors.LockNotAvailable as error:
            self._absent[name] = str(error).strip().splitlines()[0]
        except psycopg.errors.UndefinedTable as error:
            self._absent[name] = f"{DROPPED}: {str(error).strip().splitlines()[0]}"
        else:
            self._counts[name] = count


@dataclass(frozen=True)
class Counted:
    """Rows by `schema.table`, as a manifest has them.

    :ivar unlogged: the tables whose rows no WAL brings back, so that recovery empties them.
    """

    rows: dict[str, int]
    unlogged: frozenset[str]

    @property
    def logged(self) -> dict[str, int]:
        """What both a dump and a recovery bring back."""
        return {table: rows for table, rows in self.rows.items() if table not in self.unlogged}


def count_rows(server: Server) -> Counted:
    """Count the rows of each table that pg_dump would write, after a restoration.

    :param server: with the database's name.
    :raises RestoreFailed: if one can't be counted.
    """
    with asking(
        server,
        failing=f"the rows of the restored database {server.database} can't be counted",
        remedy="if it is a damaged page, run pg_amcheck on the source; if a lock, a prepared transaction holds it",
    ) as connection:
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        connection.read_only = True
        # An index must not say how many rows its table has.
        for setting in (b"enable_indexscan", b"enable_indexonlyscan", b"enable_bitmapscan"):
            connection.execute(b"SET LOCAL " + setting + b" = off")
        connection.execute(sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(_LOCK_TIMEOUT)))
        tables = connection.execute(_TABLES).fetchall()
        return Counted(
            {f"{schema}.{table}": _count(connection, schema, table) for schema, table, _ in tables},
            frozenset(f"{schema}.{table}" for schema, table, is_unlogged in tables if is_unlogged),
        )


def _count(connection: psycopg.Connection, schema: str, table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))).fetchone()
    return row[0] if row else 0
