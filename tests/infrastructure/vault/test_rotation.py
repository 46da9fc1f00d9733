"""The rest of docs/vault.md: a secret id is rotated without a gap, a leaked one ended, a person gets a token."""

from __future__ import annotations

from pathlib import Path

import hvac
import pytest
from hvac.exceptions import Forbidden, InvalidRequest

from tests.infrastructure.vault.vault_page import PAGE, RECEIVER, SERVICE, AppRoleHalves, VaultOfThePage
from tests.support.pages import blocks

pytestmark = pytest.mark.case("TC-INF-02")


def logs_in(vault: VaultOfThePage, halves: AppRoleHalves) -> bool:
    try:
        vault.client().auth.approle.login(role_id=halves.role_id, secret_id=halves.secret_id)
    except InvalidRequest:
        return False
    return True


def wraps(client: hvac.Client) -> bool:
    try:
        return bool(client.secrets.transit.encrypt_data("pv-backup", plaintext="AAAA"))
    except Forbidden:
        return False


def test_a_secret_id_is_rotated_without_a_gap(vault: VaultOfThePage, tmp_path: Path):
    role = vault.role()
    old = [vault.draw(role), vault.draw(role)]
    vault.page("Rotate", 0, ROLE=role, HANDOVER=str(tmp_path))
    new = vault.draw(role)
    assert all(logs_in(vault, halves) for halves in [*old, new])

    vault.page("Rotate", 1, before=f"export ROLE={role} HANDOVER={tmp_path}")

    assert [logs_in(vault, halves) for halves in [*old, new]] == [False, False, True]


def test_a_leak_ends_every_login_at_once(vault: VaultOfThePage, tmp_path: Path):
    role = vault.role()
    leaked, other = vault.log_in(role), vault.log_in(RECEIVER)
    (revoke,) = [part for part in PAGE.read_text().split("`") if part.startswith("bao token revoke")]
    assert wraps(leaked)

    vault.page("Rotate", 0, ROLE=role, HANDOVER=str(tmp_path), then=revoke)

    assert not wraps(leaked)
    with pytest.raises(Forbidden):
        other.read("kv/data/pv-backup/receivewal")
    assert wraps(vault.log_in(role))


@pytest.mark.parametrize(("number", "seconds"), [(0, 3600), (1, 24 * 3600)])
def test_a_person_gets_a_token_that_opens_backups_and_no_more(
    vault: VaultOfThePage, tmp_path: Path, number: int, seconds: int
):
    wrapped = vault.log_in(SERVICE).secrets.transit.encrypt_data("pv-backup", plaintext="AAAA")["data"]["ciphertext"]
    halves = vault.draw(SERVICE)
    (tmp_path / "role_id").write_text(halves.role_id)
    # As an editor leaves it.
    (tmp_path / "secret_id").write_text(f"{halves.secret_id}\n")
    # The test's own: `bao` has it from its environment.
    (vault.folder / ".curlrc").write_text(f'header = "X-Vault-Namespace: {vault.namespace}"\n')

    said = vault.page(
        "A token for a person",
        number,
        HANDOVER=str(tmp_path),
        then="python3 -c 'import os; print(os.environ[\"VAULT_TOKEN\"])'",
    )

    token = said.strip()
    opened = vault.client(token).secrets.transit.decrypt_data("pv-backup", ciphertext=wrapped)
    assert opened["data"]["plaintext"] == "AAAA"
    about = vault.root.auth.token.lookup(token)["data"]
    assert (about["policies"], about["creation_ttl"], about["orphan"]) == ([SERVICE], seconds, True)


def test_every_block_of_the_page_was_run():
    """Those of the set-up by the fixture; a new one wants a test."""
    counts = {heading: len(found) for heading, found in blocks(PAGE).items()}
    assert counts == {"Set it up": 2, "Draw a secret id": 1, "Rotate": 2, "A token for a person": 2}
