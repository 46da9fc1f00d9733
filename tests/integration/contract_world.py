"""What the tests of the contract share: a restored cluster to break, and what failed in the checks of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from dataclasses import replace
from itertools import count
from pathlib import Path

from psycopg import sql
from psycopg.conninfo import make_conninfo

from dev.servers.postgres import BIN_DIR
from pv_backup.services.evidence.document import Check, Result
from pv_backup.services.postgres import Server
from pv_backup.services.settings import Settings
from tests.support.clusters import SourceCluster, query_all

DEFAULTS = Settings.model_fields["contract_directory"].default
EVERY_KIND = Path(__file__).with_name("every_kind.sql")
KINDS = 'Every "Kind"'


class Restored:
    """A cluster as a drill would have it, with a database of every kind of thing, and copies of it to break."""

    def __init__(self, cluster: SourceCluster) -> None:
        self.cluster = cluster
        self._numbers = count(1)
        self._made: list[str] = []
        self.run("CREATE DATABASE {}", KINDS)
        command = [BIN_DIR / "psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", f"--file={EVERY_KIND}"]
        subprocess.run([*command, self.dsn(KINDS)], check=True, capture_output=True)

    def dsn(self, database: str) -> str:
        return make_conninfo(self.cluster.dsn, dbname=database, client_encoding="UTF8")

    def server(self, database: str | None) -> Server:
        return replace(self.cluster.server, params={**self.cluster.server.params, "dbname": database or "postgres"})

    def run(self, statement: str, *names: str) -> None:
        text = sql.SQL(statement).format(*map(sql.Identifier, names))
        query_all(self.cluster.dsn, text)

    def copy(self, *statements: str) -> Server:
        """Another database of every kind of thing, with something done to it."""
        name = f"Copy {next(self._numbers)}"
        self.run("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, KINDS)
        self._made.append(name)
        for statement in statements:
            query_all(self.dsn(name), statement)
        return self.server(name)

    def empty(self, name: str, *, encoding: str) -> Server:
        self.run(f"CREATE DATABASE {{}} TEMPLATE template0 ENCODING {encoding} LOCALE 'C'", name)
        self._made.append(name)
        return self.server(name)

    def drop_copies(self) -> None:
        while self._made:
            self.run("DROP DATABASE {} WITH (FORCE)", self._made.pop())


def failed(checks: Iterable[Check]) -> dict[str, str]:
    """The details of those that failed, by name without database."""
    return {check.name.partition(" (")[0]: check.detail for check in checks if check.result is not Result.PASSED}
