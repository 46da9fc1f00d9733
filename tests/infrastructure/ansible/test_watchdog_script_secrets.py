"""Where the cron watchdog has its secrets from when Vault is well and when it is not, and that nobody sees them."""

from __future__ import annotations

import shlex
import shutil
import stat
from pathlib import Path

import pytest

from dev.bench.tls import Certificate
from tests.infrastructure.ansible.tls_front import tls_front
from tests.infrastructure.ansible.watchdog_world import PATHS, WatchdogWorld, watchdog_world
from tests.integration.vault_world import address_nobody_listens_at
from tests.support.webhook import SECRET_PATH

pytestmark = pytest.mark.case("TC-INF-02", "TC-INF-03")

PRESENT, ABSENT, UNKNOWN, BLIND = 0, 1, 3, 6
_TOOLS = [
    "aws",
    "cat",
    "chmod",
    "curl",
    "cut",
    "date",
    "echo",
    "env",
    "grep",
    "head",
    "jq",
    "mkdir",
    "mktemp",
    "mv",
    "printf",
    "rm",
    "sed",
    "stat",
    "tail",
    "timeout",
    "tr",
]


@pytest.fixture
def host(stack, bucket, tmp_path):
    with watchdog_world(stack, bucket, tmp_path) as host:
        yield host


@pytest.mark.case("TC-ERR-02")
def test_with_a_sealed_vault_it_looks_with_what_vault_said_last_and_says_so(host):
    host.put_backup()
    assert host.run().status == PRESENT
    host.stack.vault.seal()
    cause = host.finds(
        PRESENT, "ERR-47-02", "the backup of 2026-03-29 is there, but Vault", "is sealed, so what it said at 20"
    )
    assert cause.count("is sealed") == 1
    assert host.people.webhook.received[-1]["level"] == "warning"
    assert host.run().status == PRESENT
    assert host.people.codes == ["ERR-47-02"]
    host.bucket.empty()
    host.finds(ABSENT, "WATCHDOG-ABSENT", "neither", "; besides, Vault at", "is sealed")


@pytest.mark.case("TC-ERR-02")
@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (lambda host: host.stack.vault.seal(), "is sealed"),
        (
            lambda host: host.settings.update(VAULT_ADDR=f"http://{address_nobody_listens_at()}"),
            "does not answer (curl",
        ),
        (lambda host: (host.home / "secret_id").write_text("another"), "auth/{mount}/login (HTTP status 400, "),
        (lambda host: host.vault.forbid(), "{mount}/data/ci/aws-backup-watchdog (HTTP status 403, "),
        (lambda host: host.vault.forget("ci/aws-backup-watchdog"), "aws-backup-watchdog (HTTP status 404"),
        (
            lambda host: host.vault.keep("ci/aws-backup-watchdog", access_key_id="AK"),
            "no secret_access_key, at {mount}/ci/",
        ),
        (lambda host: (host.home / "role_id").unlink(), "{home}/role_id is empty or cannot be read"),
        (lambda host: (host.home / "secret_id").write_text(""), "{home}/secret_id is empty or cannot be read"),
    ],
    ids=["sealed", "away", "secret id", "policy", "no key", "half a key", "no role id", "empty secret id"],
)
def test_when_vault_never_gave_anything_the_mail_goes_by_the_server_that_wants_no_login(host, trouble, words):
    host.put_backup()
    trouble(host)
    run = host.run()
    assert run.status == BLIND, run.err
    assert words.format(mount=host.settings["VAULT_KV_MOUNT"], home=host.home) in run.err
    (mail,) = host.people.mail.messages
    assert " CRITICAL ERR-47-02 " in mail["Subject"]
    assert host.people.webhook.received == []
    assert host.run().status == BLIND
    assert len(host.people.mail.messages) == 1


def test_vaults_own_ca_is_trusted_where_the_settings_name_it(host, tmp_path):
    certificate = Certificate.drawn(tmp_path)
    with tls_front(certificate, host.settings["VAULT_ADDR"]) as address:
        host.settings["VAULT_ADDR"] = address
        distrusting = host.run("--no-alert")
        host.settings["VAULT_CACERT"] = str(certificate.certificate)
        trusting = host.run("--no-alert")
    assert distrusting.status == BLIND
    assert "does not answer (curl: (60) SSL certificate problem" in distrusting.err
    assert trusting.status == ABSENT, trusting.err


