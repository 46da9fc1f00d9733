"""A cluster with extra tablespaces: one artefact like any other, and in clear no longer than it may be."""

from __future__ import annotations

import time

import pytest

from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import ExportFailed, UploadFailed
from pv_backup.services.manifest import Manifest
from tests.integration.backup_world import WatchedBasebackup, backup_world
from tests.integration.test_basebackup import KEY, kill_pg_basebackup, restored
from tests.support.processes import children_running
from tests.support.restored_server import RestoredServer

pytestmark = pytest.mark.case("TC-NOM-03", "TC-INV-01")


@pytest.fixture(scope="module")
def cluster(cluster_template):
    """Two tablespaces with a table each, beside one in the default tablespace."""
    cluster = cluster_template.copied()
    for name in ("archive", "scans"):
        cluster.add_tablespace(name)
        cluster.sql(f"CREATE TABLE in_{name} TABLESPACE {name} AS SELECT generate_series(1, 50000) AS n")
    cluster.sql("CREATE TABLE in_default AS SELECT generate_series(1, 500) AS n")
    yield cluster
    cluster.discard()


@pytest.fixture
def world(stack, cluster, journal_db, bucket):
    with backup_world(stack, cluster, journal_db, bucket, part_size_mb=5) as world:
        yield world


@pytest.fixture
def staging(tmp_path):
    folder = tmp_path / "staging"
    folder.mkdir()
    return folder


def test_the_tablespaces_come_back_in_place(world, cluster, staging, open_path):
    world.back_up(BasebackupSource(server=world.server, staging=staging))

    assert list(staging.iterdir()) == []
    manifest = Manifest.model_validate(world.bucket.manifest(KEY))
    locations = cluster.sql(
        "SELECT oid::text, pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname NOT LIKE 'pg\\_%'"
    )
    assert manifest.tablespaces == dict(locations)
    data = restored(world, open_path)
    assert sorted(path.name for path in (data / "pg_tblspc").iterdir()) == sorted(manifest.tablespaces)
    (data / "tablespace_map").unlink()
    # PostgreSQL demands links there while it recovers, unless it is told otherwise.
    recovered = RestoredServer(data, settings={"allow_in_place_tablespaces": "on"})
    for server in (recovered, RestoredServer(data)):
        with server:
            for table, rows in {"in_archive": 50000, "in_scans": 50000, "in_default": 500}.items():
                assert server.sql(f"SELECT count(*), sum(n) FROM {table}") == [(rows, rows * (rows + 1) // 2)]
            server.sql("INSERT INTO in_scans VALUES (0); CHECKPOINT; DELETE FROM in_scans WHERE n = 0")


@pytest.mark.case("TC-ERR-01")
def test_an_upload_that_does_not_follow_the_export_in_time_fails_by_name(world, staging):
    def wait_for_the_purge():
        (folder,) = staging.iterdir()
        deadline = time.monotonic() + 60
        while folder.exists() and time.monotonic() < deadline:
            time.sleep(0.02)

    source = WatchedBasebackup(server=world.server, staging=staging, ttl_s=0.3, incident=wait_for_the_purge)
    with pytest.raises(ExportFailed, match=r"was purged 0\.3 s after the export's end \(INV-47-01\)"):
        world.export(world.open(artefact_type="basebackup"), source)
    assert world.bucket.is_untouched()
    assert list(staging.iterdir()) == []


@pytest.mark.case("TC-ERR-01")
def test_a_pg_basebackup_killed_while_staging_leaves_neither_object_nor_file(world, staging):
    source = WatchedBasebackup(server=world.server, staging=staging, incident=kill_pg_basebackup)
    with pytest.raises(ExportFailed, match="pg_basebackup was ended by signal 9"):
        world.export(world.open(artefact_type="basebackup"), source)
    assert world.bucket.is_untouched()
    assert list(staging.iterdir()) == []
    assert children_running("staging_guard") == []


@pytest.mark.case("TC-ERR-03")
def test_an_upload_that_fails_purges_what_is_staged(world, staging):
    seen = []

    def stop_s3():
        seen.extend(staging.glob("*/*.tar"))
        world.stack.s3.kill()

    world = world.with_bench(store=world.store_at(world.stack.s3.endpoint, timeout_s=1))
    source = WatchedBasebackup(server=world.server, staging=staging, incident=stop_s3)
    with pytest.raises(UploadFailed):
        world.export(world.open(artefact_type="basebackup"), source)
    assert list(staging.iterdir()) == []
    assert seen
