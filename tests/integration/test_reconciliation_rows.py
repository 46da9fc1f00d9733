"""Reconciliation of the journal's rows: what nobody works on is settled and told once, what lives is left alone."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from pv_backup.operators.reconcile import DAG_OF
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import DayClosed, TransitionRefused
from pv_backup.services.exporting import ArtefactExport
from pv_backup.services.left_behind import LeftBehind, LeftRow
from pv_backup.services.manifest import published
from pv_backup.services.reconciliation_run import ReconciliationReport
from tests.dags.dag_world import dags
from tests.integration.backup_world import DAY, KEY, MEBIBYTE
from tests.integration.reconciliation_world import Scene, reconciliation_scene
from tests.integration.test_lost_leases import keeper_of_a_second
from tests.integration.wal_world import wait_until

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")

DUMP = "pv_backup_daily_dump"


@pytest.fixture
def scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) -> Iterator[Scene]:
    with reconciliation_scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) as scene:
        yield scene


def test_a_dead_run_is_failed_with_its_upload_and_told_once(scene: Scene, caplog):
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
def test_what_a_dead_run_had_published_becomes_a_success_and_closes_the_days_incidents(scene: Scene):
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
def test_what_does_not_read_back_is_never_a_success(scene: Scene):
    backup_id = scene.dead_after_publishing()
    body = scene.world.bucket.body(KEY)
    scene.world.bucket.overwrite(KEY, body[:-1] + bytes([body[-1] ^ 1]))
    assert scene.reconcile() is None
    assert scene.settlements() == [(backup_id, "FAILED")]
    assert scene.alerts() == [("alert", f"{DUMP}/{DAY}/ERR-47-04")]
    assert scene.world.bucket.mark(KEY)["backup_id"] == backup_id
    assert published(scene.world.bench.store, KEY) is None


def test_each_flow_has_a_dag_in_whose_name_people_are_told():
    assert set(DAG_OF.values()) <= {dag.dag_id for dag in dags()}
    assert set(DAG_OF) == set(ArtefactType) - {ArtefactType.WAL}


def test_a_real_run_at_work_is_left_alone(scene: Scene):
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


def looked(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What each look for dead runs found from now on: their backup_ids."""
    looks: list[list[str]] = []
    look = LeftBehind.dead_runs

    def dead_runs(left_behind: LeftBehind) -> list[LeftRow]:
        found = look(left_behind)
        looks.append([row.backup_id for row in found])
        return found

    monkeypatch.setattr(LeftBehind, "dead_runs", dead_runs)
    return looks


def test_a_run_whose_journal_was_away_for_long_may_renew_its_lease_after_all(scene: Scene, monkeypatch):
    held, keeper = keeper_of_a_second(scene.world, lease_s=6)
    looks, reports = looked(monkeypatch), []

    def a_round_sees_it_dead() -> bool:
        # Between these two, the keeper may renew the lease: then the round saw nothing, and there is another one.
        scene.world.journal.expire_lease()
        reports.append(scene.round(second_look_s=6))
        return any(looks)

    def come_back() -> None:
        wait_until(a_round_sees_it_dead, meaning="seen as dead")

    source = scene.world.watched(come_back, after_bytes=1)
    with keeper:
        ArtefactExport(bench=scene.world.bench, attempt=held, source=source, keeper=keeper).run()
    assert looks[-2:] == [[held.backup_id], []]
    assert reports == [ReconciliationReport()] * len(reports)
    scene.world.verify(held)


@pytest.mark.case("TC-INV-07")
def test_a_row_that_no_run_takes_is_failed_when_its_time_is_over_and_not_before(scene: Scene):
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
def test_a_row_that_was_taken_meanwhile_is_not_failed(scene: Scene):
    attempt = scene.world.open()
    with pytest.raises(TransitionRefused, match="from RUNNING to FAILED"):
        scene.world.bench.machine.fail(
            attempt.backup_id, error_code="ERR-47-08", error_text="late", by_reconciliation=True
        )
    assert scene.rows() == {("pg_dump", DAY): "RUNNING"}


def test_two_rounds_at_once_settle_a_row_once(scene: Scene):
    backup_id = scene.dead_after_publishing()
    with ThreadPoolExecutor(2) as pool:
        reports = [job.result(timeout=60) for job in [pool.submit(scene.round) for _ in range(2)]]
    assert [report.problems for report in reports] == [[], []]
    assert [name for report in reports for name in report.succeeded] == [f"pg_dump/{DAY}"]
    assert scene.settlements() == [(backup_id, "SUCCESS")]
    assert scene.rows() == {("pg_dump", DAY): "SUCCESS"}
