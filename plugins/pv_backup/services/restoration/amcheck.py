"""Read every page of a restored database (PostgreSQL 15, pg_amcheck): a restoration copies broken pages faithfully."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections import deque
from contextlib import suppress
from typing import Final

import psycopg
from psycopg import sql

from pv_backup.services.evidence.document import PG_AMCHECK, Check, Result
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.asking import Unanswered, nothing_to_add
from pv_backup.services.restoration.discretion import Discretion
from pv_backup.services.restoration.session import session_options

log = logging.getLogger(__name__)

# Measured on 480 MB with three indexes, two jobs: 4.5 s without --heapallindexed, 10 s with it and --parent-check (the
# faster way through an index; the writers that it locks out are not here), 43 s with --rootdescend on top, which looks
# for damage that the other two see for the most part.
_OPTIONS: Final = ("--install-missing", "--heapallindexed", "--parent-check", "--jobs=2", "--progress", "--no-password")
_PROGRESS: Final = re.compile(r"\s*(\d+)/\d+ relations \(.*\),\s+(\d+)/\d+ pages")
# What it read of a table, unlike an error, which may be the server's end.
_READ: Final = re.compile(r'heap table ".*", block \d')
# An event trigger of the database may forbid what --install-missing does; none fires in a session of that role.
_SESSION: Final = session_options(client_min_messages="warning", session_replication_role="replica")
_SHOWN_LINES: Final = 30
_SHOWN_CHARACTERS: Final = 300


def amcheck(server: Server, *, everywhere: bool = False, unanswered: Unanswered = nothing_to_add) -> Check:
    """Check each table and B-tree index, and that each row is in each index of its table.

    It leaves the extension `amcheck` in the database, and no prepared transaction, whose locks nobody would let go of;
    so it comes after whatever looks at the catalogue.

    :param server: with the database's name and a superuser.
    :param everywhere: every database of the server instead.
    :param unanswered: is told of a failure in which no broken page was named.
    :returns: the check, with pg_amcheck's own words, without rows, as its detail if it failed.
    :raises ConfigurationError: if pg_amcheck is not installed here.
    """
    name = PG_AMCHECK if everywhere else f"{PG_AMCHECK} ({server.database})"
    which = ["--all", f"--maintenance-db={server.database}"] if everywhere else []
    command = [server.tool("pg_amcheck"), *_OPTIONS, *which]
    environment = server.environment() | {"PGOPTIONS": _SESSION}
    began = time.monotonic()
    _end_prepared_transactions(server)
    heard: deque[str] = deque()
    discretion = Discretion(heard)
    left_out, relations, pages = 0, "0", "0"
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # noqa: S101 - Popen was told PIPE
        # A table that is broken throughout has a line for each row.
        for line in process.stdout:
            if progress := _PROGRESS.match(line):
                relations, pages = progress.groups()
            elif len(heard) < _SHOWN_LINES:
                discretion.hear(line.rstrip())
            else:
                left_out += 1
    said = [line[:_SHOWN_CHARACTERS] for line in heard]
    sound = process.returncode == 0
    if sound:
        said.append(f"{relations} tables and indexes, {pages} pages")
    elif not said:
        said.append(f"pg_amcheck ended with status {process.returncode} and said nothing")
    if left_out:
        said.append(f"and {left_out} more lines")
    if not sound and not any(map(_READ.match, heard)):
        said += filter(None, [unanswered(f"{name}: {'; '.join(said)}")])
    log.log(logging.INFO if sound else logging.ERROR, "%s: %s", name, "; ".join(said))
    return Check(
        name=name,
        result=Result.PASSED if sound else Result.FAILED,
        seconds=round(time.monotonic() - began, 3),
        detail="\n".join(said),
    )


def _end_prepared_transactions(server: Server) -> None:
    """Roll back what nobody will commit here; whatever prevents it, pg_amcheck meets and tells."""
    with suppress(psycopg.Error):
        with psycopg.connect(**server.params) as connection:  # type: ignore[arg-type]
            prepared = connection.execute("SELECT gid, database FROM pg_prepared_xacts").fetchall()
        for name, database in prepared:
            params = {**server.params, "dbname": database}
            with psycopg.connect(**params, autocommit=True) as connection:
                connection.execute(sql.SQL("ROLLBACK PREPARED {}").format(sql.Literal(name)))
                log.info("the prepared transaction %s of %s was rolled back here", name, database)
