"""Reconciliation by the DAG's own task: what nobody works on is settled and told once, what lives is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from pv_backup.operators.check_source import CheckSourceOperator
from pv_backup.operators.open_day import OpenDayOperator
from pv_backup.operators.reconcile import DAG_OF
from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.errors import (
    DayClosed,
    JournalUnavailable,
    PvBackupError,
    RetryableError,
    StoreUnavailable,
    TransitionRefused,
)
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.left_behind import LeftBehind
from pv_backup.services.manifest import published
from pv_backup.services.orphan_uploads import abort_orphans
from pv_backup.services.reconciliation_run import ReconciliationReport, ReconciliationRun
from tests.dags.dag_world import dags
from tests.integration.backup_world import DAY, KEY, MEBIBYTE, BackupWorld, backup_world
from tests.integration.test_lost_leases import keeper_of_a_second
from tests.integration.worker import become_worker, context_of, run_task

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")

DUMP, BASEBACKUP = "pv_backup_daily_dump", "pv_backup_weekly_basebackup"
OTHER_DAY = DAY - timedelta(days=1)
ROOT = Path(__file__).resolve().parents[2]
# Stages a file under a guard, says where, and waits to be killed.
STAGER = """
import sys, time
from pathlib import Path
from pv_backup.services.staging import StagingDirectory
with StagingDirectory(base=Path(sys.argv[1])) as staging:
    (staging.path / "base.tar").write_bytes(b"evidence")
    print(staging._guard.pid, staging.path, flush=True)
    time.sleep(60)
