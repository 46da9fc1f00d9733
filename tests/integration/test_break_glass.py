"""Break-glass: source, journal and Airflow are gone; bucket and key say what there is, check it, and bring it back."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from dev.airflow_env import ROOT
from dev.provisioning.databases import drop_database
from dev.servers.postgres import BIN_DIR, RUN_AS
from pv_backup.cli.starting import start_server
from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.postgres import Server
from tests.integration.backup_world import KEY
from tests.integration.bare_python import modules_beyond, packages_named
from tests.integration.command_line import CommandLine
from tests.integration.wal_world import WalWorld, wait_until, wal_world
from tests.support.clusters import ClusterTemplate, open_directory
from tests.support.servers import TestStack

pytestmark = [pytest.mark.case("TC-NOM-04")]

OK, FAILED, DAMAGED = 0, 1, 2
BASE = "2026/03/basebackup_20260329.enc"
SEGMENTS = 6
SUPERUSER = "evidence"
# What ALTER SYSTEM may have set on a source, and a server on what is restored from it must not do.
OF_THE_SOURCE = {
    "archive_mode": "on",
    "archive_command": "cp %p {folder}/%f",
    "port": "6543",
    "listen_addresses": "*",
    "unix_socket_directories": "{folder}",
    "hba_file": "{folder}/pg_hba.conf",
    "ident_file": "{folder}/pg_ident.conf",
    "external_pid_file": "{folder}/pid",
    "shared_preload_libraries": "nowhere",
    "session_preload_libraries": "nowhere",
    "synchronous_standby_names": "nobody",
    "max_logical_replication_workers": "4",
    "ssl": "on",
    "logging_collector": "on",
    "log_directory": "{folder}",
}


@dataclass(frozen=True)
class Left:
    """What is left: the bucket, and a machine on which only the runbook's packages are installed.

    :ivar events: what the lost journal said of the published backups, by object.
    :ivar last_entry_at: the source's clock right after the last commit.
    """

    world: WalWorld
    command: CommandLine
    events: dict[str, dict[str, object]]
    last_entry_at: datetime

    @contextmanager
    def damaged(self, key: str) -> Iterator[None]:
        """The bucket with one bit of an object turned."""
        bucket = self.world.bucket
        body = bucket.body(key)
        bucket.overwrite(key, body[:-1] + bytes([body[-1] ^ 1]))
        try:
            yield
        finally:
            bucket.overwrite(key, body)

    @contextmanager
    def without(self, key: str) -> Iterator[None]:
        bucket = self.world.bucket
        body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
        bucket.delete(key)
        try:
            yield
        finally:
            bucket.put(key, body, metadata)


@pytest.fixture(scope="module")
def left(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    """A night's artefacts and the WAL after them; then the source, its journal and Airflow are lost."""
    cluster, journal, bucket = cluster_template.copied(), stack.new_journal(), stack.new_bucket()
    archive = tmp_path_factory.mktemp("archive")
    with wal_world(stack, cluster, journal, bucket) as world:
        cluster.sql("CREATE TABLE ledger (entry int PRIMARY KEY)")
        for name, value in OF_THE_SOURCE.items():  # for a next start, which this server does not live to see
            cluster.sql(f"ALTER SYSTEM SET {name} = '{value.format(folder=archive)}'")
        for source in (GlobalsSource, DumpSource, BasebackupSource):
            world.backup.back_up(source(server=cluster.server))
        with psycopg.connect(cluster.dump_dsn) as connection:
            connection.execute(f"ALTER ROLE postgres RENAME TO {SUPERUSER}".encode())
        cluster.dsn = cluster.dsn.replace("//postgres:", f"//{SUPERUSER}:")
        for entry in range(SEGMENTS):
            cluster.sql("INSERT INTO ledger VALUES (%s)", entry)
            if entry == SEGMENTS - 1:
                ((at,),) = cluster.sql("SELECT clock_timestamp()")
            name = cluster.switch_wal()
        cluster.wait_until_received(name)
        assert world.run().problems == []
        events = world.backup.journal.sql("SELECT * FROM pv_backup.backup_journal_events")
        cluster.destroy()
        drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])
        command = CommandLine(world.backup)
        page = (ROOT / "docs" / "disaster.md").read_text()
        command.without(tmp_path_factory.mktemp("bare"), modules_beyond(packages_named(page)))
        yield Left(world, command, {str(event["object_key"]): event for event in events}, at)
    cluster.discard()


