"""What an operator tuned and where the connections are, read when a task runs and not before."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow.sdk import Variable

from pv_backup.services.errors import ConfigurationError

if TYPE_CHECKING:
    from pv_backup.services.settings import Settings

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
