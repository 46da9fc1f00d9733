"""The environment in which Airflow finds the stack: the same variables for ``.dev/env`` and for the tests."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from urllib.parse import urlsplit

from dev.credentials import Credentials
from dev.servers.seaweedfs import REGION, AccessKey

ROOT = Path(__file__).parents[1]
UI_USER = "admin"
API_PORT_NAMES = ("airflow-api", "airflow-worker-log", "airflow-triggerer-log")


def airflow_settings(
    *, home: Path, metadata_dsn: str, credentials: Credentials, ports: dict[str, int]
) -> dict[str, str]:
    """Airflow's own settings.

    :param home: AIRFLOW_HOME: configuration, logs.
    :param metadata_dsn: SQLAlchemy URL of Airflow's metadata database.
    :param ports: one port for each of :data:`API_PORT_NAMES`.
    """
    api = f"http://127.0.0.1:{ports['airflow-api']}"
    return {
        "AIRFLOW_HOME": str(home),
        # For Python outside Airflow; Airflow puts its plugins folder on sys.path by itself.
        "PYTHONPATH": str(ROOT / "plugins"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        # The default of 32 starts 40 processes and takes several GB.
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__FERNET_KEY": _fernet_key(credentials.get("airflow_fernet")),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{api}/execution/",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{UI_USER}:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords_file(credentials)),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": metadata_dsn,
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(ports["airflow-api"]),
        "AIRFLOW__API__BASE_URL": api,
        "AIRFLOW__API__SECRET_KEY": credentials.get("airflow_api_secret"),
        "AIRFLOW__API_AUTH__JWT_SECRET": credentials.get("airflow_jwt_secret", nbytes=64),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports["airflow-worker-log"]),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports["airflow-triggerer-log"]),
    }


def backup_settings(
    *,
    source_dsn: str,
    journal_dsn: str,
    vault_address: str,
    vault_token: str,
    s3_endpoint: str,
    s3_key: AccessKey,
    bucket: str,
    kms_key_id: str,
    transit_key: str,
    wal_directory: Path | None,
) -> dict[str, str]:
    """The four connections, the three settings without a default (SPEC section 5), and where pg_receivewal writes.

    :param source_dsn: libpq URI of the role that dumps.
    :param journal_dsn: libpq URI of the journal's service role.
    :param wal_directory: None: no WAL is received.
    """
    vault = urlsplit(vault_address)
    connections = {
        "PV_BACKUP_SOURCE": postgres_connection(source_dsn),
        "PV_BACKUP_JOURNAL": postgres_connection(journal_dsn),
        "PV_BACKUP_VAULT": {
            "conn_type": "vault",
            "host": vault.hostname,
            "port": vault.port,
            "password": vault_token,
            "extra": {"auth_type": "token", "use_tls": False},
        },
        "PV_BACKUP_S3": {
            "conn_type": "aws",
            "login": s3_key.access_key,
            "password": s3_key.secret_key,
            "extra": {"endpoint_url": s3_endpoint, "region_name": REGION},
        },
    }
    return {f"AIRFLOW_CONN_{name}": json.dumps(connection) for name, connection in connections.items()} | {
        "PV_BACKUP_BUCKET": bucket,
        "PV_BACKUP_KMS_KEY_ID": kms_key_id,
        "PV_BACKUP_TRANSIT_KEY": transit_key,
        **({"PV_BACKUP_WAL_DIRECTORY": str(wal_directory)} if wal_directory else {}),
    }


def standalone_settings(*, vault_address: str, vault_token: str, s3_endpoint: str, s3_key: AccessKey) -> dict[str, str]:
    """The same bucket and key for ``python -m pv_backup``, which knows no Airflow connections."""
    return {
        "AWS_ACCESS_KEY_ID": s3_key.access_key,
        "AWS_SECRET_ACCESS_KEY": s3_key.secret_key,
        "AWS_ENDPOINT_URL_S3": s3_endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "VAULT_ADDR": vault_address,
        "VAULT_TOKEN": vault_token,
    }


def passwords_file(credentials: Credentials) -> Path:
    """Where Airflow's simple auth manager reads the password of :data:`UI_USER`; written on first use."""
    path = credentials.directory / "airflow_passwords.json"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(json.dumps({UI_USER: credentials.get("airflow_ui_password", nbytes=12)}) + "\n")
    return path


def sqlalchemy_url(dsn: str) -> str:
    """A libpq URI as Airflow's metadata database wants it; psycopg2 is the driver that Airflow's own images use."""
    return dsn.replace("postgresql://", "postgresql+psycopg2://", 1)


def postgres_connection(dsn: str) -> dict[str, object]:
    """A libpq URI as the fields of an Airflow connection."""
    parts = urlsplit(dsn)
    return {
        "conn_type": "postgres",
        "host": parts.hostname,
        "port": parts.port,
        "login": parts.username,
        "password": parts.password,
        "schema": parts.path.lstrip("/"),
    }


def _fernet_key(secret: str) -> str:
    """Fernet wants 32 bytes in URL-safe base64; ours come from a secret of the usual kind."""
    return base64.urlsafe_b64encode(hashlib.sha3_256(secret.encode()).digest()).decode()
