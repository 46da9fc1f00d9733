"""Evidence signed by a real Vault with the service's own token: what it may, what it may not, and rotation."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import hvac
import pytest
from hvac.exceptions import Forbidden, VaultError
from requests import RequestException

from dev.airflow_env import ROOT
from dev.provisioning.keys import EVIDENCE_KEY
from pv_backup.hooks.vault_transit import SignerOnDemand
from pv_backup.services.drill_errors import EvidenceInvalid
from pv_backup.services.errors import FailClosedError
from pv_backup.services.evidence.public_keys import public_keys_of_vault, read_public_keys
from pv_backup.services.evidence.signing import EvidenceSigner
from pv_backup.services.evidence.verification import verified, verify_evidence
from tests.integration.vault_world import Connect, Engine, address_nobody_listens_at, auditor
from tests.support.evidence import failed, passed
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INV-09", "TC-NOM-04")


@pytest.fixture
def signer(stack: TestStack, connect: Connect) -> SignerOnDemand:
    """As a task gets it: the connection of the service."""
    return connect(stack.vault.address, token=stack.backup_token).evidence_signer(EVIDENCE_KEY)


@pytest.fixture
def own_key(engine: Engine) -> EvidenceSigner:
    """A key that may be rotated and retired without disturbing anybody."""
    engine.transit.create_key(EVIDENCE_KEY, key_type="ed25519", mount_point=engine.mount)
    return engine.signer()


def test_what_the_service_signs_is_verified_with_the_public_key(stack: TestStack, signer: SignerOnDemand):
    keys = public_keys_of_vault(auditor(stack.vault.client()), EVIDENCE_KEY, mount_point="transit")

    for evidence in (passed(), failed("naïve “quotes” \U0001f418 and a\nline")):
        text = signer.sign(evidence)
        assert verify_evidence(text, keys) == evidence
        assert text == signer.sign(evidence), "the same evidence is the same document"
        with pytest.raises(EvidenceInvalid, match="does not hold"):
            verify_evidence(text.replace("pv-backup-production", "pv-backup-somewhere"), keys)


def test_every_answer_of_vault_that_holds_public_keys_is_read(stack: TestStack, signer: SignerOnDemand):
    reader = auditor(stack.vault.client())
    transit = reader.secrets.transit
    text = signer.sign(passed())
    answers = [
        transit.read_key(EVIDENCE_KEY),
        transit.read_key(EVIDENCE_KEY)["data"],
        reader.read(f"transit/export/public-key/{EVIDENCE_KEY}"),
    ]
    for answer in answers:
        assert verify_evidence(text, read_public_keys(json.dumps(answer), source="key.json")) == passed()


def test_documents_of_old_versions_verify_after_a_rotation(engine: Engine, own_key: EvidenceSigner):
    before = own_key.sign(passed())
    reader = auditor(engine.root, mount=engine.mount)
    (first,) = public_keys_of_vault(reader, EVIDENCE_KEY, mount_point=engine.mount)
    engine.transit.rotate_key(EVIDENCE_KEY, mount_point=engine.mount)
    after = own_key.sign(passed())

    both = public_keys_of_vault(reader, EVIDENCE_KEY, mount_point=engine.mount)

    assert [verified(text, both).key.version for text in (before, after)] == [1, 2]
    assert verify_evidence(before, [first]) == passed()
    with pytest.raises(EvidenceInvalid, match=r"signed by pv-backup-evidence, version 2, and the keys at hand .*1"):
        verify_evidence(after, [first])
    for text, claimed in ((before, 2), (after, 1)):
        document = json.loads(text)
        actual = document["signature"]["key_version"]
        forged = text.replace(f'"key_version":{actual}', f'"key_version":{claimed}')
        with pytest.raises(EvidenceInvalid, match=f"version {claimed}, has not signed this"):
            verify_evidence(forged, both)


FORBIDDEN: dict[str, Callable[[hvac.Client], object]] = {
    "read": lambda client: client.secrets.transit.read_key(EVIDENCE_KEY),
    "rotate": lambda client: client.secrets.transit.rotate_key(EVIDENCE_KEY),
    "delete": lambda client: client.secrets.transit.delete_key(EVIDENCE_KEY),
    "make it deletable": lambda client: client.secrets.transit.update_key_configuration(
        EVIDENCE_KEY, deletion_allowed=True
    ),
    "make it exportable": lambda client: client.secrets.transit.update_key_configuration(EVIDENCE_KEY, exportable=True),
    "export": lambda client: client.secrets.transit.export_key(EVIDENCE_KEY, "signing-key"),
    "export the public key": lambda client: client.read(f"transit/export/public-key/{EVIDENCE_KEY}"),
    "back up": lambda client: client.secrets.transit.backup_key(EVIDENCE_KEY),
    "verify": lambda client: client.secrets.transit.verify_signed_data(
        EVIDENCE_KEY, hash_input="", signature="vault:v1:AAAA"
    ),
    "sign with the wrapping key": lambda client: client.secrets.transit.sign_data("pv-backup", hash_input=""),
    "make a key": lambda client: client.secrets.transit.create_key("of-its-own", key_type="ed25519"),
}


@pytest.mark.case("TC-INV-03")
@pytest.mark.parametrize("what", FORBIDDEN)
def test_the_service_may_sign_and_nothing_else(stack: TestStack, what: str):
    with pytest.raises(Forbidden):
        FORBIDDEN[what](stack.vault.client(stack.backup_token))


def test_nobody_gets_the_private_key_out_of_vault(stack: TestStack):
    """Not even who may do everything: the key was made not exportable, and that can't be said of it later unseen."""
    key = stack.vault.client().secrets.transit.read_key(EVIDENCE_KEY)["data"]
    assert (key["type"], key["exportable"], key["allow_plaintext_backup"], key["deletion_allowed"]) == (
        "ed25519",
        False,
        False,
        False,
    )


