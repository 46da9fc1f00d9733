"""The contract: what must hold of a restored database, as queries that return the rows which break it (SPEC F4.3).

A restoration can end well and leave a database that its application can't use. Each file `*.sql` of the contract's
directory is one check; those in its subdirectory `own/` are the user's. `docs/contract.md` tells how to write one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, takewhile
from pathlib import Path
from typing import Final

import psycopg
from psycopg import sql
from psycopg.abc import Buffer
from psycopg.adapt import AdaptersMap, Loader

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.evidence.document import Check, Result
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.asking import Unanswered, asking, nothing_to_add
from pv_backup.services.restoration.discretion import told

log = logging.getLogger(__name__)

OWN: Final = "own"
#: Of the rows that a failing check returns, so many get into the evidence, each value cut at so many characters.
SHOWN_ROWS: Final = 10
SHOWN_CHARACTERS: Final = 200

_SHOWN_OF_AN_ERROR: Final = 1500
_NEXT: Final = "Next:"

# What a check may take of the machine. Nobody else uses the server, so whatever holds a lock will not let go of it.
_LIMITS: Final = {
    "statement_timeout": "4h",
    "lock_timeout": "60s",
    "idle_in_transaction_session_timeout": "0",
    "work_mem": "64MB",
    "jit": "off",
    # All rows are wanted, not the first ones soon.
    "cursor_tuple_fraction": "1",
}
# An index must not hide what its table holds.
_LIMITS_OF_DEFAULTS: Final = {"enable_indexscan": "off", "enable_indexonlyscan": "off", "enable_bitmapscan": "off"}

# Below zero: its DROP DATABASE was interrupted.
_DATABASES: Final = "SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit >= -1 ORDER BY datname"


@dataclass(frozen=True)
class _Query:
    """One file of the contract."""

    path: Path
    is_own: bool

    @property
    def name(self) -> str:
        return f"contract/{OWN}/{self.path.stem}" if self.is_own else f"contract/{self.path.stem}"

    @property
    def limits(self) -> Mapping[str, str]:
        return _LIMITS if self.is_own else {**_LIMITS, **_LIMITS_OF_DEFAULTS}


class _AsWritten(Loader):
    """A value as PostgreSQL writes it: Python's dates know no infinity, and SQL_ASCII promises nothing of its bytes."""

    def load(self, data: Buffer) -> str:
        """The text, with a mark in place of what is none."""
        return bytes(data).decode(errors="replace")


class _AllAsWritten:
    """Tells a connection to load values of every type like that (psycopg's `AdaptContext`)."""

    connection = None

    def __init__(self) -> None:
        self.adapters = AdaptersMap(psycopg.adapters)
        oids = {oid for known in psycopg.postgres.types for oid in (known.oid, known.array_oid)}
        for oid in {0} | oids:  # 0 stands for those that psycopg does not know
            self.adapters.register_loader(oid, _AsWritten)


def run_contract(
    server: Server, directory: Path, *, only_defaults: bool = False, unanswered: Unanswered = nothing_to_add
) -> Iterator[Check]:
    """Run each check on one database, the defaults before the user's own, each kind by name, as they are asked for.

    A check that PostgreSQL refuses has failed, and the others are run all the same. What a failed one found is in its
    detail, a line each; the last line is what its file says after `Next:` in its leading comment.

    :param server: with the database's name and a superuser.
    :param directory: with the default checks, and the user's own in its subdirectory `own/`.
    :param only_defaults: leave the user's own out: they know the dumped database and no other.
    :param unanswered: is told of each check that PostgreSQL refuses.
    :raises ConfigurationError: at once, if there is no directory, or nothing in it: no check is no proof.
    """
    queries = [query for query in _queries(directory) if not (query.is_own and only_defaults)]
    return (_run(query, server, unanswered) for query in queries)


