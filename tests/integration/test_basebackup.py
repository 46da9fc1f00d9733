"""A base backup from the opened day to a running server: what is stored, what is said of it, and what comes back."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest
from psycopg.conninfo import conninfo_to_dict

from dev.provisioning.databases import drop_database
from dev.servers.postgres import BIN_DIR
from pv_backup.services.basebackup_source import SLOT_PREFIX, BasebackupSource
from pv_backup.services.errors import DayClosed, ExportFailed, TaskStopped
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.manifest import Manifest
from pv_backup.services.state import Attempt
from pv_backup.services.wal import parse_lsn
from tests.integration.backup_world import MEBIBYTE, BackupWorld, WatchedBasebackup, backup_world
from tests.integration.command_line import CommandLine
from tests.support.processes import children_named
from tests.support.restored_server import RestoredServer

pytestmark = pytest.mark.case("TC-NOM-03")

KEY = "2026/03/basebackup_20260329.enc"
DAY = "2026-03-29"


@pytest.fixture(scope="module")
def cluster(cluster_template):
    cluster = cluster_template.copied()
    cluster.sql("CREATE TABLE evidence AS SELECT n, md5(n::text) FROM generate_series(1, 5000) n")
    yield cluster
    cluster.discard()


@pytest.fixture
def world(stack, cluster, journal_db, bucket):
    with backup_world(stack, cluster, journal_db, bucket, part_size_mb=5) as world:
        yield world


@dataclass(frozen=True)
class Made:
    """A base backup that went well while the cluster was at work, and what was seen in its midst."""

    world: BackupWorld
    began: datetime
    attempt: Attempt
    slot: tuple[bool, str]
    command_line: str

    @property
    def manifest(self) -> Manifest:
        return Manifest.model_validate(self.world.bucket.manifest(KEY))


@pytest.fixture(scope="module")
def made(stack, cluster):
    journal, began, slot, command_line = stack.new_journal(), datetime.now(UTC), [], []

    def work_on():
        slot.extend(slots(cluster))
        command_line.append(" ".join(tool_at_work().cmdline()))
        cluster.sql("CREATE TABLE committed_meanwhile AS SELECT 1 AS n")
        # The WAL that the backup needs must outlive checkpoints, which is what the slot is for.
        for _ in range(3):
            cluster.write(1)
            cluster.switch_wal()
            cluster.sql("CHECKPOINT")

    with backup_world(stack, cluster, journal, stack.new_bucket(), part_size_mb=5) as world:
        source = WatchedBasebackup(server=world.server, after_bytes=MEBIBYTE, incident=work_on)
        yield Made(world, began, world.back_up(source), slot[0], command_line[0])
    drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])


def restored(world, folder):
    """The artefact's data directory, fetched with bucket and key alone, and found right by PostgreSQL itself."""
    archive, data = folder / "base.tar", folder / "data"
    fetched = CommandLine(world)("fetch", KEY, "--output", archive)
    assert fetched.returncode == 0, fetched.stderr
    data.mkdir(mode=0o700)
    subprocess.run(["tar", "--extract", "--file", archive, "--directory", data], check=True)
    archive.unlink()
    subprocess.run([BIN_DIR / "pg_verifybackup", "--quiet", data], check=True)
    return data


def slots(cluster):
    return cluster.sql(
        "SELECT temporary, restart_lsn::text FROM pg_replication_slots WHERE slot_name LIKE %s", SLOT_PREFIX + "%"
    )


def wait_until(what):
    deadline = time.monotonic() + 60
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


def tool_at_work():
    (tool,) = children_named("pg_basebackup")
    return tool


def kill_pg_basebackup():
    tool_at_work().kill()


@pytest.mark.case("TC-INV-08", "TC-NR-01")
def test_what_was_backed_up_passes_pg_verifybackup_starts_and_has_the_rows(made, cluster, open_path):
    data = restored(made.world, open_path)
    assert set(made.manifest.wal_files) <= {path.name for path in (data / "pg_wal").iterdir()}
    # What `jq -r .backup_manifest` prints.
    taken_out = open_path / "taken_out"
    taken_out.write_text(f"{made.manifest.backup_manifest}\n")
    assert taken_out.read_bytes() == (data / "backup_manifest").read_bytes()
    (data / "backup_manifest").unlink()
    subprocess.run([BIN_DIR / "pg_verifybackup", "--quiet", "-m", taken_out, data], check=True)

    evidence = "SELECT count(*), md5(string_agg(md5, ',' ORDER BY n)) FROM evidence"
    with RestoredServer(data) as server:
        assert server.sql(evidence) == cluster.sql(evidence)
        assert server.sql("SELECT n FROM committed_meanwhile") == [(1,)]


