"""The connection `pv_backup_vault` by AppRole: logins that work, that run out in mid-task, and that Vault refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import pytest

from dev.provisioning.keys import EVIDENCE_KEY, TRANSIT_KEY
from pv_backup.hooks.vault_transit import VaultTransitHook
from pv_backup.services.errors import ConfigurationError, FailClosedError
from pv_backup.services.key_wrapping import new_dek
from tests.infrastructure.vault.vault_page import SERVICE, AppRoleHalves, VaultOfThePage
from tests.integration.vault_world import everything_about
from tests.support.evidence import passed

pytestmark = pytest.mark.case("TC-INF-02", "TC-ERR-02")

CONNECTION: Final = "AIRFLOW_CONN_PV_BACKUP_VAULT"
Hook = Callable[..., VaultTransitHook]


@pytest.fixture
def hook(vault: VaultOfThePage, monkeypatch: pytest.MonkeyPatch) -> Hook:
    """A task's hook, whose connection logs in by that AppRole or those halves."""

    def make(role: str = SERVICE, halves: AppRoleHalves | None = None, **extra: str) -> VaultTransitHook:
        monkeypatch.setenv(CONNECTION, vault.connection(halves or vault.draw(role), **extra))
        return VaultTransitHook()

    return make


def test_a_task_wraps_unwraps_and_signs(hook: Hook):
    of_task = hook()
    keys, dek = of_task.key_wrapper(TRANSIT_KEY), new_dek()

    assert keys.unwrap(keys.wrap(dek).wrapped_dek) == dek
    assert '"signature"' in of_task.evidence_signer(EVIDENCE_KEY).sign(passed())


def test_a_task_that_outlives_its_login_logs_in_again(vault: VaultOfThePage, hook: Hook):
    of_task = hook(vault.role(token_ttl="3s", token_max_ttl="3s"))
    keys, dek = of_task.key_wrapper(TRANSIT_KEY), new_dek()
    wrapped = keys.wrap(dek).wrapped_dek
    first = of_task.vault_client.client.token

    time.sleep(3.5)
    assert keys.unwrap(wrapped) == dek
    assert of_task.vault_client.client.token != first
    time.sleep(3.5)
    assert '"signature"' in of_task.evidence_signer(EVIDENCE_KEY).sign(passed())


def test_a_revoked_login_is_replaced_at_once(vault: VaultOfThePage, hook: Hook):
    of_task = hook()
    keys, dek = of_task.key_wrapper(TRANSIT_KEY), new_dek()
    wrapped = keys.wrap(dek).wrapped_dek

    vault.root.auth.token.revoke(of_task.vault_client.client.token)

    # As WAL shipping asks: many at once.
    with ThreadPoolExecutor(max_workers=8) as workers:
        assert list(workers.map(keys.unwrap, [wrapped] * 8)) == [dek] * 8


def test_a_login_that_may_be_used_once_is_replaced_where_one_request_is_enough(vault: VaultOfThePage, hook: Hook):
    """And is too little for a signature, which asks twice: hence no token_num_uses in docs/vault.md."""
    of_task = hook(vault.role(token_num_uses=1))
    keys, dek = of_task.key_wrapper(TRANSIT_KEY), new_dek()

    assert keys.unwrap(keys.wrap(dek).wrapped_dek) == dek
    with pytest.raises(FailClosedError, match=r"sign/pv-backup-evidence, although connection pv_backup_vault has just"):
        of_task.evidence_signer(EVIDENCE_KEY).sign(passed())


def test_a_token_that_ran_out_is_said_to_be_one(vault: VaultOfThePage, monkeypatch: pytest.MonkeyPatch):
    """A token can't log in again: the person who gave it must."""
    wrapped = vault.log_in(SERVICE).secrets.transit.encrypt_data(TRANSIT_KEY, plaintext="AAAA")["data"]["ciphertext"]
    token = vault.root.auth.token.create(policies=[SERVICE], no_default_policy=True, ttl="1s")["auth"]["client_token"]
    monkeypatch.setenv(CONNECTION, vault.connection(AppRoleHalves(role_id="", secret_id=token), auth_type="token"))
    keys = VaultTransitHook().key_wrapper(TRANSIT_KEY)

    time.sleep(1.5)
    with pytest.raises(
        FailClosedError, match=r"transit/decrypt/pv-backup: .* run out or was revoked.* get a new token"
    ):
        keys.unwrap(wrapped)


