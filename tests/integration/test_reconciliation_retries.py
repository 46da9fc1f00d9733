"""A task that waits for its next try keeps its row: 60 s of delay and 60 s of handover are 120 s by its own word."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest

from pv_backup.operators.check_source import CheckSourceOperator
from pv_backup.operators.open_day import OpenDayOperator
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import PvBackupError, RetryableError, StoreUnavailable
from tests.integration.backup_world import DAY
from tests.integration.reconciliation_world import Scene, reconciliation_scene
from tests.integration.worker import context_of

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")


@pytest.fixture
def scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) -> Iterator[Scene]:
    with reconciliation_scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) as scene:
        yield scene


@pytest.fixture(autouse=True)
def _slow_retries(scene: Scene, monkeypatch):
    for name, value in {"DELAY_INITIAL_MS": 60_000, "HANDOVER_S": 60, "LEASE_S": 15}.items():
        monkeypatch.setenv(f"PV_BACKUP_{name}", str(value))


def outlast_a_handover(scene: Scene, *, since: float) -> None:
    """See how long the row is held, let the time of a handover go by, and reconcile.

    :param since: a moment before the failure, by the monotonic clock.
    """
    (held,) = scene.world.journal.sql(
        "SELECT extract(epoch FROM lease_expires_at - clock_timestamp())::float AS left_s"
        " FROM pv_backup.backup_executions"
    )
    assert 120 - (time.monotonic() - since) <= held["left_s"] <= 120
    scene.world.journal.sql(
        "UPDATE pv_backup.backup_executions"
        " SET lease_expires_at = least(lease_expires_at, clock_timestamp() + interval '59 seconds')"
    )
    assert scene.reconcile() is None
    assert list(scene.rows().values()) == ["RUNNING"]


def test_a_step_that_failed_keeps_its_row(scene: Scene, source_db, monkeypatch):
    attempt = scene.world.open()
    task = CheckSourceOperator(task_id="check_the_source", backup_id=attempt.backup_id)
    here = os.environ["AIRFLOW_CONN_PV_BACKUP_SOURCE"]
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here.replace(source_db.name, "renamed"))
    began = time.monotonic()
    with pytest.raises(PvBackupError) as failed:
        task.execute(context_of(task, max_tries=3))
    assert isinstance(failed.value, RetryableError)
    outlast_a_handover(scene, since=began)
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here)
    task.execute(context_of(task, max_tries=3))


def test_an_opening_that_failed_half_way_keeps_its_row(scene: Scene):
    task = OpenDayOperator(task_id="open_the_day", artefact_type=ArtefactType.PG_DUMP)
    context = context_of(task, params={"day": "today"}, run_id="the same run", max_tries=3)
    scene.world.stack.s3.kill()
    began = time.monotonic()
    with pytest.raises(StoreUnavailable):
        task.execute(context)
    scene.world.stack.s3.start()
    outlast_a_handover(scene, since=began)
    (row,) = scene.world.journal.sql("SELECT backup_id::text FROM pv_backup.backup_executions")
    assert task.execute(context) == row["backup_id"]


def test_a_step_that_failed_for_good_keeps_nothing(scene: Scene, source_db, monkeypatch):
    attempt = scene.world.open()
    here = os.environ["AIRFLOW_CONN_PV_BACKUP_SOURCE"]
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SOURCE", here.replace(source_db.name, "renamed"))
    task = CheckSourceOperator(task_id="check_the_source", backup_id=attempt.backup_id)
    with pytest.raises(PvBackupError):
        task.execute(context_of(task, max_tries=0))
    assert scene.rows() == {("pg_dump", DAY): "FAILED"}