@pytest.fixture
def folder() -> Iterator[Path]:
    folder = open_directory()
    yield folder
    for pid_file in folder.glob("*/postmaster.pid"):
        owner = ["runuser", "-u", RUN_AS, "--"] if RUN_AS else []
        stop = [BIN_DIR / "pg_ctl", "stop", "-s", "-m", "immediate", "-D", pid_file.parent]
        subprocess.run([*owner, *stop], check=True)
    shutil.rmtree(folder)


@pytest.fixture
def journal(stack: TestStack, left: Left, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A new journal database, empty and migrated; its superuser's DSN. The command's variable holds the service's."""
    made = stack.new_journal()
    monkeypatch.setitem(left.command.environment, "PV_BACKUP_JOURNAL_DSN", made.service_dsn)
    yield made.superuser_dsn
    drop_database(stack.postgres, made.superuser_dsn.rpartition("/")[2])


def rows(dsn: str, query: str) -> list[dict[str, object]]:
    with psycopg.connect(dsn, row_factory=psycopg.rows.dict_row) as connection:
        return connection.execute(query.encode()).fetchall()


def printed(text: str) -> tuple[list[str], list[str]]:
    """The commands that ask the started server something, and end it."""
    lines = [line.strip() for line in text.splitlines()]
    (psql,) = [line for line in lines if line.startswith("psql ")]
    (stop,) = [line for line in lines if "pg_ctl stop" in line]
    return shlex.split(psql), shlex.split(stop)


def test_airflow_is_not_there(left: Left):
    tried = subprocess.run(
        [sys.executable, "-c", "import airflow"], env=left.command.environment, capture_output=True, check=False
    )
    assert b"No module named 'airflow'" in tried.stderr


def test_the_list_says_all_that_the_journal_knew_of_the_backups(left: Left):
    listed = json.loads(left.command("list", "--json").stdout)

    told = {backup["key"]: backup for backup in listed["backups"]}
    known = {key: event for key, event in left.events.items() if event["type"] != "wal"}
    assert told.keys() == known.keys()
    for key, event in known.items():
        for name in ("backup_id", "type", "hash_sha3_256", "size_bytes", "k_backup_version"):
            assert told[key][name] == (str(event[name]) if name == "backup_id" else event[name])
        assert told[key]["day"] == str(event["day"])


def test_the_list_says_how_far_recovery_can_go(left: Left):
    wal = json.loads(left.command("list", "--json").stdout)["wal"]
    text = left.command("list").stdout.decode()

    (coverage,) = wal["coverage"]
    assert (coverage["base"], coverage["holes"]) == (BASE, [])
    assert coverage["segments"] >= SEGMENTS - 1
    assert wal["files"] == sum(event["type"] == "wal" for event in left.events.values())
    assert datetime.fromisoformat(coverage["from_time"]) < datetime.fromisoformat(coverage["to_time"])
    assert datetime.fromisoformat(coverage["to_time"]) < left.last_entry_at
    assert f"LSN {coverage['to_lsn']}, timeline 1" in text
    assert coverage["to_time"] in text


def test_the_list_names_each_hole_and_where_recovery_ends_in_front_of_it(left: Left):
    names = left.world.shipped()
    hole, behind = names[-3], names[-2]
    with left.without(wal_object_key(hole)):
        text = left.command("list").stdout.decode()
        (coverage,) = json.loads(left.command("list", "--json").stdout)["wal"]["coverage"]

    assert f"MISSING {hole}, before {behind}" in text
    assert coverage["holes"] == [{"first": hole, "last": hole, "before": behind}]


def test_the_list_is_told_without_vault_but_for_the_wal(left: Left, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(left.command.environment, "VAULT_TOKEN")
    listed = left.command("list")

    assert listed.returncode == OK
    assert BASE in listed.stdout.decode()
    assert "how far they lead is not known: CONFIGURATION VAULT_TOKEN not set" in listed.stdout.decode()


def test_everything_is_verified_and_summed_up(left: Left):
    verified = left.command("verify", "--all")

    assert verified.returncode == OK, verified.stderr
    assert f"verified  {KEY}" in verified.stdout.decode()
    assert f"{len(left.events)} artefacts verified" in verified.stdout.decode()
    assert "0 damaged" in verified.stdout.decode()


@pytest.mark.case("TC-NEG-01")
def test_what_is_damaged_is_named_and_does_not_hide_the_rest(left: Left):
    segment = wal_object_key(left.world.shipped()[-2])
    with left.damaged(KEY), left.damaged(segment):
        verified = left.command("verify", "--all")

    told = verified.stdout.decode()
    assert verified.returncode == DAMAGED
    assert f"damaged   {KEY}: " in told
    assert f"damaged   {segment}: " in told
    assert f"{len(left.events) - 2} artefacts verified" in told
    assert "2 artefacts of s3://" in verified.stderr.decode()


def test_a_manifest_that_speaks_for_another_object_is_damage(left: Left):
    key = "2026/03/globals_20260329.enc"
    manifest = left.world.bucket.manifest(key)
    assert manifest is not None
    left.world.bucket.put_manifest(key, manifest | {"backup_id": str(uuid4())})
    try:
        verified = left.command("verify", "--all")
    finally:
        left.world.bucket.put_manifest(key, manifest)

    assert verified.returncode == DAMAGED
    assert f"damaged   {key}" in verified.stdout.decode()


def test_one_command_leaves_a_server_that_answers(left: Left, folder: Path):
    restored = left.command("restore", folder / "data", "--latest", "--start")

    assert restored.returncode == OK, restored.stderr.decode()
    psql, stop = printed(restored.stdout.decode())
    asked = subprocess.run(
        [*psql, "-d", "postgres", "-Atc", "SELECT count(*) FROM ledger"], capture_output=True, check=True
    )
    assert asked.stdout == f"{SEGMENTS}\n".encode()
    assert psql[psql.index("-U") + 1] == SUPERUSER
    subprocess.run(stop, check=True, capture_output=True)
    assert not (folder / "data" / "postmaster.pid").exists()


@pytest.mark.case("TC-INV-04")
def test_nothing_that_the_source_was_told_rules_the_server(left: Left, folder: Path):
    data = folder / "a 'name' with spaces"
    restored = left.command("restore", data, "--latest")
    assert restored.returncode == OK, restored.stderr.decode()
    archive = folder / "archive"
    archive.mkdir()
    archive.chmod(0o777)
    told = OF_THE_SOURCE | {"recovery_target_name": "never", "recovery_target_time": "2001-01-01 00:00:00+00"}
    settings = "".join(f"{name} = '{value.format(folder=archive)}'\n" for name, value in told.items())
    (data / "postgresql.auto.conf").write_text(settings)

    started = start_server(Server({}, BIN_DIR), data, port=None, superuser=SUPERUSER)

    script = ["CREATE TABLE written ()", "SELECT pg_switch_wal()", "CHECKPOINT", *(f"SHOW {name}" for name in told)]
    words = [word for line in script for word in ("-c", line)]
    asked = subprocess.run(
        [*shlex.split(started.psql), "-qAt", *words], capture_output=True, text=True, check=False, timeout=30
    )
    assert (asked.returncode, asked.stderr) == (0, "")
    shown = dict(zip(told, asked.stdout.splitlines()[1:], strict=True))
    home = data.with_name(f"{data.name}.server")
    assert shown.pop("log_directory")
    assert shown == {
        "archive_mode": "off",
        "archive_command": "(disabled)",
        "port": "5432",
        "unix_socket_directories": '"' + str(home).replace('"', '""') + '"',
        "hba_file": f"{home}/pg_hba.conf",
        "ident_file": f"{home}/pg_ident.conf",
        "max_logical_replication_workers": "0",
        "ssl": "off",
        "logging_collector": "off",
        **dict.fromkeys(shown.keys() & {"listen_addresses", "external_pid_file", "synchronous_standby_names"}, ""),
        **dict.fromkeys((name for name in shown if name.endswith("_libraries") or name.startswith("recovery_")), ""),
    }
    assert list(archive.iterdir()) == []
    subprocess.run(shlex.split(started.stop), check=True, capture_output=True)


def test_a_port_lets_in_who_knows_a_password_of_the_cluster(left: Left, folder: Path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        taken.listen()
        refused = left.command("restore", folder / "data", "--latest", "--start", "--port", str(port))

    assert refused.returncode == FAILED
    assert "PostgreSQL does not start on it" in refused.stderr.decode()
    assert "Address already in use" in refused.stderr.decode()
    assert (folder / "data" / "PG_VERSION").exists()


def test_a_port_without_a_start_is_a_mistake(left: Left, folder: Path):
    refused = left.command("restore", folder / "data", "--latest", "--port", "5433")

    assert refused.returncode != OK
    assert b"--start" in refused.stderr
    assert not (folder / "data").exists()


@pytest.mark.case("TC-INV-05", "TC-INV-07")
def test_an_empty_journal_is_told_what_the_lost_one_knew(left: Left, journal: str):
    rebuilt = left.command("rebuild-journal")

    assert rebuilt.returncode == OK, rebuilt.stderr.decode()
    events = rows(journal, "SELECT * FROM pv_backup.backup_journal_events")
    kept = ("backup_id", "type", "day", "outcome", "object_key", "hash_sha3_256", "size_bytes", "k_backup_version")
    assert {event["object_key"]: [event[name] for name in kept] for event in events} == {
        key: [event[name] for name in kept] for key, event in left.events.items()
    }
    for row in rows(journal, "SELECT * FROM pv_backup.backup_executions"):
        manifest = left.world.bucket.manifest(str(row["object_key"]))
        assert manifest is not None
        assert row["status"] == "SUCCESS"
        assert row["verified_auth_tag"] == row["auth_tag"] == manifest["header_tag"]
        assert row["finished_at"] == datetime.fromisoformat(manifest["finished_at"]), "retention counts from there"
    audit = rows(journal, "SELECT event_type, details FROM pv_backup.backup_audit_events ORDER BY id")
    told = [event["event_type"] for event in audit]
    assert told == ["journal_rebuild_begun", *["adopted"] * 3, "journal_rebuild_finished"]
    assert all("@" in event["details"]["by"] for event in audit)


@pytest.mark.case("TC-INV-05")
def test_a_journal_that_has_rows_is_refused(left: Left, journal: str):
    left.command("rebuild-journal")
    before = rows(journal, "SELECT * FROM pv_backup.backup_journal_events ORDER BY id")

    again = left.command("rebuild-journal")

    assert again.returncode == FAILED
    assert b"only an empty one is rebuilt" in again.stderr
    assert rows(journal, "SELECT * FROM pv_backup.backup_journal_events ORDER BY id") == before


@pytest.mark.case("TC-INV-04")
def test_what_is_damaged_is_left_out_of_the_journal_and_said(left: Left, journal: str):
    with left.damaged(KEY):
        rebuilt = left.command("rebuild-journal")

    assert rebuilt.returncode == DAMAGED
    assert KEY in rebuilt.stderr.decode()
    known = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert known == left.events.keys() - {KEY}
    (left_out,) = rows(journal, "SELECT details FROM pv_backup.backup_audit_events WHERE event_type LIKE '%left_out'")
    assert left_out["details"]["object_key"] == KEY


def test_a_rebuild_that_was_killed_goes_on_where_it_was(left: Left, journal: str):
    event = left.events["2026/03/globals_20260329.enc"]
    with psycopg.connect(journal) as holding:
        # An uncommitted event of the same backup holds the rebuild at this one, for as long as it takes to kill it.
        columns = [name for name, value in event.items() if value is not None and name != "id"]
        holding.execute(
            sql.SQL("INSERT INTO pv_backup.backup_journal_events ({}) VALUES ({})").format(
                sql.SQL(", ").join(map(sql.Identifier, columns)), sql.SQL(", ").join(sql.Placeholder() * len(columns))
            ),
            [event[name] for name in columns],
        )
        rebuild = left.command.start("rebuild-journal")
        wait_until(
            lambda: rows(journal, "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query ~ 'journal'"),
            meaning="did the rebuild come to the event that is held",
        )
        rebuild.kill()
        rebuild.wait()
        holding.rollback()
    half = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert half == {KEY, BASE}

    finished = left.command("rebuild-journal")

    assert finished.returncode == OK, finished.stderr.decode()
    assert "2 were there already" in finished.stdout.decode()
    known = {row["object_key"] for row in rows(journal, "SELECT object_key FROM pv_backup.backup_journal_events")}
    assert known == left.events.keys()
    assert not rows(journal, "SELECT FROM pv_backup.backup_executions WHERE status <> 'SUCCESS'")
