"""What the unit starts: pg_receivewal with a connection string of Vault's, both real."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import psutil
import pytest

from tests.infrastructure.ansible.receivewal_world import PROGRAM, SECRET, Host, SourceOfWal
from tests.infrastructure.ansible.watchdog_world import HostsVault
from tests.integration.vault_world import address_nobody_listens_at
from tests.integration.wal_world import wait_until
from tests.support.clusters import SourceCluster

pytestmark = pytest.mark.case("TC-INF-03")


@pytest.fixture(scope="module")
def cluster(cluster_template) -> Iterator[SourceCluster]:
    cluster = cluster_template.copied()
    cluster.receiver.stop()
    yield cluster
    cluster.discard()


@pytest.fixture
def host(stack, cluster, tmp_path) -> Host:
    cluster.postgres.start()
    cluster.sql("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    return Host(tmp_path, HostsVault(stack.vault.client()), SourceOfWal(cluster))


def streaming(host: Host, run) -> None:
    """Wait until it streams; its own words if it ends instead."""

    def streams() -> bool:
        run.look()
        assert run.process.poll() is None, run.said
        return host.source.streams()

    wait_until(streams, meaning="streamed")


@pytest.mark.case("TC-NOM-02")
def test_wal_arrives_in_files_that_nobody_else_may_read_and_the_slot_keeps_what_came_meanwhile(host: Host):
    with host.running() as run:
        streaming(host, run)
        host.source.cluster.write(0.2)
        first = host.source.cluster.switch_wal()
        wait_until(lambda: first in host.received(), meaning=f"received {first}")
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0, run.said

    meanwhile = [(host.source.cluster.write(0.2), host.source.cluster.switch_wal())[1] for _ in range(2)]
    with host.running() as run:
        streaming(host, run)
        wait_until(lambda: set(meanwhile) <= set(host.received()), meaning=f"received {meanwhile}")

    assert {path.stat().st_mode & 0o077 for path in host.wal_directory.iterdir()} == {0}


def test_a_segment_that_was_cut_short_before_any_wal_was_in_it_is_begun_anew(host: Host):
    """pg_receivewal fills it with zeros first; cut short there, by a power cut or a full disk, it would be refused."""
    opened = host.segment_that_was_begun()
    opened.write_bytes(bytes(8192))

    with host.running() as run:
        streaming(host, run)
        host.source.cluster.write(0.2)
        host.source.cluster.switch_wal()
        wait_until(lambda: opened.stem in host.received(), meaning=f"received {opened.stem}")

    assert f"removing {opened}, which holds nothing but zeros" in run.said


def test_a_segment_that_was_cut_short_with_wal_in_it_is_left_to_people(host: Host):
    opened = host.segment_that_was_begun()
    opened.write_bytes(opened.read_bytes()[:8192])

    assert f'file "{opened.name}" has 8192 bytes, should be 0 or 1048576' in host.refused().said
    assert opened.exists()


def test_a_new_slot_reserves_wal_at_once(host: Host):
    # Without its directory pg_receivewal does not stream: the slot has what it was made with.
    host.wal_directory.rmdir()
    host.refused()

    ((restart_lsn,),) = host.source.cluster.sql(
        "SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'pv_backup'"
    )
    assert restart_lsn is not None


def test_no_secret_is_on_the_process_list_in_the_log_or_left_behind(host: Host):
    halves = [path.read_text().strip() for path in host.credentials.iterdir()]
    recorded = host.record("curl", "jq")
    with host.running() as run:
        streaming(host, run)
        run.look()
        # How it knows the password: by one file, in the directory that goes with the unit.
        assert list(host.runtime_directory.iterdir()) == [host.service_file]
        assert host.source.password in host.service_file.read_text()
        assert host.service_file.stat().st_mode & 0o777 == 0o600

    arguments = [*recorded.read_text().splitlines(), *run.seen]
    for expected in ("--arg", f"{host.address}/v1/auth/{host.mount}/login", "--slot"):
        assert expected in arguments
    for secret in (host.source.password, "X-Vault-Token", *halves):
        assert not [argument for argument in arguments if secret in argument]
        assert secret not in run.said


def test_a_sealed_vault_is_named_and_nothing_is_started(host: Host, stack):
    stack.vault.seal()
    run = host.refused()

    assert f"Vault at {host.address} is sealed: unseal it" in run.said
    assert not host.service_file.exists()


def test_a_vault_that_is_away_is_named(host: Host):
    host.address = f"http://{address_nobody_listens_at()}"
    run = host.refused()

    assert f"Vault at {host.address} does not answer: curl: (7)" in run.said


def test_wal_arrives_though_vault_was_sealed_since_the_last_start(host: Host, stack):
    with host.running() as run:
        streaming(host, run)
    stack.vault.seal()

    with host.running() as run:
        streaming(host, run)

    assert "is sealed" in run.said
    assert "going on with the connection string of the start before" in run.said


def test_who_was_refused_does_not_go_on_with_what_was_good_before(host: Host):
    with host.running() as run:
        streaming(host, run)
    host.bring(host.vault.draw()[0], "11111111-2222-4333-8444-555555555555")

    run = host.refused()

    assert "Vault refuses the AppRole: role_id or secret_id is wrong or has expired" in run.said
    assert "role/pv-backup-receiver/secret-id" in run.said
    assert "11111111" not in run.said
    assert not host.service_file.exists()


def test_an_approle_without_its_policy_is_named(host: Host):
    host.vault.forbid()

    assert f"Vault forbids {host.where}: the AppRole needs the policy pv-backup-receiver" in host.refused().said


def test_a_path_that_is_not_there_is_named_with_the_command_that_makes_it(host: Host):
    host.vault.forget(SECRET)

    assert f"Vault has no {host.where}: vault kv put -mount={host.mount} {SECRET} conninfo=-" in host.refused().said


def test_a_missing_field_is_named(host: Host):
    host.vault.keep(SECRET, conn_info=host.source.conninfo)

    run = host.refused()

    assert f"the field conninfo of {host.where} is missing" in run.said
    assert host.source.password not in run.said


def test_an_address_that_is_no_vault_is_named(host: Host, stack):
    host.address = stack.s3.endpoint

    assert f"{host.address} answers a login with HTTP status 405: is it a Vault" in host.refused().said


def test_it_ends_when_postgresql_is_down_and_says_so(host: Host):
    host.source.cluster.postgres.stop()

    assert "Connection refused" in host.refused().said


def test_it_ends_when_the_connection_is_lost_so_that_a_changed_password_is_fetched(host: Host):
    with host.running() as run:
        streaming(host, run)
        host.source.change_password()
        host.source.cluster.sql("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots")
        assert run.end() != 0
    assert "password authentication failed" in host.refused().said

    host.vault.keep(SECRET, conninfo=host.source.conninfo)
    with host.running() as run:
        streaming(host, run)


def test_stopped_while_it_waits_for_vault_it_ends_at_once(host: Host, stack):
    vault = psutil.Process(stack.vault._daemon.process().pid)
    vault.suspend()
    try:
        with host.running() as run:
            wait_until(lambda: run.look() or any("/login" in word for word in run.seen), meaning="asked Vault")
            os.killpg(run.process.pid, signal.SIGINT)
            assert run.end(20) != 0
    finally:
        vault.resume()


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    done = subprocess.run(["shellcheck", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
