"""The daily dump by the real DAG: a night that goes well, the same day again, and the days that one may name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, Ended, manifest_key, object_key, opened
from tests.system.leaks import CommandLines, any_with, files_with, found_in, secrets_of, whole_database

pytestmark = pytest.mark.case("TC-NOM-01")

MARKER = b"sealed evidence of the marker case"
REASON = "the auditor asked for it"
STEPS = ["check_the_source", "stream_dump", "verify_upload", "publish_manifest", "record_success", "back_up_roles"]


@dataclass(frozen=True)
class Night:
    """A run that published the day, a second run of the same day, and what there was after each."""

    world: AirflowWorld
    first: Ended
    first_tasks: dict[str, tuple[str, int]]
    state_after_first: tuple[Any, ...]
    second: Ended
    command_lines: set[bytes]

    @property
    def row(self) -> dict[str, Any]:
        return self.world.row()

    @property
    def manifest(self) -> dict[str, Any]:
        return json.loads(self.world.read(manifest_key(self.row["day"])))


def lasting_state(world: AirflowWorld) -> tuple[Any, ...]:
    rows = world.sql("SELECT * FROM pv_backup.backup_executions ORDER BY id")
    return world.versions(), rows, world.outcomes(), world.outcomes("globals")


@pytest.fixture(scope="module")
def night(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    with opened(stack, tmp_path_factory.mktemp("night")) as world:
        world.fill_source(megabytes=12, marker=MARKER)
        with CommandLines(tmp_path_factory.mktemp("recorded")) as lines:
            first = world.run(conf={"reason": REASON}, cold=True, part_size_mb=5, pg_bin_dir=lines.tools)
        first_tasks, state_after_first = world.tasks(), lasting_state(world)
        yield Night(world, first, first_tasks, state_after_first, world.run(), lines.found)


def test_the_run_succeeds_in_every_task_at_the_first_try(night: Night):
    assert night.first.exit_code == 0, night.first.log
    assert night.first_tasks == dict.fromkeys(["open_the_day", *STEPS], ("success", 1))


@pytest.mark.case("TC-INV-05")
def test_the_row_is_success_with_one_journal_event(night: Night):
    row = night.row

    assert (row["status"], row["replanification_count"]) == ("SUCCESS", 0)
    assert night.world.outcomes() == [(str(row["backup_id"]), "SUCCESS")]
    assert [outcome for _, outcome in night.world.outcomes("globals")] == ["SUCCESS"]
    assert night.world.alerts() == []


def test_the_audit_trail_says_who_started_it_and_why(night: Night):
    (started,) = [event for event in night.world.audit("run_started") if event["backup_id"] == night.row["backup_id"]]

    assert started["details"]["reason"] == REASON
    assert started["details"]["run_id"].startswith("pv_backup_daily_dump/manual__")


def test_object_manifest_and_row_agree(night: Night):
    row, manifest = night.row, night.manifest
    there = night.world.bucket.admin.head_object(Bucket=night.world.bucket.name, Key=row["object_key"])

    assert row["object_key"] == manifest["key"] == object_key(row["day"])
    assert row["size_bytes"] == manifest["size_bytes"] == there["ContentLength"]
    assert row["hash_sha3_256"] == manifest["hash_sha3_256"]
    assert str(row["backup_id"]) == manifest["backup_id"]
    assert row["auth_tag"] == manifest["header_tag"] == there["Metadata"]["auth_tag"]
    assert there["ServerSideEncryption"] == "aws:kms"
    assert manifest["row_counts"] == {"public.gate": 0, "public.payload": 12 * 16}
    assert night.world.open_uploads() == []


def test_the_day_has_its_roles_beside_the_dump_and_nothing_else(night: Night):
    day = night.row["day"]

    assert set(night.world.versions()) == {
        object_key(day),
        manifest_key(day),
        object_key(day, "globals"),
        manifest_key(day, "globals"),
    }


def test_a_second_run_of_the_day_is_skipped_naming_the_backup(night: Night):
    assert night.second.exit_code == 0, night.second.log
    assert night.world.tasks() == {step: ("skipped", tries) for step, (_, tries) in night.world.tasks().items()}
    assert set(night.world.tasks()) == {"open_the_day", *STEPS}
    assert night.second.lines_with("Skipping task", "is SUCCESS as backup", str(night.row["backup_id"]))


def test_a_second_run_of_the_day_changes_nothing(night: Night):
    assert lasting_state(night.world) == night.state_after_first


@pytest.mark.case("TC-INV-02")
def test_no_secret_is_in_anything_that_was_written_or_shown(night: Night):
    world = night.world
    written = {
        "Airflow's metadata database": whole_database(world.metadata_dsn),
        "the journal": whole_database(world.journal.superuser_dsn),
        "the bucket's documents": b"".join(world.read(key) for key in world.versions() if key.endswith(".json")),
    }

    for name, secret in secrets_of(world).items():
        assert files_with(world.folder, secret) == [], name
        assert [where for where, text in written.items() if found_in(text, secret)] == [], name
        assert any_with(night.command_lines, secret) == [], name


@pytest.mark.case("TC-INV-02")
def test_the_search_finds_what_may_be_seen(night: Night):
    """The proof that the search above looks where the secrets would be."""
    world, backup_id = night.world, str(night.row["backup_id"]).encode()

    assert {path.name for path in files_with(world.folder, backup_id)} == {"run-1.log", "run-2.log"}
    assert found_in(whole_database(world.metadata_dsn), backup_id)
    assert found_in(whole_database(world.journal.superuser_dsn), night.row["wrapped_dek"].encode())
    assert any_with(night.command_lines, b"--format=custom")
    assert any_with(night.command_lines, b"--roles-only")


@pytest.mark.case("TC-INV-01")
def test_no_file_of_the_run_holds_a_piece_of_the_dump(night: Night):
    assert files_with(night.world.folder, MARKER) == []


@pytest.mark.case("TC-NEG-05")
def test_any_other_day_is_refused_before_anything_is_written(world: AirflowWorld):
    ended = world.run(conf={"day": "2020-01-01"})

    assert ended.exit_code == 1
    assert ended.lines_with("FAILED_FORMAT", "2020-01-01")
    assert world.sql("SELECT * FROM pv_backup.backup_executions") == []
    assert world.versions() == {}
    assert world.tasks()["open_the_day"] == ("failed", 1)