@pytest.mark.case("TC-ERR-02")
def test_a_sealed_vault_fails_closed_at_once(stack: TestStack, signer: SignerOnDemand):
    stack.vault.seal()
    started = time.monotonic()
    with pytest.raises(FailClosedError, match=r"ERR-47-02.*Vault is sealed.*sign/pv-backup-evidence.*unseal it"):
        signer.sign(passed())
    assert time.monotonic() - started < 30


@pytest.mark.case("TC-ERR-02")
def test_a_vault_that_is_away_forbids_or_has_no_such_key_is_named(
    stack: TestStack, engine: Engine, own_key: EvidenceSigner, connect: Connect
):
    def refusal(signer: SignerOnDemand | EvidenceSigner) -> str:
        with pytest.raises(FailClosedError) as failed_closed:
            signer.sign(passed())
        assert not isinstance(failed_closed.value.__context__, VaultError | RequestException)
        return str(failed_closed.value)

    assert "unreachable" in refusal(connect(address_nobody_listens_at()).evidence_signer(EVIDENCE_KEY))
    service = connect(stack.vault.address, token=stack.backup_token)
    assert "forbids transit/sign/another" in refusal(service.evidence_signer("another"))
    assert "sign/missing" in refusal(engine.signer("missing"))
    engine.transit.create_key("wrapping", key_type="aes256-gcm96", mount_point=engine.mount)
    assert "evidence_key names an ed25519 key" in refusal(engine.signer("wrapping"))
    engine.transit.create_key("other-kind", key_type="ecdsa-p256", mount_point=engine.mount)
    assert "no ed25519 signature" in refusal(engine.signer("other-kind"))


