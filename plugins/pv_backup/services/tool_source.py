"""What all exports share: one of PostgreSQL's tools under way against a server, and the facts of that server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import psycopg

from pv_backup.services.postgres import ExportProcess, Server, one_row


def server_facts(server: Server, connection: psycopg.Connection, tool: str) -> dict[str, Any]:
    """What every manifest says of the server and of the tool that read it."""
    version, system_identifier = one_row(
        connection,
        "SELECT current_setting('server_version'), (SELECT system_identifier::text FROM pg_control_system())",
    )
    return {
        "server_version": version,
        "system_identifier": system_identifier,
        "tool_versions": {tool: server.tool_version(tool)},
    }


class ToolSource:
    """Base of the sources: a tool, its process, and the facts of its server.

    :param server: what to export, as a role that may.
    """

    def __init__(self, *, server: Server) -> None:
        self._server = server
        self._process: ExportProcess | None = None
        self._facts: dict[str, Any] = {}

    def _run(self, command: list[str]) -> Iterator[bytes]:
        with ExportProcess(command=command, environment=self._server.environment()) as self._process:
            yield from self._process.chunks()

    def _end(self) -> None:
        if self._process is not None:
            self._process.end()

    def cancel(self) -> None:
        """Ask the tool to end; its chunks then end with an error."""
        if self._process is not None:
            self._process.terminate()
