"""A Vault whose certificate is of an authority of its own: who runs by docs/deploy.md trusts it, nobody else does."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from airflow.sdk import Connection
from airflow.sdk.exceptions import AirflowNotFoundException

from dev.bench.tls import Certificate
from dev.provisioning.keys import TRANSIT_KEY
from pv_backup.hooks.vault_transit import VaultTransitHook
from pv_backup.services.errors import FailClosedError
from pv_backup.services.key_wrapping import new_dek
from tests.infrastructure.ansible.tls_front import tls_front
from tests.infrastructure.deploy_page import AUTHORITIES, settings
from tests.infrastructure.vault.conftest import Worker
from tests.infrastructure.vault.vault_page import SERVICE, SOURCE, AppRoleHalves, VaultOfThePage

pytestmark = pytest.mark.case("TC-INF-02", "TC-INF-04")


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return Certificate.drawn(tmp_path)


@pytest.fixture
def vault(vault: VaultOfThePage, certificate: Certificate) -> Iterator[VaultOfThePage]:
    """The page's Vault, as its callers in production reach it."""
    with tls_front(certificate, vault.address) as address:
        yield dataclasses.replace(vault, address=address)


@pytest.fixture
def halves(vault: VaultOfThePage) -> AppRoleHalves:
    """Drawn by an administrator, who gets there without the front."""
    return AppRoleHalves(
        role_id=vault.root.auth.approle.read_role_id(SERVICE)["data"]["role_id"],
        secret_id=vault.root.auth.approle.generate_secret_id(SERVICE)["data"]["secret_id"],
    )


@pytest.fixture(params=["in the file of authorities", "unknown"])
def authority(request: pytest.FixtureRequest, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> str:
    """Set what the page sets of authorities, and nothing that this machine's own network wants."""
    for name in [name for name in os.environ if "CERT" in name or "CA_BUNDLE" in name or "CAINFO" in name]:
        monkeypatch.delenv(name)
    if request.param != "unknown":
        for name, value in settings().items():
            if value == AUTHORITIES:
                monkeypatch.setenv(name, str(certificate.certificate))
    return str(request.param)


def test_a_worker_reaches_it_for_keys_and_connections(worker: Worker, halves: AppRoleHalves, authority: str):
    worker(halves=halves)
    keys, dek = VaultTransitHook().key_wrapper(TRANSIT_KEY), new_dek()

    if authority == "unknown":
        with pytest.raises(FailClosedError, match="ERR-47-02"):
            keys.wrap(dek)
        with pytest.raises(AirflowNotFoundException):
            Connection.get("pv_backup_source")
    else:
        assert keys.unwrap(keys.wrap(dek).wrapped_dek) == dek
        assert Connection.get("pv_backup_source").login == SOURCE["login"]
