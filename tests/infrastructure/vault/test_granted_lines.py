"""Each line of the service's policy is needed: without it a flow of the backup breaks, and says where."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date
from typing import Final

import pytest
from airflow.providers.hashicorp.secrets.vault import VaultBackend
from hvac import Client
from hvac.exceptions import VaultError

from dev.provisioning.keys import EVIDENCE_KEY, TRANSIT_KEY
from pv_backup.services.errors import FailClosedError
from pv_backup.services.evidence.signing import EvidenceSigner
from pv_backup.services.key_wrapping import TransitKeyWrapper
from tests.infrastructure.vault.vault_page import POLICIES, SERVICE, VaultOfThePage
from tests.integration.backup_world import BackupWorld, backup_world
from tests.support.evidence import passed

pytestmark = pytest.mark.case("TC-INF-02")

POLICY: Final = POLICIES[SERVICE]
STANZAS: Final = {found[1]: found[0] for found in re.finditer(r'^path "([^"]+)" \{[^}]*\}\n', POLICY, re.MULTILINE)}
ANOTHER_DAY: Final = date(2026, 3, 30)


@pytest.fixture
def world(stack, source_db, journal_db, bucket) -> Iterator[BackupWorld]:
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


def without(path: str) -> str:
    """The policy less one stanza."""
    return POLICY.replace(STANZAS[path], "")


def keys(holder: Client) -> TransitKeyWrapper:
    return TransitKeyWrapper(client=holder, key_name=TRANSIT_KEY)


@pytest.mark.case("TC-ERR-02")
def test_without_encrypt_nothing_is_dumped(vault: VaultOfThePage, world: BackupWorld):
    limited = world.with_bench(keys=keys(vault.holder_of(without("transit/encrypt/pv-backup"))))
    dump = world.watched(lambda: None)

    with pytest.raises(FailClosedError, match=r"ERR-47-02 Vault forbids transit/encrypt/pv-backup"):
        limited.export(limited.open(), dump)

    assert not dump.started
    assert world.bucket.keys() == []
    whole = world.with_bench(keys=keys(vault.holder_of(POLICY)))
    whole.back_up(day=ANOTHER_DAY)


@pytest.mark.case("TC-ERR-02", "TC-INV-04")
def test_without_decrypt_nothing_is_read_back(vault: VaultOfThePage, world: BackupWorld):
    limited = world.with_bench(keys=keys(vault.holder_of(without("transit/decrypt/pv-backup"))))
    attempt = limited.exported()

    with pytest.raises(FailClosedError, match=r"ERR-47-02 Vault forbids transit/decrypt/pv-backup"):
        limited.verify(attempt)

    assert limited.journal.row()["status"] != "SUCCESS"


@pytest.mark.case("TC-INV-09")
def test_without_sign_no_drill_has_evidence(vault: VaultOfThePage):
    def sign(holder: Client) -> str:
        return EvidenceSigner(client=holder, key_name=EVIDENCE_KEY).sign(passed())

    assert '"signature"' in sign(vault.holder_of(POLICY))
    with pytest.raises(FailClosedError, match="forbids transit/sign/pv-backup-evidence"):
        sign(vault.holder_of(without("transit/sign/pv-backup-evidence")))


SERVED: Final[dict[str, Callable[[VaultBackend], str | None]]] = {
    "kv/data/airflow/connections/pv_backup_*": lambda backend: backend.get_conn_value("pv_backup_source"),
    "kv/data/airflow/variables/pv_backup_*": lambda backend: backend.get_variable("pv_backup_settings"),
}


@pytest.mark.parametrize("path", SERVED)
def test_without_its_paths_airflows_backend_finds_nothing(vault: VaultOfThePage, path: str):
    def served(policy: str) -> str | None:
        backend = VaultBackend(
            url=vault.address,
            token=vault.holder_of(policy).token,
            mount_point="kv",
            connections_path="airflow/connections",
            variables_path="airflow/variables",
            namespace=vault.namespace,
        )
        return SERVED[path](backend)

    assert served(POLICY)
    with pytest.raises(VaultError):
        served(without(path))


def test_every_line_has_a_flow_above():
    flows = {"transit/encrypt/pv-backup", "transit/decrypt/pv-backup", "transit/sign/pv-backup-evidence"}
    assert set(STANZAS) == flows | set(SERVED)
    assert POLICY.count("\npath ") == len(STANZAS)
