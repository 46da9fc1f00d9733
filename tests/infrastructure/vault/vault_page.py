"""A Vault that was set up by the commands of docs/vault.md, in a namespace of the test stack's OpenBao."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

import hvac

from dev.airflow_env import ROOT
from dev.servers.openbao import BINARY
from tests.support.pages import blocks, filled_in, paste
from tests.support.servers import TestStack

PAGE: Final = ROOT / "docs" / "vault.md"
SERVICE, RECEIVER = "pv-backup", "pv-backup-receiver"
POLICIES: Final = {role: (ROOT / "include" / "vault" / f"{role}.hcl").read_text() for role in (SERVICE, RECEIVER)}
_SETTING: Final = re.compile(r"^    (AIRFLOW\w+)=('[^']*'|\S+)$", re.MULTILINE)
_KWARGS: Final = "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARGS"
SOURCE: Final = {"conn_type": "postgres", "host": "source.example", "login": "dumper", "password": "of-the-source"}


@dataclass(frozen=True, kw_only=True)
class AppRoleHalves:
    """What a login needs."""

    role_id: str
    secret_id: str


@dataclass(frozen=True, kw_only=True)
class VaultOfThePage:
    """What the page left behind; `root` is for set-up and for faults."""

    address: str
    namespace: str
    root: hvac.Client
    folder: Path

    def client(self, token: str | None = None) -> hvac.Client:
        return hvac.Client(url=self.address, namespace=self.namespace, token=token)

    def page(self, heading: str, number: int = 0, *, before: str = "", then: str = "", **values: str) -> str:
        """What a block of the page prints; `before` and `then` are typed in the same shell."""
        known = {"VAULT_ADDR": self.address, "VAULT_TOKEN": self.root.token}
        block = filled_in(blocks(PAGE)[heading][number], known | values)
        return paste(f"{before}\n{block}\n{then}", self.shell | known)

    @property
    def shell(self) -> dict[str, str]:
        """Of somebody at this Vault."""
        return {
            "PATH": f"{BINARY.parent}:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "VAULT_ADDR": self.address,
            "VAULT_NAMESPACE": self.namespace,
        }

    def draw(self, role: str) -> AppRoleHalves:
        """A new secret id, as the page draws it."""
        handover = self.folder / str(uuid4())
        handover.mkdir(mode=0o700)
        self.page("Draw a secret id", ROLE=role, HANDOVER=str(handover))
        halves = {name: (handover / name).read_text() for name in ("role_id", "secret_id")}
        return AppRoleHalves(**halves)

    def log_in(self, role: str) -> hvac.Client:
        halves = self.draw(role)
        client = self.client()
        client.auth.approle.login(role_id=halves.role_id, secret_id=halves.secret_id)
        return client

    def role(self, *, policy: str = SERVICE, **parameters: Any) -> str:
        """An AppRole of a test's own; parameters are Vault's."""
        name = f"of-a-test-{uuid4()}"
        told = {"token_policies": policy, "token_no_default_policy": True, "token_ttl": "1h", **parameters}
        self.root.write_data(f"auth/approle/role/{name}", data=told)
        return name

    def holder_of(self, policy: str) -> hvac.Client:
        """Somebody whose only policy is this text."""
        name = f"of-a-test-{uuid4()}"
        self.root.sys.create_or_update_policy(name, policy)
        made = self.root.auth.token.create(policies=[name], no_default_policy=True)
        return self.client(made["auth"]["client_token"])

    def connection(self, halves: AppRoleHalves, **extra: str) -> str:
        """`pv_backup_vault` as the page has it."""
        told = json.loads(airflow_settings()["AIRFLOW_CONN_PV_BACKUP_VAULT"])
        where = urlsplit(self.address)
        told |= {"host": where.hostname, "port": where.port, "login": halves.role_id, "password": halves.secret_id}
        own = {"use_tls": where.scheme == "https", "client_kwargs": {"namespace": self.namespace}}
        told["extra"] |= own | extra
        return json.dumps(told)

    def of_a_worker(self, halves: AppRoleHalves, **backend: str) -> dict[str, str]:
        """A worker's environment as the page has it; `backend` is said otherwise to the VaultBackend."""
        told = airflow_settings()
        backend_kwargs = json.loads(told[_KWARGS]) | {"url": self.address, "namespace": self.namespace, **backend}
        return told | {
            "AIRFLOW_CONN_PV_BACKUP_VAULT": self.connection(halves),
            _KWARGS: json.dumps(backend_kwargs),
            "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARG__ROLE_ID": halves.role_id,
            "AIRFLOW__WORKERS__SECRETS_BACKEND_KWARG__SECRET_ID": halves.secret_id,
        }

    @contextmanager
    def holding(self, secrets: dict[str, dict[str, Any]]) -> Iterator[None]:
        """Other secrets in kv for a while."""
        kv = self.root.secrets.kv.v2
        before = {path: self.root.read(f"kv/data/{path}")["data"]["data"] for path in secrets}
        try:
            for path, secret in secrets.items():
                kv.create_or_update_secret(path, secret=secret, mount_point="kv")
            yield
        finally:
            for path, secret in before.items():
                kv.create_or_update_secret(path, secret=secret, mount_point="kv")


def airflow_settings() -> dict[str, str]:
    """What the page puts into the environment of Airflow's workers."""
    return {found[1]: found[2].strip("'") for found in _SETTING.finditer(PAGE.read_text())}


def followed(stack: TestStack, folder: Path) -> VaultOfThePage:
    """Make a namespace, and follow the page in it."""
    namespace = f"page-{uuid4()}"
    stack.vault.client().write_data(f"sys/namespaces/{namespace}")
    root = hvac.Client(url=stack.vault.address, namespace=namespace, token=stack.vault.root_token)
    vault = VaultOfThePage(address=stack.vault.address, namespace=namespace, root=root, folder=folder)
    vault.page("Set it up", 0, WORKERS="127.0.0.1/32", RECEIVER="127.0.0.1/32")
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    for name, content in {
        "source.json": json.dumps(SOURCE | {"schema": "registry"}),
        "journal.json": json.dumps(SOURCE | {"host": "journal.example", "schema": "journal"}),
        "settings.json": json.dumps({"bucket": "from-vault"}),
        "conninfo": "host=source.example user=pv_backup_receivewal",
        "watchdog.json": json.dumps({"webhook_url": "https://hooks.example/of-the-watchdog"}),
    }.items():
        (secrets / name).write_text(content)
    vault.page("Set it up", 1, SECRETS=str(secrets))
    # As Terraform does.
    for path in ("ci/aws-backup", "ci/aws-backup-watchdog"):
        key = {"access_key_id": "AKIA", "secret_access_key": f"of {path}"}
        root.secrets.kv.v2.create_or_update_secret(path, secret=key, mount_point="kv")
    return vault