def refusal(hook: VaultTransitHook, *, secret: str) -> str:
    """How the connection's login ends, which is the same for keys and for evidence and shows no secret."""
    with pytest.raises(FailClosedError) as failed:
        hook.key_wrapper(TRANSIT_KEY).wrap(new_dek())
    with pytest.raises(FailClosedError) as likewise:
        hook.evidence_signer(EVIDENCE_KEY).sign(passed())
    told = str(failed.value)
    assert told == str(likewise.value)
    assert secret not in everything_about(failed.value)
    assert told.startswith("ERR-47-02 Vault ")
    assert "the login of connection pv_backup_vault" in told
    return told


NEW_ONE: Final = "its password the secret_id, which may have run out, been used up or destroyed: draw a new one"


def test_a_secret_id_that_is_wrong_is_named_and_not_shown(vault: VaultOfThePage, hook: Hook):
    right = vault.draw(SERVICE)
    wrong = AppRoleHalves(role_id=right.role_id, secret_id="canary-of-a-secret-id")
    told = refusal(hook(halves=wrong), secret="canary-of-a-secret-id")
    assert "invalid role or secret ID" in told
    assert NEW_ONE in told

    of_no_role = AppRoleHalves(role_id="of-nobody", secret_id=right.secret_id)
    assert NEW_ONE in refusal(hook(halves=of_no_role), secret=right.secret_id)


@pytest.mark.parametrize("fate", ["ran out", "was used up", "was destroyed"])
def test_a_secret_id_that_is_gone_is_named(vault: VaultOfThePage, hook: Hook, fate: str):
    role = vault.role(secret_id_ttl="1s" if fate == "ran out" else "0", secret_id_num_uses=int(fate == "was used up"))
    halves = vault.draw(role)
    if fate == "was used up":
        vault.client().auth.approle.login(role_id=halves.role_id, secret_id=halves.secret_id)
    elif fate == "was destroyed":
        vault.root.auth.approle.destroy_secret_id(role, halves.secret_id)
    else:
        time.sleep(1.5)

    assert NEW_ONE in refusal(hook(halves=halves), secret=halves.secret_id)


def test_a_secret_id_that_is_destroyed_in_mid_task_ends_it_when_its_login_ends(vault: VaultOfThePage, hook: Hook):
    role = vault.role()
    halves = vault.draw(role)
    of_task = hook(halves=halves)
    keys = of_task.key_wrapper(TRANSIT_KEY)
    wrapped = keys.wrap(new_dek()).wrapped_dek

    vault.root.auth.approle.destroy_secret_id(role, halves.secret_id)
    assert len(keys.unwrap(wrapped)) == 32
    vault.root.auth.token.revoke(of_task.vault_client.client.token)

    with pytest.raises(FailClosedError, match=NEW_ONE):
        keys.unwrap(wrapped)


def test_a_machine_outside_the_bound_network_is_named(vault: VaultOfThePage, hook: Hook):
    role = vault.role(secret_id_bound_cidrs="10.9.8.0/24")
    halves = vault.draw(role)
    told = refusal(hook(halves=halves), secret=halves.secret_id)
    assert 'source address "127.0.0.1" unauthorized by CIDR restrictions' in told

    halves = vault.draw(vault.role(token_bound_cidrs="10.9.8.0/24"))
    with pytest.raises(FailClosedError, match="or token_bound_cidrs excludes this machine"):
        hook(halves=halves).key_wrapper(TRANSIT_KEY).wrap(new_dek())


def test_a_role_without_the_policy_is_told_from_a_login_that_ran_out(vault: VaultOfThePage, hook: Hook):
    keys = hook(vault.role(policy="pv-backup-receiver")).key_wrapper(TRANSIT_KEY)
    with pytest.raises(
        FailClosedError, match=r"forbids transit/encrypt/pv-backup, although .* its role's policy"
    ) as failed:
        keys.wrap(new_dek())
    assert "run out" not in str(failed.value)


def test_a_wrong_mount_of_the_auth_method_is_named(vault: VaultOfThePage, hook: Hook):
    halves = vault.draw(SERVICE)
    told = refusal(hook(halves=halves, auth_mount_point="approles"), secret=halves.secret_id)
    assert "no auth method is enabled at auth/approles" in told


def test_a_connection_without_a_role_id_is_a_configuration_error(vault: VaultOfThePage, hook: Hook):
    with pytest.raises(ConfigurationError, match=r"pv_backup_vault does not describe a Vault: .* requires 'role_id'"):
        hook(halves=AppRoleHalves(role_id="", secret_id="any"))
