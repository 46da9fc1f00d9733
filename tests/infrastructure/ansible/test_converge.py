"""What the role makes of a bare Debian 12, and what runs there afterwards, under the systemd of that Debian itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from shlex import quote
from typing import Any

import pytest

from dev.servers.seaweedfs import REGION
from tests.infrastructure.ansible.machine import Machine, NoMirror, Play, why_not
from tests.infrastructure.ansible.receivewal_world import SECRET, SourceOfWal
from tests.infrastructure.ansible.watchdog_world import HostsVault
from tests.integration.wal_world import wait_until
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-INF-03"), pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing")]

UNIT = "pv-backup-receivewal.service"
# Of systemd-analyze's 100, less is better. What is left is the network, which it needs.
EXPOSURE = 15
FRESH = "test ! -e /etc/pv-backup && test ! -e /usr/local/lib/pv-backup && ! id pv_backup && ! command -v jq"
WATCHDOG = "/usr/local/lib/pv-backup/pv-backup-watchdog"
RECEIVERS = (
    f"/etc/systemd/system/{UNIT}",
    "/usr/local/lib/pv-backup/pv-backup-receivewal",
    "/usr/lib/postgresql",
    "/var/wal-archive",
    "/var/lib/pv_backup",
)


@dataclass
class Converged:
    """The machine after its plays, and what it lives with.

    :ivar plays: on the bare machine as a rehearsal (--check), then for the watchdog alone, then for both.
    :ivar untouched: whether the machine was bare still after the rehearsal.
    :ivar watching: the paths that were there when the watchdog was alone.
    """

    machine: Machine
    source: SourceOfWal
    secrets: list[str]
    variables: dict[str, Any]
    plays: list[Play]
    untouched: bool
    watching: set[str]

    def wait_until_it_streams(self) -> None:
        said = self.machine.run(f"journalctl --unit {UNIT} --lines 20 --output cat").stdout
        wait_until(self.source.streams, meaning=f"streamed; the unit says:\n{said}")

    def received(self) -> dict[str, str]:
        """Owner and mode of each file of the WAL directory."""
        listing = self.machine.run("cd /var/wal-archive && stat --format '%n %U %a' *").stdout
        return dict(line.split(maxsplit=1) for line in listing.splitlines())

    def log(self, unit: str) -> str:
        return self.machine.run(f"journalctl --unit {unit} --output cat").stdout

    def play_part(self, part: str, **variables: str) -> Play:
        """Play one file of the role's tasks again, with other variables if any are given."""
        role = {"name": "postgresql_backup", "tasks_from": part}
        tasks = [{"name": "The role", "ansible.builtin.include_role": role}]
        playbook = self.machine.home / f"{part}.yml"
        playbook.write_text(json.dumps([{"hosts": "pv_backup_receivers", "gather_facts": False, "tasks": tasks}]))
        return self.machine.play(self.variables | variables, playbook=playbook)


@pytest.fixture(scope="module")
def converged(stack: TestStack, cluster_template) -> Iterator[Converged]:
    cluster = cluster_template.copied()
    cluster.receiver.stop()
    cluster.sql("SELECT pg_drop_replication_slot('pv_backup')")
    source = SourceOfWal(cluster)
    vault, bucket = HostsVault(stack.vault.client()), stack.new_bucket().name
    vault.keep(SECRET, conninfo=source.conninfo)
    vault.keep("pv-backup/watchdog", smtp_url="smtp://127.0.0.1:9")
    key = stack.backup_user
    vault.keep("ci/aws-backup-watchdog", access_key_id=key.access_key, secret_access_key=key.secret_key)
    role_id, secret_id = vault.draw()
    variables: dict[str, Any] = {
        "postgresql_backup_vault_addr": vault.settings["VAULT_ADDR"],
        "postgresql_backup_vault_kv_mount": vault.settings["VAULT_KV_MOUNT"],
        "postgresql_backup_vault_approle_mount": vault.settings["VAULT_APPROLE_MOUNT"],
        "postgresql_backup_role_id": role_id,
        "postgresql_backup_secret_id": secret_id,
        "postgresql_backup_bucket": bucket,
        "postgresql_backup_region": REGION,
        "postgresql_backup_s3_endpoint": stack.s3.endpoint,
        # So that it looks at any time of day.
        "postgresql_backup_not_before": "00:00",
    }
    machine = Machine()
    try:
        machine.boot()
        rehearsal = machine.play(variables, "--check")
        untouched = machine.run(FRESH).returncode == 0
        # As somebody who looks for trouble: then Ansible shows what it copies, and each result.
        alone = machine.play(variables | {"postgresql_backup_receives": False}, "--diff", "-v")
        watching = set(machine.run(f"ls -d {' '.join(RECEIVERS)} {WATCHDOG}").stdout.split())
        plays = [rehearsal, alone, machine.play(variables, "--diff", "-v")]
        secrets = [source.password, secret_id, key.secret_key]
        yield Converged(machine, source, secrets, variables, plays, untouched, watching)
    except NoMirror as error:
        pytest.skip(str(error))
    finally:
        machine.discard()
        cluster.discard()


def test_a_rehearsal_on_a_bare_host_passes_and_changes_nothing(converged: Converged):
    rehearsal, alone, both = converged.plays

    assert rehearsal.status == 0, rehearsal.said
    assert converged.untouched
    assert set(rehearsal.changed) <= {*alone.changed, *both.changed}