def test_what_vault_says_is_kept_for_root_alone_and_nothing_else_is_left(host):
    host.finds(ABSENT, "WATCHDOG-ABSENT")
    kept = {path.name: stat.S_IMODE(path.stat().st_mode) for path in host.state.iterdir()}
    assert kept == {"secrets.json": 0o600, "told.mail": 0o600, "told.webhook": 0o600}
    assert stat.S_IMODE(host.state.stat().st_mode) == 0o700


def test_what_vault_says_is_never_kept_on_a_disk(host, tmp_path):
    if _file_system(tmp_path) == "tmpfs":
        pytest.skip("the directory of temporary files is on tmpfs here, so there is no disk to keep off")
    host.settings["STATE_DIRECTORY"] = str(tmp_path / "state")
    run = host.run()
    assert run.status == ABSENT, run.err
    assert "STATE_DIRECTORY is not on tmpfs" in run.err
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["told.mail", "told.webhook"]


def test_a_state_directory_of_somebody_else_is_refused(host, open_path):
    elsewhere = open_path / "elsewhere"
    elsewhere.symlink_to(host.state)
    host.settings["STATE_DIRECTORY"] = str(elsewhere)
    run = host.run()
    assert run.status == 4, run.err
    assert "STATE_DIRECTORY cannot be a directory of our own" in run.err
    assert list(host.state.iterdir()) == []


@pytest.mark.parametrize("using", ["curl", "aws"])
def test_no_process_has_a_secret_among_its_arguments(host, using):
    host.keep_alerts(smtp_user="watchdog", smtp_password="canary-of-the-mail")
    record = _recording_tools(host)
    assert host.run(using=using, path=f"{host.home / 'tools'}:").status == ABSENT
    arguments = record.read_text()
    asked_by = {"curl": "--aws-sigv4", "aws": "get-object"}[using]
    for seen in (asked_by, "--upload-file", "--data-binary", "role_id: input"):
        assert seen in arguments
    for secret in _secrets(host):
        assert secret not in arguments
    assert "X-Vault-Token" not in arguments


def test_no_secret_is_in_anything_that_it_says(host):
    host.keep_alerts(smtp_user="watchdog", smtp_password="canary-of-the-mail")
    host.people.webhook.status = 500
    said = [host.run().err]
    host.keep_alerts()
    host.people.webhook.status = 200
    host.vault.keep(
        "ci/aws-backup-watchdog", access_key_id=host.key.access_key, secret_access_key=f"{host.key.secret_key}+"
    )
    host.finds(UNKNOWN, "ERR-47-03")
    host.vault.forbid()
    host.finds(UNKNOWN, "ERR-47-03", "refuses", at="2026-03-30T04:15+02:00")
    said += [str(host.people.webhook.received), *(message.as_string() for message in host.people.mail.messages)]
    for secret in _secrets(host):
        assert secret not in "".join(said)


def _secrets(host: WatchdogWorld) -> list[str]:
    return [host.key.secret_key, host.secret_id, SECRET_PATH, "canary-of-the-mail"]


def _recording_tools(host: WatchdogWorld) -> Path:
    """Put before each real tool one that notes its arguments, which are what a process list shows."""
    tools, record = host.home / "tools", host.home / "arguments"
    tools.mkdir()
    for name in _TOOLS:
        if real := shutil.which(name, path=PATHS["aws"]):
            shim = tools / name
            note = f'printf "%s\\n" "$0" "$@" >>{shlex.quote(str(record))}'
            shim.write_text(f'#!/bin/sh\n{note}\nexec {shlex.quote(real)} "$@"\n')
            shim.chmod(0o755)
    return record


def _file_system(directory: Path) -> str:
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    around = [(mount, kind) for mount, kind in mounts if directory.is_relative_to(mount)]
    return max(around, key=lambda found: len(found[0]))[1]
