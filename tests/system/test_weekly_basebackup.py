"""The weekly base backup by the real DAG: a Sunday that goes well."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.clusters import ClusterTemplate
from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, Ended, manifest_key, object_key, opened
from tests.system.leaks import CommandLines, any_with, files_with, found_in, secrets_of, whole_database

pytestmark = pytest.mark.case("TC-NOM-03")

DAG_ID = "pv_backup_weekly_basebackup"
MARKER = b"sealed evidence of the whole cluster"
STEPS = ["open_the_day", "check_the_cluster", "stream_basebackup", "verify_upload", "publish_manifest"]


@dataclass(frozen=True)
class Sunday:
    """A run that published the day, and every command line that it showed."""

    world: AirflowWorld
    ended: Ended
    command_lines: set[bytes]

    @property
    def row(self) -> dict[str, Any]:
        return self.world.row("basebackup")

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads(self.world.read(manifest_key(self.row["day"], "basebackup")))


@pytest.fixture(scope="module")
def sunday(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Sunday]:
    cluster = cluster_template.copied()
    try:
        with opened(stack, tmp_path_factory.mktemp("sunday"), cluster=cluster) as world:
            world.fill_source(megabytes=8, marker=MARKER)
            with CommandLines(tmp_path_factory.mktemp("recorded")) as lines:
                ended = world.run(DAG_ID, part_size_mb=5, pg_bin_dir=lines.tools)
            yield Sunday(world, ended, lines.found)
    finally:
        cluster.discard()


@pytest.mark.case("TC-INV-05")
def test_the_run_succeeds_in_every_task_at_the_first_try_with_one_journal_event(sunday: Sunday):
    assert sunday.ended.exit_code == 0, sunday.ended.log
    assert sunday.world.tasks() == dict.fromkeys([*STEPS, "record_success"], ("success", 1))
    assert sunday.row["status"] == "SUCCESS"
    assert sunday.world.outcomes("basebackup") == [(str(sunday.row["backup_id"]), "SUCCESS")]
    assert sunday.world.alerts() == []


def test_the_bucket_holds_object_and_manifest_under_the_days_own_key(sunday: Sunday):
    day = sunday.row["day"]

    assert set(sunday.world.versions()) == {object_key(day, "basebackup"), manifest_key(day, "basebackup")}
    assert sunday.world.open_uploads() == []
    assert sunday.manifest["backup_id"] == str(sunday.row["backup_id"])
    assert sunday.manifest["hash_sha3_256"] == sunday.row["hash_sha3_256"]
    assert sunday.manifest["wal_files"]


@pytest.mark.case("TC-INV-01")
def test_no_file_of_the_run_holds_a_piece_of_the_cluster(sunday: Sunday):
    assert files_with(sunday.world.folder, MARKER) == []


@pytest.mark.case("TC-INV-02")
def test_no_secret_is_in_anything_that_was_written_or_shown(sunday: Sunday):
    world = sunday.world
    written = {
        "Airflow's metadata database": whole_database(world.metadata_dsn),
        "the journal": whole_database(world.journal.superuser_dsn),
        "the manifest": json.dumps(sunday.manifest).encode(),
    }

    assert any_with(sunday.command_lines, b"--wal-method=fetch")
    for name, secret in secrets_of(world).items():
        assert files_with(world.folder, secret) == [], name
        assert [where for where, text in written.items() if found_in(text, secret)] == [], name
        assert any_with(sunday.command_lines, secret) == [], name
