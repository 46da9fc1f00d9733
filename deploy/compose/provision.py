"""Makes, on the servers of docker-compose.yaml, what a deployment finds there: keys, policies, roles, schema, bucket.

``python -m deploy.compose.provision vault`` goes before the S3 server, which encrypts with a key of Vault's; ``… data``
does the rest. Both run at every ``docker compose up`` and change nothing that is there. The work is done by the code
that makes the development stack, so that the tests have run it. Here is only what is different: servers that run
elsewhere, secrets from the environment, and, as in production, an AppRole and connections that Vault serves.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import hvac

from dev.airflow_env import postgres_connection
from dev.provisioning import buckets, databases, keys
from dev.servers.seaweedfs import REGION

APPROLE = POLICY = "pv-backup"
KV_MOUNT = "kv"
_ELECTION_S = 60


class Secrets:
    """The secrets of ``.env``, by the names that the development stack has for its own: ``SECRET_`` and capitals."""

    def get(self, name: str, *, nbytes: int = 0) -> str:
        """One secret.

        :raises SystemExit: naming the variable that is not set.
        """
        variable = f"SECRET_{name.upper()}"
        value = os.environ.get(variable)
        if not value:
            raise SystemExit(f"{variable} is not set. Run: deploy/compose/secrets.sh, and docker compose up again")
        return value


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A server that runs elsewhere, and its superuser's password."""

    host: str
    port: int
    password: str

    def dsn(self, database: str, *, user: str = "postgres", password: str | None = None) -> str:
        """A libpq URI; passwords are URL-safe by construction (secrets.sh)."""
        return f"postgresql://{user}:{password or self.password}@{self.host}:{self.port}/{database}"


@dataclass(frozen=True, kw_only=True)
class S3:
    """An S3 server that runs elsewhere, and its administrator's key."""

    endpoint: str
    access_key: str
    secret_key: str

    def client(self, *, service: str = "s3") -> Any:
        """A boto3 client of the administrator."""
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
        )


class Vault:
    """A Vault that unseals itself; initialised on first use, its root token kept in a file that only this program sees.

    :param directory: where that file lies, a volume of its own.
    """

    def __init__(self, *, address: str, directory: Path) -> None:
        self._address = address
        self._root_token_file = directory / "root-token"

    def client(self) -> hvac.Client:
        """A client that may do everything."""
        return hvac.Client(url=self._address, token=self._root_token_file.read_text())

    def make_ready(self) -> None:
        """Initialise it unless it is, and wait until it is active.

        :raises SystemExit: when it does not become active, or was initialised by somebody else.
        """
        client = hvac.Client(url=self._address)
        if not client.sys.is_initialized():
            made = client.sys.initialize(recovery_shares=1, recovery_threshold=1)
            draft = self._root_token_file.with_suffix(".new")
            draft.touch(mode=0o600)
            draft.write_text(made["root_token"])
            draft.rename(self._root_token_file)
        if not self._root_token_file.exists():
            raise SystemExit(
                f"{self._address} is initialised, and {self._root_token_file} is missing: the volumes vault and "
                "vault-admin are not of one age. Run: docker compose down --volumes, and begin anew"
            )
        deadline = time.monotonic() + _ELECTION_S
        while client.sys.read_health_status(method="HEAD").status_code != 200:
            if time.monotonic() > deadline:
                raise SystemExit(f"{self._address} is not active after {_ELECTION_S} s. See: docker compose logs vault")
            time.sleep(0.2)


def provision_vault(vault: Vault, secrets: Secrets) -> None:
    """Make the keys, the policies, the tokens of S3 server and break-glass tool, and Airflow's AppRole."""
    vault.make_ready()
    keys.ensure_keys_and_tokens(vault, secrets)
    client = vault.client()
    keys.ensure_kv(client, KV_MOUNT)
    if "approle/" not in client.sys.list_auth_methods()["data"]:
        client.sys.enable_auth_method("approle")
    approle = client.auth.approle
    # The figures of docs/vault.md; a task that outlives its token logs in again.
    approle.create_or_update_approle(
        APPROLE,
        token_policies=[POLICY],
        token_no_default_policy=True,
        token_ttl="1h",  # noqa: S106
        token_max_ttl="1h",  # noqa: S106
    )
    approle.update_role_id(APPROLE, secrets.get("vault_role_id"))
    secret_id = secrets.get("vault_secret_id")
    # An unknown one is answered without a body, which hvac hands over as it came.
    if not isinstance(approle.read_secret_id(APPROLE, secret_id), dict):
        approle.create_custom_secret_id(APPROLE, secret_id)


def provision_data(
    *, source: Postgres, database: Postgres, s3: S3, bucket: str, vault: Vault, secrets: Secrets
) -> None:
    """Make the bucket, the roles and databases, the journal's schema, and the connections that Vault serves Airflow."""
    buckets.ensure_bucket(s3, bucket)
    databases.ensure_source_roles(
        source,
        dump_password=secrets.get("source_pv_backup_dump"),
        receiver_password=secrets.get("source_pv_backup_receivewal"),
    )
    databases.ensure_database(source, databases.SOURCE_DB)
    databases.ensure_journal_roles(database, secrets)
    databases.ensure_databases(database)

    def dsn_of(role: str) -> str:
        return database.dsn(databases.JOURNAL_DB, user=role, password=databases.password_of(secrets, role))

    databases.migrate_journal(dsn_of(databases.OWNER))
    dump_dsn = source.dsn(databases.SOURCE_DB, user=databases.DUMP, password=secrets.get("source_pv_backup_dump"))
    for name, dsn in (("pv_backup_source", dump_dsn), ("pv_backup_journal", dsn_of(databases.SERVICE))):
        vault.client().secrets.kv.v2.create_or_update_secret(
            f"airflow/connections/{name}", secret=postgres_connection(dsn), mount_point=KV_MOUNT
        )


def main() -> None:
    """Run one of the two steps with what the environment says; the same variables as in docker-compose.yaml."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose.provision", description=__doc__)
    parser.add_argument("step", choices=("vault", "data"))
    step = parser.parse_args().step
    secrets = Secrets()
    vault = Vault(address=os.environ["VAULT_ADDR"], directory=Path(os.environ["VAULT_ADMIN_DIRECTORY"]))
    if step == "vault":
        provision_vault(vault, secrets)
    else:
        provision_data(
            source=_postgres("SOURCE_ADDRESS", secrets.get("source_superuser")),
            database=_postgres("DATABASE_ADDRESS", secrets.get("postgres_superuser")),
            s3=S3(
                endpoint=os.environ["S3_ENDPOINT"],
                access_key=secrets.get("s3_admin_access_key"),
                secret_key=secrets.get("s3_admin_secret_key"),
            ),
            bucket=os.environ["PV_BACKUP_BUCKET"],
            vault=vault,
            secrets=secrets,
        )


def _postgres(variable: str, password: str) -> Postgres:
    host, _, port = os.environ[variable].partition(":")
    return Postgres(host=host, port=int(port), password=password)


if __name__ == "__main__":
    main()
