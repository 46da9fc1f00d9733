"""The two policies of production, enforced by a real OpenBao: what each grants passes, all else is refused."""

from __future__ import annotations

import re
from typing import Any, Final

import hvac
import pytest
from hvac.exceptions import Forbidden

from tests.infrastructure.vault.vault_page import RECEIVER, SERVICE, SOURCE, VaultOfThePage
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-02", "TC-INV-03")

GRANTED: Final = {
    SERVICE: {
        "transit/encrypt/pv-backup": "update",
        "transit/decrypt/pv-backup": "update",
        "transit/sign/pv-backup-evidence": "update",
        "kv/data/airflow/connections/pv_backup_source": "read",
        "kv/data/airflow/connections/pv_backup_journal": "read",
        "kv/data/airflow/variables/pv_backup_settings": "read",
    },
    RECEIVER: {
        "kv/data/pv-backup/receivewal": "read",
        "kv/data/pv-backup/watchdog": "read",
        "kv/data/ci/aws-backup-watchdog": "read",
    },
}
# What is granted, and what somebody might misspell or try next.
NAMES: Final = [
    *(path.removeprefix("kv/data/") for granted in GRANTED.values() for path in granted if path.startswith("kv/")),
    *("pv-backup", "pv-backup-evidence", "pv-backup-sse", "pv-bakcup", "pv-backup2", "transit", "kv", "approle"),
    *("airflow/connections/another", "airflow/variables/another", "airflow/config/another", "ci/other", "ci"),
    *("ci/aws-backup", "ci/aws-backup/more", "pv-backup/other", "root", "default"),
]
# OpenBao takes no longer question than twice that.
QUESTION: Final = 500
REFUSED: Final = """
    read   transit/keys/pv-backup
    write  transit/keys/pv-backup
    delete transit/keys/pv-backup
    write  transit/keys/pv-backup/rotate
    write  transit/keys/pv-backup/config
    write  transit/keys/pv-backup/trim
    read   transit/export/encryption-key/pv-backup
    read   transit/backup/pv-backup
    list   transit/keys
    write  transit/keys/pv-bakcup
    write  transit/encrypt/pv-bakcup
    write  transit/encrypt/pv-backup-evidence
    write  transit/decrypt/pv-bakcup
    write  transit/sign/pv-backup
    write  transit/sign/pv-bakcup
    write  transit/rewrap/pv-backup
    write  transit/datakey/plaintext/pv-backup
    write  transit/hmac/pv-backup
    write  transit/verify/pv-backup-evidence
    read   transit/keys/pv-backup-evidence
    write  transit/keys/pv-backup-evidence/rotate
    read   kv/data/ci/aws-backup
    read   kv/data/ci/aws-backup-watchdog
    write  kv/data/ci/aws-backup
    delete kv/data/ci/aws-backup
    delete kv/metadata/ci/aws-backup
    read   kv/metadata/ci/aws-backup
    list   kv/metadata/airflow/connections
    write  kv/data/airflow/connections/pv_backup_source
    read   kv/data/airflow/connections/another
    read   kv/data/airflow/variables/another
    read   kv/config
    read   auth/token/lookup-self
    write  auth/token/renew-self
    write  auth/token/create
    read   auth/approle/role/pv-backup
    write  auth/approle/role/pv-backup/secret-id
    list   auth/approle/role
    read   sys/policies/acl/pv-backup
    write  sys/policies/acl/pv-backup
    read   sys/mounts
    read   sys/auth
    write  sys/capabilities-self
    read   identity/entity/id
    read   cubbyhole/anything
"""


@pytest.fixture(scope="module")
def service(vault: VaultOfThePage) -> hvac.Client:
    return vault.log_in(SERVICE)


@pytest.fixture(scope="module")
def receiver(vault: VaultOfThePage) -> hvac.Client:
    return vault.log_in(RECEIVER)


def test_the_service_wraps_unwraps_and_signs(service: hvac.Client):
    transit = service.secrets.transit
    wrapped = transit.encrypt_data("pv-backup", plaintext="AAAA")["data"]["ciphertext"]
    assert transit.decrypt_data("pv-backup", ciphertext=wrapped)["data"]["plaintext"] == "AAAA"
    assert transit.sign_data("pv-backup-evidence", hash_input="AAAA")["data"]["signature"].startswith("vault:v")


