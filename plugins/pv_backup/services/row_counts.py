"""Count the rows of each table in the dump's own snapshot, so that a restoration can be held against them.

A count is worth having and never worth a backup: whatever prevents it is recorded in its place.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import suppress
from typing import Any

import psycopg
from psycopg import sql

log = logging.getLogger(__name__)

_PATIENCE_AFTER_DUMP_S = 900.0
_LOCK_TIMEOUT = "5s"
_CANCEL_PATIENCE_S = 5.0

# Tables whose rows pg_dump writes: ordinary ones, partitions rather than their parents. An
# extension's own tables are not dumped, so they are not counted.
_TABLES = """
SELECT n.nspname, c.relname
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
            for schema, table in self._connection.execute(_TABLES).fetchall():
                if self._cancelled.is_set():
                    return
                self._count(schema, table)
        except psycopg.Error as error:
            reason = self._absent.setdefault("*", f"counting stopped: {' '.join(str(error).split())}")
            log.warning("row counts of this dump are incomplete: %s", reason)

    def _count(self, schema: str, table: str) -> None:
        name = f"{schema}.{table}"
        query = sql.SQL("SELECT count(*) FROM ONLY {}").format(sql.Identifier(schema, table))
        try:
            with self._connection.transaction():
                row = self._connection.execute(query).fetchone()
        except psycopg.errors.QueryCanceled:
            raise
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable) as error:
            self._absent[name] = str(error).strip().splitlines()[0]
        else:
            self._counts[name] = row[0] if row else 0
