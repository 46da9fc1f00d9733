"""Ask a restored server, so that its failures read as its own and not as the source's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg

from pv_backup.services.errors import RestoreFailed
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.discretion import told

#: Is told what failed, and raises if the server did, or its disk, rather than what the query read; else it gives what
#: the server has to add.
Unanswered = Callable[[str], str]


def nothing_to_add(failed: str) -> str:
    """For who asks a server that is well."""
    return ""


@contextmanager
def asking(
    server: Server, *, failing: str, remedy: str, unanswered: Unanswered = nothing_to_add
) -> Iterator[psycopg.Connection]:
    """A connection to one of its databases, for the queries of one purpose.

    :param failing: what could not be done, should it fail; PostgreSQL's words follow, without rows.
    :raises RestoreFailed: if the server does not let us in, or fails a query.
    """
    params = {"connect_timeout": "10", "application_name": "pv_backup", **server.params}
    try:
        with psycopg.connect(**params) as connection:  # type: ignore[arg-type]
            yield connection
    except psycopg.Error as error:
        failed = f"{failing}: {told(error)}"
        words = [failed, unanswered(failed)]
        raise RestoreFailed("; ".join(filter(None, words)), remedy=remedy) from None
