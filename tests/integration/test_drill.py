"""A drill by the DAG's own tasks: proof that verifies offline, or an incident that names what failed (SPEC F4)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from pv_backup.services.artefacts import manifest_key, wal_object_key
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import FormatRejected, TargetAhead
from pv_backup.services.evidence.document import Result
from pv_backup.services.validation import check_backup_id
from tests.integration.backup_world import DAY
from tests.integration.drill_world import (
    Drill,
    Scene,
    become_drill_worker,
    damage_page,
    damaged,
    drill,
    evidence_of,
    scene,
)
from tests.support.clusters import ClusterTemplate
from tests.support.people import People
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-NOM-04", "TC-ERR-07")

DUMP = "2026/03/backup_20260329.enc"
WEEK = timedelta(days=7)
BASE = "2026/03/basebackup_20260329.enc"


@pytest.fixture(scope="module")
def made(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Scene]:
    with scene(stack, cluster_template) as made:
        yield made


@pytest.fixture
def staging(tmp_path_factory: pytest.TempPathFactory, open_path, monkeypatch):
    """The staging area of a drill, looked at afterwards."""
    monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(open_path))
    yield open_path
    assert list(open_path.iterdir()) == []


@pytest.fixture
def worker(made: Scene, staging, people: People, monkeypatch) -> Scene:
    become_drill_worker(monkeypatch, made)
    return made


def alerts(people: People) -> list[str]:
    """The codes of what people were alerted of, the evidence that they were sent apart."""
    return [code for code in people.codes if code not in {"DRILL-PASSED", "DRILL-FAILED"}]


def test_both_legs_pass_and_leave_proof(worker: Scene, people: People):
    run = drill()

    assert run.errors == {}
    evidence = evidence_of(worker)
    logical, physical = evidence.legs
    assert (evidence.verdict, evidence.target, evidence.failures) == ("PASSED", "latest", [])
    assert [used.key for used in logical.artefacts] == ["2026/03/globals_20260329.enc", DUMP]
    assert [used.key for used in physical.artefacts] == [BASE]
    assert logical.row_counts == {"public.filing": 2, "public.piece": 3}
    assert physical.row_counts == {"public.filing": 2, "public.piece": 6}
    assert physical.wal_files
    assert {check.result for leg in evidence.legs for check in leg.checks} == {Result.PASSED}
    names = {check.name for check in logical.checks}
    assert {f"SHA3-256 of {DUMP}", "psql", "pg_restore"} <= names
    steps = [check.name for check in physical.checks][:4]
    assert steps == [f"SHA3-256 of {BASE}", "tar", "pg_verifybackup", "recovery"]
    assert {"row_counts", "pg_amcheck"} <= {name.partition(" ")[0] for name in names}
    assert any(name.startswith("contract/") for name in names)
    for leg in evidence.legs:
        assert leg.rto_s is not None
        assert leg.rpo_s is not None
        assert leg.rto_s > 0
        assert leg.rpo_s > 0
    assert evidence.rto_s == physical.rto_s
    check_backup_id(evidence.drill_id)
    assert alerts(people) == []


def test_a_second_in_between_is_restored_to_the_row_by_both_legs(worker: Scene):
    run = drill(worker.moments[5])

    assert run.errors == {}
    logical, physical = evidence_of(worker).legs
    assert (logical.row_counts, physical.row_counts) == (
        {"public.filing": 2, "public.piece": 3},
        {"public.filing": 2, "public.piece": 5},
    )


def test_the_evidence_is_delivered_and_kept(worker: Scene, people: People):
    run = drill(leg="physical")

    assert sorted(run.conclusion["delivered"]) == ["bucket", "mail", "webhook"]
    document = worker.documents()[-1]
    (key,) = [key for key in worker.world.bucket.keys() if run.conclusion["drill_id"] in key and key.endswith(".json")]  # noqa: SIM118
    assert worker.world.bucket.body(key).decode() == document


def test_one_leg_alone_can_be_asked_for(worker: Scene):
    run = drill(leg="logical")

    assert [leg.leg for leg in evidence_of(worker).legs] == ["logical"]
    assert type(run.errors.pop("restore_the_cluster")).__name__ == "AirflowSkipException"
    assert run.errors == {}


class TestRefusedBeforeAnythingStarts:
    def refused(self, made: Scene, target: datetime | str) -> Exception:
        before = len(made.incidents()), len(made.documents())
        run = drill(target)
        assert set(run.errors) == {"choose_the_target", "record_the_evidence"}
        assert getattr(run.errors["record_the_evidence"], "told", False)
        assert (len(made.incidents()), len(made.documents())) == before
        return run.errors["choose_the_target"]

    def test_a_target_past_the_last_shipped_commit(self, worker: Scene, people: People):
        error = self.refused(worker, datetime.now(UTC) - timedelta(seconds=0.5))

        assert isinstance(error, TargetAhead)
        assert "the last shipped commit was made at" in error.what
        assert alerts(people) == [error.code]

    def test_a_target_in_the_future(self, worker: Scene):
        assert isinstance(self.refused(worker, datetime.now(UTC) + timedelta(hours=1)), TargetAhead)

    def test_a_target_without_a_zone(self, worker: Scene):
        assert isinstance(self.refused(worker, "2026-11-22T03:15:00"), FormatRejected)


class TestFailures:
    """Each ends in its own named incident, tells people once, and none is a green drill."""

    def failed(self, made: Scene, people: People, target: datetime | str = "latest", leg: str = "both") -> dict:
        before = made.incidents()
        run = drill(target, leg=leg)
        assert type(run.errors["demand_the_proof"]).__name__ == "DrillFailed"
        assert alerts(people) == ["ERR-47-07"]
        (incident,) = made.incidents()[len(before) :]
        assert incident["closed_at"] is None
        assert str(incident["incident_id"]) == run.conclusion["incident_id"]
        evidence = evidence_of(made)
        assert (evidence.drill_id, evidence.verdict) == (run.conclusion["drill_id"], "FAILED")
        assert evidence.failures[0].code == incident["code"]
        return incident

    def test_a_damaged_dump(self, worker: Scene, people: People):
        with damaged(worker, DUMP):
            incident = self.failed(worker, people, leg="logical")

        assert incident["code"] == "ERR-47-04"
        assert DUMP in incident["reason"]

    def test_a_wrong_key_version(self, worker: Scene, people: People):
        client = worker.stack.vault.client()
        client.secrets.transit.rotate_key(name="pv-backup")
        client.secrets.transit.update_key_configuration(name="pv-backup", min_decryption_version=2)
        try:
            incident = self.failed(worker, people, leg="physical")
        finally:
            client.secrets.transit.update_key_configuration(name="pv-backup", min_decryption_version=1)

        assert incident["code"] == "ERR-47-04"
        assert "version 1 of the key is not available" in incident["reason"]

    def test_a_contract_check_that_returns_rows(self, worker: Scene, people: People, tmp_path, monkeypatch):
        (tmp_path / "no_filing_without_pieces.sql").write_text(
            "-- Each filing has at least one piece.\n"
            "SELECT id FROM filing WHERE id NOT IN (SELECT filing_id FROM piece)\n"
        )
        monkeypatch.setenv("PV_BACKUP_CONTRACT_DIRECTORY", str(tmp_path))

        incident = self.failed(worker, people, leg="logical")

        assert incident["code"] == "CONTRACT"
        assert incident["failed_check"].startswith("contract/no_filing_without_pieces")

    def test_a_target_before_the_first_backup(self, worker: Scene, people: People):
        incident = self.failed(worker, people, worker.before_base - timedelta(minutes=1), leg="physical")

        assert incident["code"] == "REFUSED"
        assert "before" in incident["reason"]

    def test_a_missing_wal_file(self, worker: Scene, people: People):
        bucket, name = worker.world.bucket, worker.needed()[0]
        key = wal_object_key(name)
        body, metadata = bucket.body(key), bucket.head(key)["Metadata"]
        bucket.delete(key)
        try:
            incident = self.failed(worker, people, leg="physical")
        finally:
            bucket.put(key, body, metadata)

        assert incident["code"] == "WAL-GAP"
        assert name in incident["reason"]

    def test_a_corrupted_page(self, worker: Scene, people: People):
        """The source had it when it was copied: the artefact is whole, PostgreSQL's checksums are off."""
        made = worker
        damage_page(made, table="piece")
        attempt = made.world.backup.back_up(BasebackupSource(server=made.world.cluster.server), day=DAY + WEEK)
        try:
            incident = self.failed(made, people, leg="physical")
        finally:
            made.world.bucket.delete(manifest_key(attempt.object_key))

        assert (incident["code"], incident["failed_check"]) == ("CORRUPTION", "pg_amcheck")
        # It may crash the server; then the table is named at which the other of pg_amcheck's two jobs was.
        assert "evidence.public.piece" in incident["reason"] or "the server died of what it read" in incident["reason"]

    def test_a_full_staging_disk(self, worker: Scene, people: People, disk, monkeypatch):
        monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(disk(8)))

        incident = self.failed(worker, people, leg="physical")

        assert incident["code"] == "STAGING-FULL"
        assert "PV_BACKUP_STAGING_DIRECTORY" in incident["next_step"]

    def test_a_staging_disk_without_room_for_a_look_at_the_wal(self, worker: Scene, people: People, disk, monkeypatch):
        monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(disk(0.5)))

        incident = self.failed(worker, people, worker.moments[5], leg="physical")

        assert incident["code"] == "STAGING-FULL"

    def test_a_worker_without_postgresqls_programs(self, worker: Scene, people: People, tmp_path, monkeypatch):
        monkeypatch.setenv("PV_BACKUP_PG_BIN_DIR", str(tmp_path))

        incident = self.failed(worker, people, leg="logical")

        assert incident["code"] == "CONFIGURATION"
        assert "initdb is not on this worker" in incident["reason"]

    def test_a_failed_drill_stays_failed_when_its_tasks_are_cleared(self, worker: Scene, people: People):
        with damaged(worker, DUMP):
            run = drill(leg="logical")
        documents, incidents = worker.documents(), worker.incidents()

        for task_id, needs in (
            ("restore_the_dump", ("order", "choose_the_target")),
            ("record_the_evidence", None),
            ("demand_the_proof", ("conclusion", "record_the_evidence")),
        ):
            run.errors.pop(task_id, None)
            run.run_task(task_id, needs)

        assert "restore_the_dump" not in run.errors
        assert type(run.errors["demand_the_proof"]).__name__ == "DrillFailed"
        assert run.conclusion["verdict"] == "FAILED"
        assert (worker.documents(), worker.incidents()) == (documents, incidents)
        assert "DRILL-PASSED" not in people.codes

    def test_a_record_that_was_marked_as_done_is_no_proof(self, worker: Scene, people: People):
        run = Drill({"target": "latest", "leg": "logical"}, {("record_the_evidence", "return_value"): None})

        run.run_task("demand_the_proof", ("conclusion", "record_the_evidence"))

        assert type(run.errors["demand_the_proof"]).__name__ == "DrillFailed"
        assert "marked as done by hand" in str(run.errors["demand_the_proof"])

    def test_a_leg_whose_worker_was_killed(self, worker: Scene, people: People, monkeypatch):
        run = Drill({"target": "latest", "leg": "logical"})
        run.run_task("choose_the_target", None)
        run.run_task("record_the_evidence", None)

        assert run.conclusion["verdict"] == "FAILED"
        assert worker.incidents()[-1]["code"] == "ERR-47-08"

    def test_evidence_that_cannot_be_signed_proves_nothing(self, worker: Scene, people: People):
        run = Drill({"target": "latest", "leg": "logical"})
        run.run_task("choose_the_target", None)
        run.run_task("restore_the_dump", ("order", "choose_the_target"))
        worker.stack.vault.seal()

        run.run_task("record_the_evidence", None)

        assert run.conclusion["verdict"] == "FAILED"
        incident = worker.incidents()[-1]
        assert (incident["code"], incident["failed_check"]) == ("ERR-47-02", "signature")
