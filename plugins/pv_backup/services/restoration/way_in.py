"""As whom, and by which database, a restored cluster lets us in: not each has a role `postgres` or an open `template1`.

Containers name their own superuser; whoever follows a guide to harden a cluster closes `template1`. Neither may keep
anybody from a backup, and neither may be waited for: what does not pass by itself is told from what does.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import psycopg

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.restoration.tools import as_user

# Each without line breaks: one ends the query in this mode.
_QUERIES: Final = (
    b"SELECT rolname FROM pg_authid WHERE rolsuper AND rolcanlogin ORDER BY oid LIMIT 1\n"
    # Below zero: its DROP DATABASE was interrupted.
    b"SELECT datname FROM pg_database WHERE datallowconn AND datconnlimit >= -1 ORDER BY oid LIMIT 1\n"
)
_SUPERUSER: Final = re.compile(r'rolname = "(.*)"\t\(typeid')
_DATABASE: Final = re.compile(r'datname = "(.*)"\t\(typeid')
# This mode enters a closed one too; what is asked is the same in all of them.
_MADE_BY_INITDB: Final = ("template1", "template0", "postgres")
_PATIENCE_S: Final = 120

# Two blanks behind the severity, in every language: the server said it, not libpq.
_SERVER_SAID: Final = re.compile(r"failed: \S+ ?:  (.*)")
_NOT_YET: Final = re.compile("the database system is |sorry, too many clients")
_LOCKED_OUT: Final = re.compile(
    r'role ".*" (?:does not exist|is not permitted to log in)'
    r'|database ".*" (?:does not exist|is not currently accepting connections)'
    # A role that is no superuser may not say which libraries it does without.
    r'|permission denied to set parameter "'
)


@dataclass(frozen=True)
class WayIn:
    """Who may do everything in a cluster, and a database where that one may connect."""

    superuser: str
    database: str


def is_locked_out(error: psycopg.OperationalError) -> bool:
    """Whether it takes another role or another database to get in."""
    said = _SERVER_SAID.search(str(error))
    return said is not None and _LOCKED_OUT.match(said[1]) is not None


def may_pass(error: psycopg.OperationalError) -> bool:
    """Whether a connection failed as it does while a server starts, recovers or ends: then waiting is right.

    What a server that is up says for itself, to a connection or to a query, is its answer.
    """
    if error.sqlstate is not None:
        return False
    said = _SERVER_SAID.search(str(error))
    return said is None or _NOT_YET.match(said[1]) is not None


def find_way_in(command: Sequence[str], *, environment: Mapping[str, str], user: str | None) -> WayIn:
    """Ask a cluster whose server is stopped, in single-user mode, which needs no role and no open database.

    Source: https://www.postgresql.org/docs/15/app-postgres.html, section Single-User Mode.

    :param command: `postgres --single` with its options, without a database.
    :raises RestoreFailed: if there is none, or PostgreSQL does not say, or not in time.
    """
    said = ""
    for name in _MADE_BY_INITDB:
        try:
            answer = subprocess.run(
                [*command, name],
                env=dict(environment),
                input=_QUERIES,
                capture_output=True,
                timeout=_PATIENCE_S,
                check=False,
                **as_user(user),
            )
        except subprocess.TimeoutExpired:
            raise RestoreFailed(
                f"the restored cluster did not name its superuser in {_PATIENCE_S} s, in single-user mode",
                remedy="see what slows this machine: a disk that hangs? Then restore again",
            ) from None
        answered = answer.stdout.decode(errors="replace")
        superuser, database = _SUPERUSER.search(answered), _DATABASE.search(answered)
        if superuser and database:
            return WayIn(superuser[1], database[1])
        if superuser:
            raise RestoreFailed(
                "no database of the restored cluster may be connected to",
                remedy="open one on the source (ALTER DATABASE … ALLOW_CONNECTIONS true); `postgres --single` reaches "
                "what was restored",
            )
        said = said or answer.stderr.decode(errors="replace").strip()[-500:]
    raise RestoreFailed(
        f"the restored cluster has no superuser who may log in, as far as single-user mode tells: {said}",
        remedy="let one log in on the source (ALTER ROLE … LOGIN); `postgres --single` reaches what was restored",
    )
