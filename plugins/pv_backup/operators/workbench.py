"""Turn Airflow's connections and variables into the services' workbench, when a task runs and not before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk import Variable
from airflow.sdk.exceptions import AirflowNotFoundException

from pv_backup.services.errors import ConfigurationError

if TYPE_CHECKING:
    from pv_backup.hooks.journal import JournalHook
    from pv_backup.services.postgres import Server
    from pv_backup.services.settings import Settings
    from pv_backup.services.workbench import Workbench

SETTINGS_VARIABLE = "pv_backup_settings"


@dataclass(frozen=True)
class ConnectionIds:
    """The four Airflow connections of this system."""

    source: str = "pv_backup_source"
    journal: str = "pv_backup_journal"
    vault: str = "pv_backup_vault"
    store: str = "pv_backup_s3"


def load_settings() -> Settings:
    """Read the settings: the environment first, then the JSON variable `pv_backup_settings`, which Vault may keep.

    :raises ConfigurationError: naming every setting that is missing or out of bounds.
    """
    from pv_backup.services.settings import Settings

    raw = Variable.get(SETTINGS_VARIABLE, default=None)
    try:
        stored = json.loads(raw) if raw else {}
    except ValueError:
        stored = None
    if not isinstance(stored, dict):
        raise ConfigurationError(
            f"the Airflow variable {SETTINGS_VARIABLE} is no JSON object",
            remedy='write it as {"bucket": "…", "kms_key_id": "…", "transit_key": "…"}',
        )
    return Settings.load({name: str(value) for name, value in stored.items() if value is not None})


def journal_hook(ids: ConnectionIds) -> JournalHook:
    """The journal database, as its hook."""
    from pv_backup.hooks.journal import JournalHook

    return JournalHook(postgres_conn_id=ids.journal)


def source_server(ids: ConnectionIds, settings: Settings) -> Server:
    """The database to be backed up.

    :raises ConfigurationError: if the connection is missing or incomplete.
    """
    from pv_backup.hooks.source import SourceHook

    with _named_connection(ids.source):
        return SourceHook(postgres_conn_id=ids.source).server(settings)


def build_workbench(ids: ConnectionIds, settings: Settings) -> Workbench:
    """Make the clients that a step needs.

    :raises ConfigurationError: if a connection is missing.
    """
    from pv_backup.hooks.backup_store import BackupStoreHook
    from pv_backup.hooks.vault_transit import VaultTransitHook
    from pv_backup.services.workbench import Workbench

    with _named_connection(ids.store):
        store = BackupStoreHook(aws_conn_id=ids.store).object_store(settings)
    with _named_connection(ids.vault):
        keys = VaultTransitHook(vault_conn_id=ids.vault).key_wrapper(settings.transit_key)
    with _named_connection(ids.journal):
        sessions = journal_hook(ids).sessions()
    return Workbench.over(settings, store=store, keys=keys, sessions=sessions)


@contextmanager
def _named_connection(conn_id: str) -> Iterator[None]:
    """Say which connection is missing, and how to add it."""
    try:
        yield
    except AirflowNotFoundException as error:
        raise ConfigurationError(
            f"the Airflow connection {conn_id} is not defined, or the secrets backend that has it is away",
            remedy=f"look at Vault first; to add it: `airflow connections add {conn_id} …` (README, Settings)",
        ) from error