"""


@dataclass(frozen=True)
class Scene:
    """A world in which something was left behind, and the staging directory of its worker."""

    world: BackupWorld
    staging: Path

    def reconcile(self) -> Exception | None:
        return run_task("pv_backup_reconciliation", "settle_what_is_left")

    def round(self, *, second_look_s: float = 0) -> ReconciliationReport:
        """A round without Airflow."""
        return ReconciliationRun(
            bench=self.world.bench,
            left_behind=self.left_behind,
            tell=lambda finding: None,
            well_again=lambda row: None,
            staging=self.staging,
            second_look_s=second_look_s,
        ).run()

    @property
    def left_behind(self) -> LeftBehind:
        return LeftBehind(self.world.journal.sessions)

    def rows(self) -> dict[tuple[str, date], str]:
        found = self.world.journal.sql("SELECT type, day, status FROM pv_backup.backup_executions")
        return {(row["type"], row["day"]): row["status"] for row in found}

    def alerts(self) -> list[tuple[str, str]]:
        """(event, incident) of alerts and their settlements, oldest first."""
        found = self.world.journal.sql(
            "SELECT event_type, details->>'incident' AS incident FROM pv_backup.backup_audit_events"
            " WHERE event_type IN ('alert', 'alert_settled') ORDER BY id"
        )
        return [(event["event_type"], event["incident"]) for event in found]

    def settlements(self) -> list[tuple[str, str]]:
        """(backup_id, outcome) as the audit has them, oldest first."""
        found = self.world.journal.sql(
            "SELECT backup_id::text, details->>'outcome' AS outcome FROM pv_backup.backup_audit_events"
            " WHERE event_type = 'settled' ORDER BY id"
        )
        return [(event["backup_id"], event["outcome"]) for event in found]

    def dead(self, *, artefact_type: ArtefactType = ArtefactType.PG_DUMP, day: date = DAY) -> str:
        """A run that died in the middle of its upload; its backup_id."""
        attempt = self.world.open(artefact_type=artefact_type, day=day, run_id=f"the dead run of {artefact_type}")
        self.world.bucket.begin_upload(attempt.object_key)
        self.world.journal.expire_lease()
        return attempt.backup_id

    def dead_after_publishing(self) -> str:
        attempt = self.world.exported()
        self.world.verify(attempt)
        self.world.publish(attempt)
        self.world.journal.expire_lease()
        return attempt.backup_id


@pytest.fixture
def scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) -> Iterator[Scene]:
    become_worker(
        monkeypatch, stack, source_dsn=source_db.dump_dsn, journal_dsn=journal_db.service_dsn, bucket=bucket.name
    )
    staging = tmp_path / "staging"
    staging.mkdir()
    monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(staging))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("pv_backup.operators.reconcile._SECOND_LOOK_AT_MOST_S", 0)
    monkeypatch.setattr("pv_backup.services.object_store._SHORT_CALL_PATIENCE_S", 0.5)
    with backup_world(stack, source_db, journal_db, bucket, part_size_mb=5) as world:
        yield Scene(world, staging)


class TestRows:
    def test_a_dead_run_is_failed_with_its_upload_and_told_once(self, scene: Scene, caplog):
        backup_id = scene.dead()
        assert scene.reconcile() is None
        assert scene.rows() == {("pg_dump", DAY): "FAILED"}
        event = scene.world.journal.journal.event_of(backup_id)
        assert event is not None
        assert (event.outcome, event.error_code) == ("FAILED", "ERR-47-08")
        assert scene.world.bucket.is_untouched()
        assert scene.settlements() == [(backup_id, "FAILED")]
        assert "settled as FAILED: the worker of pg_dump 2026-03-29 died" in caplog.text
        assert scene.reconcile() is None
        assert scene.alerts() == [("alert", f"{DUMP}/{DAY}/ERR-47-08")]
        assert len(scene.settlements()) == 1

    @pytest.mark.case("TC-INV-04")
    def test_what_a_dead_run_had_published_becomes_a_success_and_closes_the_days_incidents(self, scene: Scene):
        scene.dead()
        assert scene.reconcile() is None
        backup_id = scene.dead_after_publishing()
        assert scene.reconcile() is None
        assert scene.rows() == {("pg_dump", DAY): "SUCCESS"}
        assert scene.settlements()[-1] == (backup_id, "SUCCESS")
        incident = f"{DUMP}/{DAY}/ERR-47-08"
        assert scene.alerts() == [("alert", incident), ("alert_settled", incident)]
        with pytest.raises(DayClosed, match=backup_id):
            scene.world.open(run_id="the next run")

    @pytest.mark.case("TC-INV-04", "TC-NEG-01")
    def test_what_does_not_read_back_is_never_a_success(self, scene: Scene):
        backup_id = scene.dead_after_publishing()
        body = scene.world.bucket.body(KEY)
        scene.world.bucket.overwrite(KEY, body[:-1] + bytes([body[-1] ^ 1]))
        assert scene.reconcile() is None
        assert scene.settlements() == [(backup_id, "FAILED")]
        assert scene.alerts() == [("alert", f"{DUMP}/{DAY}/ERR-47-04")]
        assert scene.world.bucket.mark(KEY)["backup_id"] == backup_id
        assert published(scene.world.bench.store, KEY) is None

    def test_each_flow_has_a_dag_in_whose_name_people_are_told(self):
        assert set(DAG_OF.values()) <= {dag.dag_id for dag in dags()}
        assert set(DAG_OF) == set(ArtefactType) - {ArtefactType.WAL}

    def test_a_real_run_at_work_is_left_alone(self, scene: Scene):
        scene.world.fill(7)
        attempt = scene.world.open()
        found: list[object] = []

        def reconcile() -> None:
            found.extend([scene.round(), scene.world.bucket.open_uploads()])

        scene.world.export(attempt, scene.world.watched(reconcile, after_bytes=12 * MEBIBYTE))
        scene.world.verify(attempt)
        scene.world.publish(attempt)
        scene.world.succeed(attempt)
        assert found == [ReconciliationReport(), [KEY]]

    def test_a_run_whose_journal_was_away_for_long_may_renew_its_lease_after_all(self, scene: Scene):
        held, keeper = keeper_of_a_second(scene.world)
        reports: list[ReconciliationReport] = []

        def come_back() -> None:
            scene.world.journal.expire_lease()
            assert [row.backup_id for row in scene.left_behind.dead_runs()] == [held.backup_id]
            reports.append(scene.round(second_look_s=1))

        source = scene.world.watched(come_back, after_bytes=1)
        with keeper:
            ArtefactExport(bench=scene.world.bench, attempt=held, source=source, keeper=keeper).run()
        assert reports == [ReconciliationReport()]
        scene.world.verify(held)

    @pytest.mark.case("TC-INV-07")
    def test_a_row_that_no_run_takes_is_failed_when_its_time_is_over_and_not_before(self, scene: Scene):
        failed = scene.world.journal.failed()
        waiting = scene.world.bench.machine.schedule_again(failed.backup_id, max_replanification_cycles=3)
        assert scene.reconcile() is None
        assert scene.rows() == {("pg_dump", DAY): "SCHEDULED"}
        timeout = scene.world.bench.settings.scheduled_timeout_s
        scene.world.journal.sql(
            "UPDATE pv_backup.backup_executions SET scheduled_at = clock_timestamp() - make_interval(secs => %s)",
            timeout,
        )
        assert scene.reconcile() is None
        assert scene.rows() == {("pg_dump", DAY): "FAILED"}
        assert scene.settlements() == [(waiting, "FAILED")]
        assert scene.alerts() == [("alert", f"{DUMP}/{DAY}/ERR-47-08")]

    @pytest.mark.case("TC-INV-07", "TC-NEG-06")
    def test_a_row_that_was_taken_meanwhile_is_not_failed(self, scene: Scene):
        attempt = scene.world.open()
        with pytest.raises(TransitionRefused, match="from RUNNING to FAILED"):
            scene.world.bench.machine.fail(
                attempt.backup_id, error_code="ERR-47-08", error_text="late", by_reconciliation=True
            )
        assert scene.rows() == {("pg_dump", DAY): "RUNNING"}

    def test_two_rounds_at_once_settle_a_row_once(self, scene: Scene):
        backup_id = scene.dead_after_publishing()
        with ThreadPoolExecutor(2) as pool:
            reports = [job.result(timeout=60) for job in [pool.submit(scene.round) for _ in range(2)]]
        assert [report.problems for report in reports] == [[], []]
        assert [name for report in reports for name in report.succeeded] == [f"pg_dump/{DAY}"]
        assert scene.settlements() == [(backup_id, "SUCCESS")]
        assert scene.rows() == {("pg_dump", DAY): "SUCCESS"}


class TestOutages:
    def outage(self, scene: Scene, code: str, away: Callable[[], Any], back: Callable[[], Any]) -> None:
        """Two rounds while a server is away are one alert; the next one settles what they could not."""
        before = scene.alerts()
        away()
        errors = [scene.reconcile(), scene.reconcile()]
        back()
        assert [getattr(error, "code", error) for error in errors] == [code, code]
        incident = f"pv_backup_reconciliation/{code}"
        assert scene.alerts()[len(before) :] == [("alert", incident)]
        assert scene.rows() == {("pg_dump", DAY): "RUNNING"}
        assert scene.reconcile() is None
        assert ("alert_settled", incident) in scene.alerts()

    @pytest.mark.case("TC-ERR-02")
    def test_a_sealed_vault_is_told_once_and_the_row_settled_after(self, scene: Scene):
        scene.dead_after_publishing()
        vault = scene.world.stack.vault
        self.outage(scene, "ERR-47-02", vault.seal, vault.start)
        assert scene.rows() == {("pg_dump", DAY): "SUCCESS"}

    @pytest.mark.case("TC-ERR-03")
    def test_an_s3_that_is_away_is_told_once_and_the_row_settled_after(self, scene: Scene):
        backup_id = scene.dead()
        s3 = scene.world.stack.s3
        self.outage(scene, "ERR-47-03", s3.kill, s3.start)
        assert scene.settlements() == [(backup_id, "FAILED")]
        assert scene.world.bucket.open_uploads() == []

    @pytest.mark.case("TC-ERR-06")
    def test_a_journal_that_is_away_is_told_once_by_this_worker(self, scene: Scene, caplog):
        scene.dead()
        postgres = scene.world.stack.postgres
        postgres.stop()
        caplog.clear()
        errors = [scene.reconcile(), scene.reconcile()]
        postgres.start()
        assert [type(error).code for error in errors if error] != []
        assert all(getattr(error, "code", "") == JournalUnavailable.code for error in errors)
        assert caplog.text.count("ALERT critical ERR-47-06") == 1
        assert scene.reconcile() is None
        assert scene.rows() == {("pg_dump", DAY): "FAILED"}

    def test_one_row_that_cannot_be_settled_does_not_hold_up_the_others(self, scene: Scene):
        stuck = scene.dead_after_publishing()
        scene.dead(artefact_type=ArtefactType.BASEBACKUP)
        scene.world.journal.expire_lease()
        scene.world.stack.vault.seal()
        assert getattr(scene.reconcile(), "code", "") == "ERR-47-02"
        assert scene.rows() == {("pg_dump", DAY): "RUNNING", ("basebackup", DAY): "FAILED"}
        assert ("alert", f"{BASEBACKUP}/{DAY}/ERR-47-08") in scene.alerts()
        scene.world.stack.vault.start()
        assert scene.reconcile() is None
        assert scene.settlements()[-1] == (stuck, "SUCCESS")


class TestUploads:
    @pytest.mark.parametrize("kind", [ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP])
    def test_an_upload_of_a_day_that_rests_is_aborted(self, scene: Scene, kind: ArtefactType):
        closed, unknown = object_key_of_day(kind, DAY), object_key_of_day(kind, OTHER_DAY)
        attempt = scene.world.open(artefact_type=kind)
        scene.world.journal.put_in("SUCCESS")
        for key in (closed, closed, unknown):
            scene.world.bucket.begin_upload(key)
        assert attempt.object_key == closed
        assert sorted(scene.round().aborted) == sorted([closed, closed, unknown])
        assert scene.world.bucket.open_uploads() == []
        recorded = scene.world.journal.sql(
            "SELECT details->>'object_key' AS key FROM pv_backup.backup_audit_events"
            " WHERE event_type = 'upload_aborted'"
        )
        assert sorted(event["key"] for event in recorded) == sorted([closed, closed, unknown])

    def test_the_uploads_of_a_live_run_and_of_others_are_left_alone(self, scene: Scene, caplog):
        scene.world.open()
        theirs = ["2026/03/backup_20260230.enc", "wal/readme.enc", "somebody/else's.bin"]
        for key in [KEY, *theirs]:
            scene.world.bucket.begin_upload(key)
        assert scene.round() == ReconciliationReport()
        assert sorted(scene.world.bucket.open_uploads()) == sorted([KEY, *theirs])
        assert all(f"of {key}, no key of ours" in caplog.text for key in theirs)

    def test_an_upload_of_wal_is_aborted_when_nobody_can_be_at_work_on_it(self, scene: Scene, monkeypatch):
        key = "wal/000000010000000000000003.enc"
        scene.world.bucket.begin_upload(key)
        assert scene.round().aborted == []
        monkeypatch.setattr("pv_backup.services.orphan_uploads.WAL_UPLOAD_TAKES_AT_MOST", timedelta(0))
        time.sleep(1.1)  # S3 keeps whole seconds
        store = scene.world.bench.store
        abort = {"attempt": lambda act: act()}
        assert abort_orphans(store, scene.left_behind, timeout_upload_s=60, **abort) == []
        (aborted,) = abort_orphans(store, scene.left_behind, timeout_upload_s=0, **abort)
        assert aborted.key == key
        assert scene.world.bucket.open_uploads() == []

    def test_a_run_that_begins_between_the_two_looks_keeps_its_upload(self, scene: Scene):
        """The listing holds an orphan of the day; then a new run opens the day and its own upload."""
        scene.world.bucket.begin_upload(KEY)

        class AfterARunBegan(LeftBehind):
            def running(self, object_keys):
                scene.world.open()
                scene.world.bucket.begin_upload(KEY)
                return super().running(object_keys)

        asked = AfterARunBegan(scene.world.journal.sessions)
        store = scene.world.bench.store
        assert abort_orphans(store, asked, timeout_upload_s=60, attempt=lambda act: act()) == []
        assert scene.world.bucket.open_uploads() == [KEY, KEY]

    @pytest.mark.soak
    def test_more_uploads_than_one_listing_holds_are_all_aborted(self, scene: Scene):
        for number in range(1100):
            scene.world.bucket.begin_upload(object_key_of_day(ArtefactType.PG_DUMP, DAY - timedelta(days=number)))
        assert len(scene.round().aborted) == 1100
        assert scene.world.bucket.open_uploads() == []


@pytest.mark.case("TC-INV-01")
class TestStaging:
    def staged(self, scene: Scene) -> tuple[subprocess.Popen[str], int, Path]:
        worker = subprocess.Popen(
            [sys.executable, "-c", STAGER, str(scene.staging)],
            env={"PYTHONPATH": str(ROOT / "plugins")},
            stdout=subprocess.PIPE,
            text=True,
        )
        assert worker.stdout is not None
        guard, path = worker.stdout.readline().split()
        return worker, int(guard), Path(path)

    def test_what_worker_and_guard_left_is_purged_and_told_and_a_living_one_is_not(self, scene: Scene):
        alive, _, kept = self.staged(scene)
        dead, guard, left = self.staged(scene)
        os.kill(guard, signal.SIGKILL)
        dead.kill()
        dead.wait()
        try:
            with (left / "base.tar").open("rb") as still_open:
                assert scene.reconcile() is None
                assert os.fstat(still_open.fileno()).st_size == 0
            assert [*scene.staging.iterdir()] == [kept]
            assert (kept / "base.tar").read_bytes() == b"evidence"
            incident = f"pv_backup_reconciliation/STAGING-LEFT/{left.name}"
            assert scene.alerts() == [("alert", incident)]
        finally:
            alive.kill()
            alive.wait()


class TestTasksThatWaitForTheirNextTry:
    """A delay of 60 s and a handover of 60 s: the row is the task's for 120 s, by its own word."""

    @pytest.fixture(autouse=True)
    def _slow_retries(self, scene: Scene, monkeypatch):
        for name, value in {"DELAY_INITIAL_MS": 60_000, "HANDOVER_S": 60, "LEASE_S": 15}.items():
            monkeypatch.setenv(f"PV_BACKUP_{name}", str(value))

    def outlast_a_handover(self, scene: Scene) -> None:
        """See how long the row is held, let the time of a handover go by, and reconcile."""
        (held,) = scene.world.journal.sql(
            "UPDATE pv_backup.backup_executions SET lease_expires_at = lease_expires_at - interval '61 seconds'"
            " RETURNING extract(epoch FROM lease_expires_at - clock_timestamp())::float AS left_s"
        )
        assert 45 < held["left_s"] + 61 - 60 <= 60
        assert scene.reconcile() is None
        assert list(scene.rows().values()) == ["RUNNING"]

    def test_a_step_that_failed_keeps_its_row(self, scene: Scene, source_db, monkeypatch):
        attempt = scene.world.open()
        task = CheckSourceOperator(task_id="check_the_source", backup_id=attempt.backup_id)
        here = os.environ["AIRFLOW_CONN_PV_BACKUP_SOURCE"]
        monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here.replace(source_db.name, "renamed"))
        with pytest.raises(PvBackupError) as failed:
            task.execute(context_of(task, max_tries=3))
        assert isinstance(failed.value, RetryableError)
        self.outlast_a_handover(scene)
        monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here)
        task.execute(context_of(task, max_tries=3))

    def test_an_opening_that_failed_half_way_keeps_its_row(self, scene: Scene):
        task = OpenDayOperator(task_id="open_the_day", artefact_type=ArtefactType.PG_DUMP)
        context = context_of(task, params={"day": "today"}, run_id="the same run", max_tries=3)
        scene.world.stack.s3.kill()
        with pytest.raises(StoreUnavailable):
            task.execute(context)
        scene.world.stack.s3.start()
        self.outlast_a_handover(scene)
        (row,) = scene.world.journal.sql("SELECT backup_id::text FROM pv_backup.backup_executions")
        assert task.execute(context) == row["backup_id"]

    def test_a_step_that_failed_for_good_keeps_nothing(self, scene: Scene, source_db, monkeypatch):
        attempt = scene.world.open()
        here = os.environ["AIRFLOW_CONN_PV_BACKUP_SOURCE"]
        monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here.replace(source_db.name, "renamed"))
        task = CheckSourceOperator(task_id="check_the_source", backup_id=attempt.backup_id)
        with pytest.raises(PvBackupError):
            task.execute(context_of(task, max_tries=0))
        assert scene.rows() == {("pg_dump", DAY): "FAILED"}
