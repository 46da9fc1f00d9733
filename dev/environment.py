"""The development stack in ``.dev``: up, down, clean, and the file of exports that tells others where it is."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

from dev import airflow_env
from dev.ports import remembered_ports
from dev.provisioning import buckets, databases, keys
from dev.provisioning.databases import AIRFLOW, OWNER, SERVICE, password_of
from dev.stack import DevelopmentStack

HOME = airflow_env.ROOT / ".dev"
ENV_FILE = HOME / "env"
BUCKET = "pv-backup-dev"


def development_stack() -> DevelopmentStack:
    """The stack of ``make up``: always at the same place."""
    return DevelopmentStack(home=HOME, bucket_pattern=BUCKET)


def up() -> dict[str, str]:
    """Start the servers, make and migrate the databases, and write ``.dev/env``; again, change nothing.

    :returns: the variables of ``.dev/env``.
    """
    began = time.monotonic()
    stack = development_stack()
    started = stack.start()
    buckets.ensure_bucket(stack.s3, BUCKET)
    databases.ensure_database(stack.source.postgres, databases.SOURCE_DB)
    databases.ensure_databases(stack.postgres)
    variables = environment_of(stack)
    with ThreadPoolExecutor(max_workers=2) as pool:
        # Started or not: a pull may have brought a migration.
        journal = pool.submit(databases.migrate_journal, variables["PV_BACKUP_JOURNAL_OWNER_DSN"])
        metadata = pool.submit(migrate_airflow, variables)
        journal.result()
        metadata.result()
    _write_env(variables)
    state = f"started {', '.join(started)} in {time.monotonic() - began:.0f} s" if started else "already running"
    print(f"The stack: {state}")
    print(f"  PostgreSQL 127.0.0.1:{stack.postgres.port}   OpenBao {stack.vault.address}   S3 {stack.s3.endpoint}")
    print(f"  source PostgreSQL 127.0.0.1:{stack.source.postgres.port}, its WAL in {stack.source.wal_directory}")
    print("  Use it in a shell: . .dev/env")
    return variables


def down() -> None:
    """Stop the servers; the data stays."""
    stopped = development_stack().stop() if HOME.exists() else []
    print(f"Stopped {', '.join(stopped)}; the data is kept in .dev" if stopped else "Nothing was running.")


def clean() -> None:
    """Stop the servers and delete everything that they stored, keys and passwords too."""
    if HOME.exists():
        stack = development_stack()
        stack.stop()
        stack.postgres.remove()
        stack.source.postgres.remove()
        shutil.rmtree(HOME)
    print("Removed .dev")


def environment_of(stack: DevelopmentStack) -> dict[str, str]:
    """Every variable of ``.dev/env``: Airflow's settings, the backup's, and the administrator's own access."""
    postgres, secrets = stack.postgres, stack.credentials

    def dsn_of(database: str, role: str) -> str:
        return postgres.dsn(database, user=role, password=password_of(secrets, role))

    airflow = airflow_env.airflow_settings(
        home=HOME / "airflow",
        metadata_dsn=airflow_env.sqlalchemy_url(dsn_of(databases.AIRFLOW_DB, AIRFLOW)),
        credentials=secrets,
        ports=remembered_ports(HOME / "ports.json", airflow_env.API_PORT_NAMES),
    )
    backup = airflow_env.backup_settings(
        source_dsn=stack.source.dsn_of_dump(databases.SOURCE_DB),
        journal_dsn=dsn_of(databases.JOURNAL_DB, SERVICE),
        vault_address=stack.vault.address,
        vault_token=stack.backup_token,
        s3_endpoint=stack.s3.endpoint,
        s3_key=stack.backup_user,
        bucket=BUCKET,
        kms_key_id=keys.SSE_KEY,
        transit_key=keys.TRANSIT_KEY,
        wal_directory=stack.source.wal_directory,
    )
    standalone = airflow_env.standalone_settings(
        vault_address=stack.vault.address,
        vault_token=stack.backup_token,
        s3_endpoint=stack.s3.endpoint,
        s3_key=stack.backup_user,
    )
    administration = {
        "PV_BACKUP_JOURNAL_OWNER_DSN": dsn_of(databases.JOURNAL_DB, OWNER),
        "DEV_SOURCE_DSN": stack.source.postgres.dsn(databases.SOURCE_DB),
        "DEV_JOURNAL_DSN": postgres.dsn(databases.JOURNAL_DB),
        "DEV_S3_ENDPOINT": stack.s3.endpoint,
        "DEV_S3_BUCKET": BUCKET,
        "DEV_S3_ADMIN_ACCESS_KEY": stack.s3.admin.access_key,
        "DEV_S3_ADMIN_SECRET_KEY": stack.s3.admin.secret_key,
        "DEV_VAULT_ADDR": stack.vault.address,
        "DEV_VAULT_TOKEN": stack.vault.root_token,
    }
    return airflow | backup | standalone | administration


def migrate_airflow(variables: dict[str, str]) -> None:
    """Bring Airflow's metadata database to the schema of the installed version; 7 s of work, so once a version.

    :raises subprocess.CalledProcessError: with Airflow's output.
    """
    stamp = Path(variables["AIRFLOW_HOME"], ".migrated-to")
    installed = version("apache-airflow")
    if stamp.exists() and stamp.read_text() == installed:
        return
    stamp.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [sys.executable, "-m", "airflow", "db", "migrate"],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    stamp.write_text(installed)


def _write_env(variables: dict[str, str]) -> None:
    draft = ENV_FILE.with_suffix(".new")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write("# Written by `make up`; source it in a shell: . .dev/env\n")
        file.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    draft.replace(ENV_FILE)
