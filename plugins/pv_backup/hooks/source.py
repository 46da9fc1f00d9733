"""The database to be backed up, behind an Airflow Postgres connection."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pv_backup.hooks.libpq import LibpqHook
from pv_backup.services.postgres import Server
from pv_backup.services.settings import Settings


class SourceHook(LibpqHook):
    """Gives the source server to PostgreSQL's tools.

    :param postgres_conn_id: the connection of a superuser of the source (SPEC F1.1).
    """

    default_conn_name = "pv_backup_source"

    def __init__(self, postgres_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(postgres_conn_id=postgres_conn_id, **kwargs)

    def server(self, settings: Settings) -> Server:
        """The server and where its tools are; nothing is connected yet."""
        return Server(self.params(), Path(settings.pg_bin_dir) if settings.pg_bin_dir else None)
