"""Turn Airflow's connections into the services' workbench, when a task runs and not before."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.kept_in_vault import named_connection

if TYPE_CHECKING:
    from sqlalchemy.orm import Session, sessionmaker

    from pv_backup.hooks.journal import JournalHook
    from pv_backup.services.key_wrapping import KeyWrapper
    from pv_backup.services.object_store import ObjectStore
    from pv_backup.services.postgres import Server
    from pv_backup.services.settings import Settings
    from pv_backup.services.workbench import Workbench


def journal_hook(ids: ConnectionIds) -> JournalHook:
    """The journal database, for what must not wait for Vault: alerts, and what is done beside a failure."""
    from pv_backup.hooks.journal import JournalHook

    return JournalHook(postgres_conn_id=ids.journal)


def journal_sessions(ids: ConnectionIds) -> sessionmaker[Session]:
    """The journal database, for a step that is about it.

    :raises ConfigurationError: if the connection is missing or incomplete.
    :raises FailClosedError: ERR-47-02, if it is missing, and Vault is sealed or away.
    """
    with named_connection(ids.journal, vault=ids.vault):
        return journal_hook(ids).sessions()


def source_server(ids: ConnectionIds, settings: Settings) -> Server:
    """The database to be backed up.

    :raises ConfigurationError: if the connection is missing or incomplete.
    :raises FailClosedError: ERR-47-02, if it is missing, and Vault is sealed or away.
    """
    from pv_backup.hooks.source import SourceHook

    with named_connection(ids.source, vault=ids.vault):
        return SourceHook(postgres_conn_id=ids.source).server(settings)


def object_store(ids: ConnectionIds, settings: Settings) -> ObjectStore:
    """The bucket alone, for a task that must work while Vault is away.

    :raises ConfigurationError: if the connection is missing.
    """
    from pv_backup.hooks.backup_store import BackupStoreHook

    with named_connection(ids.store):
        return BackupStoreHook(aws_conn_id=ids.store).object_store(settings)


def key_wrapper(ids: ConnectionIds, settings: Settings) -> KeyWrapper:
    """The key alone, for a task that has no use for the journal.

    :raises ConfigurationError: if the connection is missing.
    """
    from pv_backup.hooks.vault_transit import VaultTransitHook

    with named_connection(ids.vault):
        return VaultTransitHook(vault_conn_id=ids.vault).key_wrapper(settings.transit_key)


def build_workbench(ids: ConnectionIds, settings: Settings) -> Workbench:
    """Make the clients that a step needs.

    :raises ConfigurationError: if a connection is missing.
    :raises FailClosedError: ERR-47-02, if the journal's is missing, and Vault is sealed or away.
    """
    from pv_backup.services.workbench import Workbench

    store, keys = object_store(ids, settings), key_wrapper(ids, settings)
    return Workbench.over(settings, store=store, keys=keys, sessions=journal_sessions(ids))