def test_a_temporary_slot_keeps_its_wal_while_it_is_made_and_goes_afterwards(made, cluster):
    temporary, restart_lsn = made.slot

    assert temporary
    assert parse_lsn(restart_lsn) <= parse_lsn(made.manifest.start_lsn)
    assert wait_until(lambda: slots(cluster) == [])


@pytest.mark.case("TC-INV-02")
def test_the_password_is_in_no_argument_of_the_tool(made, cluster):
    assert "--wal-method=fetch" in made.command_line
    assert conninfo_to_dict(cluster.dump_dsn)["password"] not in made.command_line


@pytest.mark.case("TC-INV-04", "TC-INV-05")
def test_the_day_ends_as_one_success_and_is_closed(made):
    (event,) = made.world.journal.sql("SELECT * FROM pv_backup.backup_journal_events")

    assert made.world.journal.row()["status"] == event["outcome"] == "SUCCESS"
    assert str(event["backup_id"]) == made.attempt.backup_id
    with pytest.raises(DayClosed, match=made.attempt.backup_id):
        made.world.open(artefact_type="basebackup", run_id="run 2")


def test_the_manifest_tells_all_that_a_recovery_asks(made, cluster):
    manifest = made.manifest

    assert (manifest.backup_id, manifest.backup_type, manifest.key) == (made.attempt.backup_id, "basebackup", KEY)
    ((version, system),) = cluster.sql(
        "SELECT current_setting('server_version'), system_identifier::text FROM pg_control_system()"
    )
    assert (manifest.server_version, manifest.system_identifier) == (version, system)
    assert manifest.tool_versions["pg_basebackup"].startswith("pg_basebackup (PostgreSQL) 15.")
    times = [datetime.fromisoformat(text) for text in (manifest.exported_at, manifest.stopped_at, manifest.finished_at)]
    assert sorted([made.began, *times]) == [made.began, *times]
    ((first, last),) = cluster.sql(
        "SELECT pg_walfile_name(%s::pg_lsn), pg_walfile_name(%s::pg_lsn - 1)", manifest.start_lsn, manifest.stop_lsn
    )
    assert (manifest.wal_files[0], manifest.wal_files[-1]) == (first, last)
    assert len(manifest.wal_files) > 3
    assert (manifest.timeline, manifest.wal_segment_bytes) == (1, MEBIBYTE)
    assert manifest.database is manifest.tablespaces is None


def test_a_person_reads_positions_and_wal_files(made):
    manifest = made.manifest

    told = CommandLine(made.world)("info", "--day", DAY).stdout.decode()

    assert f"timeline 1, {manifest.start_lsn} to {manifest.stop_lsn}" in told
    assert manifest.wal_files[0] in told
    assert "the whole cluster" in told


@pytest.mark.case("TC-ERR-01", "TC-INV-01")
def test_a_pg_basebackup_killed_half_way_leaves_nothing_and_the_next_try_succeeds(world, cluster):
    attempt = world.open(artefact_type="basebackup")
    source = WatchedBasebackup(server=world.server, after_bytes=8 * MEBIBYTE, incident=kill_pg_basebackup)
    with pytest.raises(ExportFailed, match="pg_basebackup was ended by signal 9") as caught:
        world.export(attempt, source)
    assert caught.value.code == "ERR-47-01"
    assert world.bucket.is_untouched()
    assert wait_until(lambda: slots(cluster) == [])
    world.export(attempt, BasebackupSource(server=world.server))
    world.verify(attempt)


@pytest.mark.case("TC-ERR-01")
def test_a_slot_that_was_lost_meanwhile_fails_the_export(world, cluster):
    def lose_the_slot():
        cluster.sql(
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name LIKE %s",
            SLOT_PREFIX + "%",
        )

    source = WatchedBasebackup(server=world.server, incident=lose_the_slot)
    with pytest.raises(ExportFailed, match="failed a query: terminating connection"):
        world.export(world.open(artefact_type="basebackup"), source)
    assert world.bucket.is_untouched()


@pytest.mark.case("TC-ERR-01")
def test_a_stopped_task_ends_pg_basebackup_and_leaves_nothing(world, cluster):
    held, keeper = world.bench.keep_lease(world.open(artefact_type="basebackup").backup_id)
    source = WatchedBasebackup(server=world.server, after_bytes=2 * MEBIBYTE, incident=lambda: export.cancel())
    export = ArtefactExport(bench=world.bench, attempt=held, source=source, keeper=keeper)
    with keeper, pytest.raises((TaskStopped, ExportFailed)):
        export.run()
    assert world.bucket.is_untouched()
    assert children_named("pg_basebackup") == []
    assert wait_until(lambda: slots(cluster) == [])
