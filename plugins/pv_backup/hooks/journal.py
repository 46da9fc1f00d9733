"""The journal database, behind an Airflow Postgres connection of the service role."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from psycopg.conninfo import make_conninfo

from pv_backup.hooks.libpq import LibpqHook
from pv_backup.services.database import sessions_for

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker


class JournalHook(LibpqHook):
    """Gives sessions on the journal, which is never Airflow's own metadata database (SPEC section 4).

    :param postgres_conn_id: the connection of the role `pv_backup_service`.
    """

    default_conn_name = "pv_backup_journal"

    def __init__(self, postgres_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(postgres_conn_id=postgres_conn_id, **kwargs)

    def sessions(self) -> sessionmaker[Session]:
        """Sessions that connect at first use; one pool of connections for all that a task asks."""
        return _pool(make_conninfo(**self.params()))


@cache
def _pool(dsn: str) -> sessionmaker[Session]:
    return sessions_for(dsn)