def run_contract_everywhere(
    server: Callable[[str | None], Server],
    directory: Path,
    database: str | None,
    *,
    unanswered: Unanswered = nothing_to_add,
) -> Iterator[Check]:
    """Run the whole contract on the dumped database, and the default checks on every other one of the cluster.

    :param server: how to reach a database of the cluster, by its name; None: any that lets us in.
    :param database: the dumped one; None: there is none, and the default checks are all.
    :param unanswered: as for :func:`run_contract`.
    :raises ConfigurationError: as :func:`run_contract`.
    :raises RestoreFailed: if the server does not tell its databases.
    """
    with asking(
        server(None),
        failing="the restored server does not tell its databases",
        remedy="see in the task's log how that server ended, then start the drill again",
        unanswered=unanswered,
    ) as connection:
        others = [name for (name,) in connection.execute(_DATABASES).fetchall() if name != database]
    whole = [run_contract(server(database), directory, unanswered=unanswered)] if database is not None else []
    defaults = [run_contract(server(name), directory, only_defaults=True, unanswered=unanswered) for name in others]
    return chain.from_iterable(whole + defaults)


def _queries(directory: Path) -> list[_Query]:
    defaults = [_Query(path, is_own=False) for path in sorted(directory.glob("*.sql"))]
    if not defaults:
        raise ConfigurationError(
            f"there is no check in {directory}: " + ("no *.sql file" if directory.is_dir() else "no such directory"),
            remedy="set PV_BACKUP_CONTRACT_DIRECTORY to include/sql/contract as it was delivered; "
            f"checks of your own go into its subdirectory {OWN}/",
        )
    return defaults + [_Query(path, is_own=True) for path in sorted((directory / OWN).glob("*.sql"))]


def _run(query: _Query, server: Server, unanswered: Unanswered) -> Check:
    name, began = f"{query.name} ({server.database})", time.monotonic()
    comment = text = ""
    try:
        lines = query.path.read_text(errors="replace").splitlines(keepends=True)
        comment = "".join(takewhile(lambda line: line.startswith("--"), lines))
        # The comment goes no further: a server of another encoding may lack its characters. Line numbers stay.
        text = "\n" * comment.count("\n") + "".join(lines).removeprefix(comment)
        findings = _findings(server, text, query.limits)
    except psycopg.Error as error:
        findings = [_shortened(told(error, asked=True) + _line_of(error, text), _SHOWN_OF_AN_ERROR)]
        findings += filter(None, [unanswered(f"{name}: {findings[0]}")])
    except OSError as error:
        findings = [str(error)]
    result = Result.FAILED if findings else Result.PASSED
    log.log(logging.ERROR if findings else logging.INFO, "%s: %s", name, "; ".join(findings) or "passed")
    detail = findings + (_next_step(comment) if findings else [])
    return Check(name=name, result=result, seconds=round(time.monotonic() - began, 3), detail="\n".join(detail))


def _findings(server: Server, query: str, limits: Mapping[str, str]) -> list[str]:
    """The first rows that the query returns, a line each; no line, if there are none."""
    params = {"application_name": "pv_backup", "connect_timeout": "10", "client_encoding": "UTF8", **server.params}
    with psycopg.connect(**params, context=_AllAsWritten()) as connection:  # type: ignore[arg-type]
        connection.read_only = True
        for name, value in limits.items():
            connection.execute(sql.SQL("SET LOCAL {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        # A cursor is of one query, which can end neither its own transaction nor the limits on it.
        with connection.cursor("contract") as cursor:
            cursor.execute(query.encode())
            columns = [column.name for column in cursor.description or ()]
            rows = cursor.fetchmany(SHOWN_ROWS + 1)
        connection.rollback()
    lines = [_line(columns, row) for row in rows[:SHOWN_ROWS]]
    return lines + (["and more rows"] if len(rows) > SHOWN_ROWS else [])


def _line_of(error: psycopg.Error, query: str) -> str:
    """In which line of its file PostgreSQL found an error, if it is one of the query itself."""
    position = error.diag.statement_position
    return f" in line {query.count(chr(10), 0, int(position) - 1) + 1} of its file" if position else ""


def _line(columns: list[str], row: tuple[object, ...]) -> str:
    values = ("NULL" if value is None else _shortened(" ".join(str(value).split()), SHOWN_CHARACTERS) for value in row)
    return (
        ", ".join(f"{column} {value}" for column, value in zip(columns, values, strict=True)) or "a row of no columns"
    )


def _shortened(text: str, characters: int) -> str:
    return text if len(text) <= characters else f"{text[:characters]}…"


def _next_step(comment: str) -> list[str]:
    """What the comment that a file begins with says after `Next:`, as one line."""
    words = " ".join(line.removeprefix("--").strip() for line in comment.splitlines())
    _, found, remedy = words.partition(_NEXT)
    return [f"{_NEXT} {remedy.strip()}"] if found else []
