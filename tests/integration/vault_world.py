"""What the tests of key wrapping need of Vault: an engine of their own, and the hook as Airflow makes it."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import uuid4

import hvac
import pytest

from pv_backup.hooks.vault_transit import VaultTransitHook
from pv_backup.services.key_wrapping import TransitKeyWrapper

KEY = "pv-backup"

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

    def wrapper(self, key: str = KEY, *, token: str | None = None) -> TransitKeyWrapper:
        client = hvac.Client(url=self.root.url, token=token or self.root.token)
        return TransitKeyWrapper(client=client, key_name=key, mount_point=self.mount)


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