@pytest.mark.parametrize("role", [SERVICE, RECEIVER])
def test_each_role_reads_its_own_secrets(vault: VaultOfThePage, role: str):
    client = vault.log_in(role)
    of_kv = [path for path in GRANTED[role] if path.startswith("kv/")]
    read = {path: client.read(path)["data"]["data"] for path in of_kv}
    assert all(read.values())
    if role == SERVICE:
        assert read["kv/data/airflow/connections/pv_backup_source"] == SOURCE | {"schema": "registry"}
    else:
        assert read["kv/data/pv-backup/receivewal"]["conninfo"].startswith("host=source.example")


@pytest.mark.parametrize(("method", "path"), [line.split() for line in REFUSED.strip().splitlines()])
def test_the_service_is_refused_all_else(service: hvac.Client, method: str, path: str):
    with pytest.raises(Forbidden):
        ask(service, method, path)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("read" if capability == "read" else "write", path) for path, capability in GRANTED[SERVICE].items()),
        *((method, path) for method in ("write", "delete") for path in GRANTED[RECEIVER]),
        ("read", "kv/data/ci/aws-backup"),
        ("list", "kv/metadata/pv-backup"),
        ("read", "auth/token/lookup-self"),
    ],
)
def test_the_receivers_role_gets_no_key_and_writes_nothing(receiver: hvac.Client, method: str, path: str):
    with pytest.raises(Forbidden):
        ask(receiver, method, path)


@pytest.mark.parametrize("path", ["sys/storage/raft/snapshot", "sys/rekey/backup", "sys/host-info"])
def test_the_server_itself_is_out_of_reach(stack: TestStack, path: str):
    """By the token of the whole suite, outside any namespace: these are the root namespace's alone."""
    with pytest.raises(Forbidden):
        stack.vault.client(stack.backup_token).read(path)


@pytest.mark.parametrize("role", [SERVICE, RECEIVER])
def test_of_all_paths_that_this_vault_has_only_the_granted_are_open(vault: VaultOfThePage, role: str):
    """Vault's own list of its paths, with every name above in every place; Vault says what the token may there."""
    every = sorted(
        {
            re.sub(r"\{\w+\}", name, path).lstrip("/")
            for path in vault.root.read("sys/internal/specs/openapi")["paths"]
            for name in NAMES
        }
    )
    assert len(every) > 1000
    assert set(GRANTED[role]) <= set(every)
    token = vault.log_in(role).token
    may: dict[str, list[str]] = {}
    for first in range(0, len(every), QUESTION):
        asked = {"token": token, "paths": every[first : first + QUESTION]}
        may |= vault.root.write_data("sys/capabilities", data=asked)["data"]
    open_to_it = {path: may[path] for path in every if may[path] != ["deny"]}

    assert open_to_it == {path: [capability] for path, capability in GRANTED[role].items()}


def test_nothing_that_was_refused_has_made_a_key(vault: VaultOfThePage, service: hvac.Client):
    for name in ("pv-bakcup", "pv-backup-sse"):
        with pytest.raises(Forbidden):
            service.secrets.transit.encrypt_data(name, plaintext="AAAA")
    there = vault.root.secrets.transit.list_keys()["data"]["keys"]
    assert sorted(there) == ["pv-backup", "pv-backup-evidence"]


@pytest.mark.parametrize(("role", "ttl_s"), [(SERVICE, 3600), (RECEIVER, 300)])
def test_a_login_has_that_policy_and_not_the_default_one(vault: VaultOfThePage, role: str, ttl_s: int):
    token = vault.root.auth.token.lookup(vault.log_in(role).token)["data"]

    assert token["policies"] == [role]
    assert (token["creation_ttl"], token["explicit_max_ttl"], token["num_uses"]) == (ttl_s, 0, 0)
    assert token["bound_cidrs"] == ["127.0.0.1"]


def ask(client: hvac.Client, method: str, path: str) -> Any:
    return client.write_data(path, data={"anything": "x"}) if method == "write" else getattr(client, method)(path)
