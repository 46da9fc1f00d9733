"""A backup from the opened day to the restored database: what is stored, what is said of it, and what comes back."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from dev.ports import free_ports
from dev.provisioning.keys import SSE_KEY
from dev.servers.postgres import BIN_DIR, Postgres
from pv_backup.services.artefacts import manifest_key
from pv_backup.services.errors import DayClosed
from pv_backup.services.export_sources import GlobalsSource
from pv_backup.services.manifest import Manifest, stored_header
from tests.integration.backup_world import KEY, backup_world
from tests.integration.command_line import CommandLine

pytestmark = pytest.mark.case("TC-NOM-01")

EVIDENCE = Path(__file__).with_name("evidence.sql")
GLOBALS_KEY = "2026/03/globals_20260329.enc"
OF_A_BASE_BACKUP = {
    *("stopped_at", "timeline", "start_lsn", "stop_lsn", "wal_segment_bytes", "wal_files"),
    *("backup_manifest", "backup_manifest_absent", "tablespaces"),
}
COUNTS = {
    "legal.case_file": 20,
    "legal.evidence": 700,
    "legal.access_log_h1": 181,
    "legal.access_log_h2": 119,
    "public.Odd Name": 3,
}
# Everything that must come back, in one comparable value each.
CONTENTS = """
SELECT (SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM (SELECT id, case_id, sealed FROM legal.evidence) e),
       (SELECT count(*) FROM legal.evidence WHERE lo_get(scan) = sealed),
       (SELECT string_agg(to_jsonb(c)::text, ',' ORDER BY id) FROM legal.case_file c),
       (SELECT count(*) FROM legal.access_log), (SELECT sum(pieces) FROM legal.busy_case),
       (SELECT sum(n) FROM "Odd Name"),
       (SELECT last_value FROM legal.case_number),
       (SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'legal'),
       (SELECT relacl::text FROM pg_class WHERE oid = 'legal.evidence'::regclass)
"""


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


@pytest.fixture
def clerk(world):
    """The role that the evidence's grants name; it goes with the test."""
    name = f"clerk_{uuid4().hex[:8]}"
    psql(world.source.superuser_dsn, "--set", f"clerk={name}", "--file", EVIDENCE)
    yield name
    psql(world.source.superuser_dsn, "--command", f"DROP OWNED BY {name} CASCADE", "--command", f"DROP ROLE {name}")


@pytest.fixture
def empty_server(tmp_path):
    """A PostgreSQL 15 that knows no role but its superuser."""
    server = Postgres(
        home=tmp_path / "postgres", port=free_ports(["postgres"])["postgres"], password="restored", durable=False
    )
    server.start()
    yield server
    server.remove()


def psql(dsn, *arguments, stop_on_error=True):
    command = [BIN_DIR / "psql", "--no-psqlrc", "--quiet", "--set", f"ON_ERROR_STOP={int(stop_on_error)}"]
    return subprocess.run([*command, *arguments, dsn], check=True, capture_output=True, text=True).stderr


def rows(dsn, query):
    with psycopg.connect(dsn) as connection:
        return connection.execute(query).fetchall()


def test_the_object_carries_what_its_header_says_and_lies_under_the_kms_key(world, clerk):
    world.back_up()
    header = stored_header(world.bench.store, KEY)
    head = world.bucket.head(KEY)
    assert head["Metadata"] == {
        "wrapped_dek": header.context.wrapped_dek,
        "iv": header.iv.hex(),
        "auth_tag": header.tag.hex(),
        "k_backup_version": str(header.context.k_backup_version),
    }
    for key in (KEY, manifest_key(KEY)):
        head = world.bucket.head(key)
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", SSE_KEY)
    assert (header.context.object_key, header.context.backup_type) == (KEY, "pg_dump")


@pytest.mark.case("TC-INV-05")
def test_the_day_ends_as_one_success_in_row_and_journal(world, clerk):
    attempt = world.back_up()
    row = world.journal.row()
    (event,) = world.journal.sql("SELECT * FROM pv_backup.backup_journal_events")
    assert row["status"] == event["outcome"] == "SUCCESS"
    for field in ("backup_id", "hash_sha3_256", "size_bytes", "k_backup_version", "object_key"):
        assert row[field] == event[field]
    assert str(row["backup_id"]) == attempt.backup_id
    assert row["size_bytes"] == len(world.bucket.body(KEY))
    with pytest.raises(DayClosed, match=attempt.backup_id):
        world.open(run_id="run 2")


