"""Read every page of a restored database (PostgreSQL 15, pg_amcheck): a restoration copies broken pages faithfully."""

from __future__ import annotations

import logging
import re
import subprocess
import time
from collections import deque
from typing import Final

from pv_backup.services.evidence.document import PG_AMCHECK, Check, Result
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.discretion import Discretion

log = logging.getLogger(__name__)

# Measured on 480 MB with three indexes, two jobs: 4.5 s without --heapallindexed, 10 s with it and --parent-check (the
# faster way through an index; the writers that it locks out are not here), 43 s with --rootdescend on top, which looks
# for damage that the other two see for the most part.
_OPTIONS: Final = ("--install-missing", "--heapallindexed", "--parent-check", "--jobs=2", "--progress", "--no-password")
_PROGRESS: Final = re.compile(r"\s*(\d+)/\d+ relations \(.*\),\s+(\d+)/\d+ pages")
_SHOWN_LINES: Final = 30
_SHOWN_CHARACTERS: Final = 300


def amcheck(server: Server, *, everywhere: bool = False) -> Check:
    """Check each table and B-tree index, and that each row is in each index of its table.

    It leaves the extension `amcheck` in the database, so it comes after whatever looks at the catalogue.

    :param server: with the database's name and a superuser.
    :param everywhere: every database of the server instead.
    :returns: the check, with pg_amcheck's own words, without rows, as its detail if it failed.
    :raises ConfigurationError: if pg_amcheck is not installed here.
    """
    name = PG_AMCHECK if everywhere else f"{PG_AMCHECK} ({server.database})"
    command = [server.tool("pg_amcheck"), *_OPTIONS, *(["--all"] if everywhere else [])]
    environment = server.environment() | {"PGOPTIONS": "-c client_min_messages=warning"}
    began = time.monotonic()
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
    log.log(logging.INFO if sound else logging.ERROR, "%s: %s", name, "; ".join(said))
    return Check(
        name=name,
        result=Result.PASSED if sound else Result.FAILED,
        seconds=round(time.monotonic() - began, 3),
        detail="\n".join(said),
    )