def test_where_something_else_receives_the_watchdog_is_installed_alone(converged: Converged):
    _, alone, _ = converged.plays

    assert alone.status == 0, alone.said
    assert converged.watching == {WATCHDOG}
    # With both, each of them is there.
    assert converged.machine.run(f"ls -d {' '.join(RECEIVERS)} {WATCHDOG}").returncode == 0


def test_a_second_run_changes_nothing(converged: Converged):
    _, alone, both = converged.plays
    assert both.status == 0, both.said
    assert [name for name in both.changed if name in alone.changed] == [
        "postgresql_backup : Install what the programs need"
    ]

    again = converged.play_part("receivewal")

    assert again.status == 0, again.said
    assert "ok: " in again.said
    assert again.changed == []


def test_no_run_shows_a_secret(converged: Converged):
    assert not [secret for secret in converged.secrets for play in converged.plays if secret in play.said]


def test_systemd_finds_no_fault_with_the_unit(converged: Converged):
    done = converged.machine.run(f"systemd-analyze verify {UNIT}")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_unit_is_hardened(converged: Converged):
    done = converged.machine.run(f"systemd-analyze security --threshold={EXPOSURE} --no-pager {UNIT}")

    assert done.returncode == 0, done.stdout


@pytest.mark.case("TC-NOM-02")
def test_wal_arrives_by_the_hardened_unit(converged: Converged):
    converged.wait_until_it_streams()
    converged.source.cluster.write(0.2)
    name = converged.source.cluster.switch_wal()
    wait_until(lambda: name in converged.received(), meaning=f"received {name}")

    assert set(converged.received().values()) == {"pv_backup 600"}
    assert (
        converged.machine.run("stat --format '%U:%G %a' /var/wal-archive").stdout.strip() == "pv_backup:pv_backup 700"
    )
    assert converged.machine.run(f"systemctl is-enabled {UNIT} cron.service").stdout.split() == ["enabled", "enabled"]


def test_no_secret_shows_outside_the_files_of_root(converged: Converged):
    converged.wait_until_it_streams()
    visible = converged.machine.run(
        f"cat /proc/[0-9]*/cmdline; systemctl show {UNIT}; systemctl cat {UNIT}; journalctl; find / -xdev"
    ).stdout
    assert "pg_receivewal" in visible
    assert not [secret for secret in converged.secrets if secret in visible]

    for secret in converged.secrets:
        found = converged.machine.run(f"grep -rlF -- {quote(secret)} /etc /usr /var /root")
        assert set(found.stdout.split()) <= {"/etc/pv-backup/secret_id"}
    modes = converged.machine.run("stat --format '%U %a' /etc/pv-backup/role_id /etc/pv-backup/secret_id").stdout
    assert set(modes.splitlines()) == {"root 600"}


def test_killed_it_starts_again(converged: Converged):
    converged.wait_until_it_streams()
    before = _main_process(converged)
    converged.machine.run(f"kill -KILL {before}", check=True)
    wait_until(lambda: _main_process(converged) not in ("0", before), meaning="was started again")

    converged.wait_until_it_streams()


def test_it_waits_for_a_sealed_vault_and_says_so(converged: Converged, stack: TestStack):
    converged.machine.run(f"systemctl stop {UNIT}", check=True)
    # What it learnt before is gone with the unit.
    assert converged.machine.run("ls /run/pv-backup-receivewal").returncode != 0
    stack.vault.seal()
    converged.machine.run(f"systemctl start {UNIT}")
    wait_until(lambda: "is sealed: unseal it" in converged.log(UNIT), meaning="said that Vault is sealed")
    stack.vault.unseal()

    converged.wait_until_it_streams()


def test_cron_accepts_its_line_and_what_it_calls_looks_into_the_bucket(converged: Converged):
    *_, line = converged.machine.run("cat /etc/cron.d/pv-backup-watchdog", check=True).stdout.splitlines()
    minute, hour, *_, user, command = line.split(maxsplit=6)
    # As cron does: nothing else in the environment. It reads files with a mode or an owner of its own liking only.
    converged.machine.run(command, check=True, PATH="/usr/bin:/bin", SHELL="/bin/sh", HOME="/root")

    assert (minute, hour, user) == ("15", "*", "root")
    assert converged.machine.run("stat --format '%U %a' /etc/cron.d/pv-backup-watchdog").stdout.strip() == "root 644"
    assert converged.machine.run("systemctl is-active cron").stdout.strip() == "active"
    said = converged.machine.run("journalctl --identifier pv-backup-watchdog --output cat").stdout
    assert f"{converged.variables['postgresql_backup_bucket']} has no published backup of" in said
    assert not [secret for secret in converged.secrets if secret in said]


def test_without_what_logs_in_to_vault_the_role_names_the_file(converged: Converged):
    converged.machine.run("mv /etc/pv-backup/secret_id /root/", check=True)
    try:
        play = converged.play_part("approle", postgresql_backup_secret_id="")
    finally:
        converged.machine.run("mv /root/secret_id /etc/pv-backup/", check=True)

    assert play.status != 0
    assert "/etc/pv-backup/secret_id must be root's, with mode 0600, and not empty. Put it there by hand" in play.said


def _main_process(converged: Converged) -> str:
    return converged.machine.run(f"systemctl show --property MainPID --value {UNIT}").stdout.strip()