def test_the_manifest_is_complete_and_true(world, clerk):
    began = datetime.now(UTC)
    attempt = world.back_up()
    manifest = Manifest.model_validate(world.bucket.manifest(KEY))
    header = stored_header(world.bench.store, KEY)
    assert set(Manifest.model_fields) - set(world.bucket.manifest(KEY)) == {"row_counts_absent", *OF_A_BASE_BACKUP}
    assert (manifest.format_version, manifest.backup_id, manifest.backup_type) == (1, attempt.backup_id, "pg_dump")
    assert (manifest.key, manifest.size_bytes) == (KEY, len(world.bucket.body(KEY)))
    assert manifest.header_tag == header.tag.hex()
    assert manifest.wrapped_dek == header.context.wrapped_dek
    assert manifest.k_backup_version == header.context.k_backup_version
    assert manifest.hash_sha3_256 == world.journal.row()["hash_sha3_256"]
    assert manifest.database == world.source.name
    ((version, system),) = rows(
        world.source.superuser_dsn,
        "SELECT current_setting('server_version'), system_identifier::text FROM pg_control_system()",
    )
    assert (manifest.server_version, manifest.system_identifier) == (version, system)
    assert manifest.tool_versions["pg_dump"].startswith("pg_dump (PostgreSQL) 15.")
    assert manifest.row_counts == COUNTS
    exported, finished = (datetime.fromisoformat(text) for text in (manifest.exported_at, manifest.finished_at))
    assert began <= exported <= finished <= datetime.now(UTC)
    assert manifest.exported_bytes > 0
    assert manifest.export_seconds > 0


def test_what_is_committed_after_the_snapshot_is_neither_dumped_nor_counted(world, clerk):
    def commit_more_while_pg_dump_runs():
        with psycopg.connect(world.source.superuser_dsn) as connection:
            connection.execute('INSERT INTO "Odd Name" SELECT generate_series(4, 100)')
            connection.execute("DELETE FROM legal.access_log")

    class CommittingDump(type(world.watched(lambda: None))):
        def chunks(self):
            commit_more_while_pg_dump_runs()
            return super().chunks()

    world.back_up(CommittingDump(server=world.server))
    assert world.bucket.manifest(KEY)["row_counts"] == COUNTS


def test_an_unlogged_table_is_dumped_and_counted_a_temporary_one_is_not(world, clerk):
    with psycopg.connect(world.source.superuser_dsn) as connection:
        connection.execute("CREATE UNLOGGED TABLE legal.scratch AS SELECT 1 AS n")
        connection.execute("CREATE TEMPORARY TABLE gone AS SELECT 1 AS n")
        connection.commit()
        world.back_up()
    assert world.bucket.manifest(KEY)["row_counts"] == COUNTS | {"legal.scratch": 1}


@pytest.mark.case("TC-INV-08", "TC-NR-01")
def test_roles_and_dump_come_back_on_a_server_that_knows_neither(world, clerk, empty_server, tmp_path):
    expected = rows(world.source.superuser_dsn, CONTENTS)
    world.back_up(GlobalsSource(server=world.server))
    world.back_up()
    command = CommandLine(world)
    for key, name in ((GLOBALS_KEY, "roles.sql"), (KEY, "database.dump")):
        assert command("fetch", key, "--output", tmp_path / name).returncode == 0
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o600

    roles = (tmp_path / "roles.sql").read_text()
    assert f"CREATE ROLE {clerk}" in roles
    assert "PASSWORD" not in roles
    assert "SCRAM" not in roles

    target = empty_server.dsn("postgres")
    refused = psql(target, "--file", tmp_path / "roles.sql", stop_on_error=False)
    assert refused.count("ERROR") == refused.count('role "postgres" already exists') == 1
    restore = [BIN_DIR / "pg_restore", "--exit-on-error", "--create", "--dbname", target, tmp_path / "database.dump"]
    subprocess.run(restore, check=True, capture_output=True)
    assert rows(empty_server.dsn(world.source.name), CONTENTS) == expected


def test_the_roles_have_a_manifest_of_their_own(world, clerk):
    attempt = world.back_up(GlobalsSource(server=world.server))
    manifest = world.bucket.manifest(GLOBALS_KEY)
    assert (manifest["backup_id"], manifest["backup_type"]) == (attempt.backup_id, "globals")
    assert manifest["tool_versions"]["pg_dumpall"].startswith("pg_dumpall (PostgreSQL) 15.")
    assert not {"row_counts", "row_counts_absent", "database"} & set(manifest)
    assert conninfo_to_dict(world.source.dump_dsn)["password"] not in str(manifest)
