"""What dead workers left in the bucket and on their disk goes; what a living one has there is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from dev.airflow_env import ROOT
from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.left_behind import LeftBehind
from pv_backup.services.orphan_uploads import abort_orphans
from pv_backup.services.reconciliation_run import ReconciliationReport
from tests.integration.backup_world import DAY, KEY
from tests.integration.reconciliation_world import Scene, reconciliation_scene

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")

OTHER_DAY = DAY - timedelta(days=1)
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


@pytest.fixture
def scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) -> Iterator[Scene]:
    with reconciliation_scene(stack, source_db, journal_db, bucket, tmp_path, monkeypatch) as scene:
        yield scene


@pytest.mark.parametrize("kind", [ArtefactType.PG_DUMP, ArtefactType.GLOBALS, ArtefactType.BASEBACKUP])
def test_an_upload_of_a_day_that_rests_is_aborted(scene: Scene, kind: ArtefactType):
    closed, unknown = object_key_of_day(kind, DAY), object_key_of_day(kind, OTHER_DAY)
    attempt = scene.world.open(artefact_type=kind)
    scene.world.journal.put_in("SUCCESS")
    for key in (closed, closed, unknown):
        scene.world.bucket.begin_upload(key)
    assert attempt.object_key == closed
    assert sorted(scene.round().aborted) == sorted([closed, closed, unknown])
    assert scene.world.bucket.open_uploads() == []
    recorded = scene.world.journal.sql(
        "SELECT details->>'object_key' AS key FROM pv_backup.backup_audit_events WHERE event_type = 'upload_aborted'"
    )
    assert sorted(event["key"] for event in recorded) == sorted([closed, closed, unknown])


def test_the_uploads_of_a_live_run_and_of_others_are_left_alone(scene: Scene, caplog):
    scene.world.open()
    theirs = ["2026/03/backup_20260230.enc", "wal/readme.enc", "somebody/else's.bin"]
    for key in [KEY, *theirs]:
        scene.world.bucket.begin_upload(key)
    assert scene.round() == ReconciliationReport()
    assert sorted(scene.world.bucket.open_uploads()) == sorted([KEY, *theirs])
    assert all(f"of {key}, no key of ours" in caplog.text for key in theirs)


def test_an_upload_of_wal_is_aborted_when_nobody_can_be_at_work_on_it(scene: Scene, monkeypatch):
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


def test_a_run_that_begins_between_the_two_looks_keeps_its_upload(scene: Scene):
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
def test_more_uploads_than_one_listing_holds_are_all_aborted(scene: Scene):
    for number in range(1100):
        scene.world.bucket.begin_upload(object_key_of_day(ArtefactType.PG_DUMP, DAY - timedelta(days=number)))
    assert len(scene.round().aborted) == 1100
    assert scene.world.bucket.open_uploads() == []


def staged(scene: Scene) -> tuple[subprocess.Popen[str], int, Path]:
    worker = subprocess.Popen(
        [sys.executable, "-c", STAGER, str(scene.staging)],
        env={"PYTHONPATH": str(ROOT / "plugins")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    guard, path = worker.stdout.readline().split()
    return worker, int(guard), Path(path)


@pytest.mark.case("TC-INV-01")
def test_what_worker_and_guard_left_is_purged_and_told_and_a_living_one_is_not(scene: Scene):
    alive, _, kept = staged(scene)
    dead, guard, left = staged(scene)
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