def run(*arguments: str | Path, stdin: bytes = b"", **environment: str) -> subprocess.CompletedProcess[bytes]:
    """The command with nothing around it: no settings, no bucket, no Vault but what is given."""
    bare = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "plugins")}
    return subprocess.run(
        [sys.executable, "-m", "pv_backup", "evidence", *map(str, arguments)],
        env=bare | environment,
        cwd="/",
        input=stdin,
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_an_auditor_verifies_offline_with_one_command(stack: TestStack, signer: SignerOnDemand, tmp_path: Path):
    document, pem, page = tmp_path / "drill.json", tmp_path / "key.pem", tmp_path / "drill.html"
    text = signer.sign(failed())
    document.write_text(text)
    exported = run("public-key", VAULT_ADDR=stack.vault.address, VAULT_TOKEN=auditor(stack.vault.client()).token)
    assert exported.returncode == 0, exported.stderr
    pem.write_bytes(exported.stdout)

    verify = run("verify", document, "--public-key", pem)
    assert (verify.returncode, verify.stderr) == (0, b"")
    told = verify.stdout.decode()
    fingerprint = read_public_keys(pem.read_text(), source="key.pem")[0].fingerprint
    version = json.loads(text)["signature"]["key_version"]
    for needed in ("the signature holds", f"pv-backup-evidence version {version}", fingerprint, "FAILED", "WAL-GAP"):
        assert needed in told
    assert run("verify", "-", "--public-key", pem, stdin=text.encode() + b"\n").returncode == 0

    assert run("report", document, "--output", page).returncode == 0
    assert "FAILED" in page.read_text()
    again = run("report", document, "--output", page)
    assert again.returncode == 1
    assert b"drill.html" in again.stderr

    document.write_text(text.replace("WAL-GAP", "WAL-GAQ"))
    tampered = run("verify", document, "--public-key", pem)
    assert (tampered.returncode, tampered.stdout) == (2, b"")
    assert b"damaged: EVIDENCE the signature does not hold" in tampered.stderr


def test_the_public_key_is_for_those_who_may_read_it(stack: TestStack, engine: Engine, own_key: EvidenceSigner):
    refused = run("public-key", VAULT_ADDR=stack.vault.address, VAULT_TOKEN=stack.backup_token)
    assert refused.returncode == 1
    assert b"forbids transit/keys/pv-backup-evidence" in refused.stderr
    assert b"VAULT_ADDR and VAULT_TOKEN not set" in run("public-key").stderr

    engine.transit.rotate_key(EVIDENCE_KEY, mount_point=engine.mount)
    vault = {"VAULT_ADDR": stack.vault.address, "VAULT_TOKEN": auditor(engine.root, mount=engine.mount).token}
    every = run("public-key", "--mount-point", engine.mount, **vault)
    assert every.stdout.count(b"BEGIN PUBLIC KEY") == 2
    second = run("public-key", "--mount-point", engine.mount, "--key-version", "2", **vault)
    assert second.stdout in every.stdout
    assert second.stdout.startswith(b"pv-backup-evidence version 2\n")
    none = run("public-key", "--mount-point", engine.mount, "--key-version", "3", **vault)
    assert none.returncode == 1
    assert b"has no version 3, it has 1, 2" in none.stderr


def test_a_signature_of_nothing_is_no_document(stack: TestStack):
    """The signer learns the newest version from one; it must be worth nothing to whoever records it."""
    answer = stack.vault.client(stack.backup_token).secrets.transit.sign_data(EVIDENCE_KEY, hash_input="")
    version, value = answer["data"]["signature"].removeprefix("vault:v").split(":")
    assert len(base64.b64decode(value)) == 64
    keys = public_keys_of_vault(auditor(stack.vault.client()), EVIDENCE_KEY, mount_point="transit")
    signature = f'{{"algorithm":"ed25519","key":"{EVIDENCE_KEY}","key_version":{version},"value":"{value}"}}'
    with pytest.raises(EvidenceInvalid):
        verify_evidence(f'{{"evidence":{{}},"signature":{signature}}}', keys)
    with pytest.raises(EvidenceInvalid):
        verify_evidence("", keys)
