"""What the tests of keys need of Vault: an engine of their own, tokens for it, and the hook as Airflow makes it."""

from __future__ import annotations

import json
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import hvac
import pytest

from dev.provisioning.keys import EVIDENCE_KEY, POLICY_FILES, TRANSIT_KEY
from pv_backup.hooks.vault_transit import VaultTransitHook
from pv_backup.services.evidence.signing import EvidenceSigner
from pv_backup.services.key_wrapping import TransitKeyWrapper

KEY = TRANSIT_KEY

Connect = Callable[..., VaultTransitHook]


class Engine:
    """A Transit engine of one test's own, so that rotation and retirement disturb nobody."""

    def __init__(self, root: hvac.Client) -> None:
        self.root = root
        self.mount = f"transit-{uuid4()}"
        root.sys.enable_secrets_engine("transit", path=self.mount)
        self.transit = root.secrets.transit
        self.transit.create_key(KEY, mount_point=self.mount)

    def rotate(self) -> None:
        self.transit.rotate_key(KEY, mount_point=self.mount)

    def retire_below(self, version: int) -> None:
        self.transit.update_key_configuration(KEY, min_decryption_version=version, mount_point=self.mount)

    def wrapper(self, key: str = KEY) -> TransitKeyWrapper:
        client = hvac.Client(url=self.root.url, token=self.token(key=key))
        return TransitKeyWrapper(client=client, key_name=key, mount_point=self.mount)

    def signer(self, evidence_key: str = EVIDENCE_KEY) -> EvidenceSigner:
        client = hvac.Client(url=self.root.url, token=self.token(evidence_key=evidence_key))
        return EvidenceSigner(client=client, key_name=evidence_key, mount_point=self.mount)

    def token(self, **names: str) -> str:
        """With the service's rights here."""
        return service_token(self.root, **{"mount": self.mount, **names})


def service_token(
    root: hvac.Client, *, mount: str = "transit", key: str = KEY, evidence_key: str = EVIDENCE_KEY
) -> str:
    """A token with the rights of the service, were its engine and keys called so."""
    policy = POLICY_FILES[KEY].read_text()
    policy = policy.replace('"transit/', f'"{mount}/')
    policy = policy.replace(f'crypt/{KEY}"', f'crypt/{key}"').replace(f'sign/{EVIDENCE_KEY}"', f'sign/{evidence_key}"')
    return token_of(root, policy)


def auditor(root: hvac.Client, *, mount: str = "transit") -> hvac.Client:
    """Somebody who may read the public key of evidence, as docs/evidence.md has it."""
    paths = [f"{mount}/keys/{EVIDENCE_KEY}", f"{mount}/export/public-key/{EVIDENCE_KEY}"]
    policy = "".join(f'path "{path}" {{ capabilities = ["read"] }}\n' for path in paths)
    return hvac.Client(url=root.url, token=token_of(root, policy))


def token_of(root: hvac.Client, policy: str) -> str:
    """A token that may do what this policy grants, and nothing else."""
    name = f"of-a-test-{uuid4()}"
    root.sys.create_or_update_policy(name, policy)
    made = root.auth.token.create(policies=[name], no_default_policy=True)
    return str(made["auth"]["client_token"])


@contextmanager
def own_engine(root: hvac.Client) -> Iterator[Engine]:
    """Mount an engine and take it away again, with every key in it."""
    engine = Engine(root)
    try:
        yield engine
    finally:
        root.sys.disable_secrets_engine(engine.mount)


def hook_maker(monkeypatch: pytest.MonkeyPatch) -> Connect:
    """Make hooks from an Airflow connection in the environment, pointed at an address."""

    def connect(address: str, *, token: str = "hvs.canary-token", **extra: str) -> VaultTransitHook:
        host, port = address.removeprefix("http://").split(":")
        connection = {"conn_type": "vault", "host": host, "port": int(port), "password": token, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_VAULT", json.dumps(connection))
        return VaultTransitHook()

    return connect


def address_nobody_listens_at() -> str:
    """A loopback address whose port was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"127.0.0.1:{listener.getsockname()[1]}"


def everything_about(error: BaseException) -> str:
    """What a log, an error tracker that walks the chain, or repr could show of an error."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    shown = [f"{link!r} {vars(link)} {vars(getattr(link, 'request', None) or object)}" for link in chain]
    return "\n".join([*shown, *traceback.format_exception(error)])
