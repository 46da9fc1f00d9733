"""A worker that is killed at any step of a dump: reconciliation finds it, settles it right, and the next run succeeds.

Each run is the DAG's own tasks in a process of its own, and the settlement is the DAG's own task (TC-NOM-07).
"""

from __future__ import annotations

import os
import random  # noqa: TID251 - to choose moments, reproducibly; no identifier comes from it
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.loaders import JSONFileLoader

from pv_backup.services.days import day_of
from tests.integration.backup_world import BackupWorld, backup_world
from tests.integration.dump_worker import DUMP, Order, read_once
from tests.integration.killing import Worker, steps_of
from tests.integration.wal_world import wait_until
from tests.integration.worker import become_worker, run_task
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack

pytestmark = pytest.mark.case("TC-NOM-07", "TC-ERR-08")

SEED = 47
# Long, so that reconciliation meets a killed run's lease before it runs out, on a busy machine too.
LEASE_S, HANDOVER_S = 60, 120
SHORTEST_LEASE_S = 15
SECOND_LOOK_S = 5
BETWEEN = "between tasks, after "
# Of the steps within tasks, so many in `make test`; all of them in the soak.
SAMPLE = 3


@dataclass(frozen=True)
class Night:
    """A source, a worker to kill, and who reconciles.

    :ivar log: where the worker's steps are written down.
    :ivar day: the day of all dumps, should midnight come between two.
    """

    world: BackupWorld
    worker: Worker
    log: Path
    day: str

    def order(self, name: str, *, kill_at: int = 0) -> Order:
        self.log.unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if name.startswith(("AIRFLOW_", "PV_BACKUP_"))}
        return Order(steps=str(self.log), kill_at=kill_at, run_id=name, day=self.day, environment=environment)

    def run_through(self, name: str) -> list[str]:
        """A dump that nobody kills, or reconciliation if it has no name; its steps."""
        self.worker.start(self.order(name))
        assert self.worker.end().exit_code == 0, name
        return steps_of(self.log)

    def kill_at(self, number: int, name: str = "killed") -> str:
        """The step at which it was."""
        self.worker.start(self.order(name, kill_at=number))
        assert self.worker.end().exit_code == -signal.SIGKILL
        return steps_of(self.log)[-1]

    def kill_after(self, steps: int, seconds: float) -> str:
        """By steps and not by the clock alone: on a busy machine every moment may be before the first one."""
        pid = self.worker.start(self.order("killed"))
        wait_until(
            lambda: len(steps_of(self.log)) >= steps or not psutil.pid_exists(pid), meaning=f"at work for {steps} steps"
        )
        time.sleep(seconds)
        with suppress(ProcessLookupError):  # a fast machine may have done it all meanwhile
            os.kill(pid, signal.SIGKILL)
        self.worker.end()
        return (steps_of(self.log) or ["nothing yet"])[-1]

    def rows(self) -> list[dict[str, Any]]:
        return self.world.journal.sql(
            "SELECT *, extract(epoch FROM lease_expires_at - clock_timestamp())::float AS left_s"
            " FROM pv_backup.backup_executions"
        )

    def outcomes(self, backup_id: object) -> list[str]:
        events = self.world.journal.sql(
            "SELECT outcome FROM pv_backup.backup_journal_events WHERE backup_id = %s", str(backup_id)
        )
        return [event["outcome"] for event in events]

    def reconcile(self) -> None:
        error = run_task("pv_backup_reconciliation", "settle_what_is_left")
        assert error is None, error

    def told(self, backup_id: str) -> int:
        """How many alerts are about it."""
        events = self.world.journal.audit.events_of(backup_id)
        return len([event for event in events if event.event_type == "alert"])

    def begin_anew(self) -> None:
        """Another day, as far as journal and bucket know."""
        self.world.journal.sql("DELETE FROM pv_backup.backup_executions")
        self.world.bucket.empty()


@pytest.fixture(scope="module")
def worker(_guarded: None) -> Iterator[Worker]:
    with Worker("tests.integration.dump_worker") as worker:
        yield worker


@pytest.fixture
def night(
    stack: TestStack,
    source_db: SourceDatabase,
    journal_db: JournalDatabase,
    bucket: Bucket,
    worker: Worker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Night]:
    become_worker(
        monkeypatch,
        stack,
        source_dsn=source_db.dump_dsn,
        journal_dsn=journal_db.service_dsn,
        bucket=bucket.name,
    )
    monkeypatch.setattr("pv_backup.operators.reconcile._SECOND_LOOK_AT_MOST_S", 0)
    monkeypatch.setattr(JSONFileLoader, "load_file", lambda self, path: read_once(path))
    (tmp_path / "staging").mkdir()
    for name, value in {
        "LEASE_S": LEASE_S,
        "HANDOVER_S": HANDOVER_S,
        "PART_SIZE_MB": 5,
        "STAGING_DIRECTORY": tmp_path / "staging",
    }.items():
        monkeypatch.setenv(f"PV_BACKUP_{name}", str(value))
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield Night(world, worker, tmp_path / "steps", day=day_of(datetime.now(UTC)).isoformat())


@pytest.fixture
def full_night(night: Night) -> Night:
    """One whose dump takes more than one part."""
    night.world.fill(7)
    return night


def settle_and_go_on(night: Night, step: str, where: str) -> str | None:
    """All that must hold after a kill; how the killed attempt ended, None if it had not begun."""
    left = night.rows()
    uploads = night.world.bucket.open_uploads()
    night.reconcile()
    if left and left[0]["status"] == "RUNNING":
        (row,) = left
        bound = HANDOVER_S if step.startswith(BETWEEN) or row["left_s"] > LEASE_S else LEASE_S
        assert 0 < row["left_s"] <= bound, f"{row['left_s']}, {where}"
        assert night.rows()[0]["lease_token"] == row["lease_token"], f"a live run was touched, {where}"
        assert night.world.bucket.open_uploads() == uploads, f"a live run's upload was touched, {where}"
        night.world.journal.expire_lease()
        night.reconcile()
    ended = None
    if left:
        (row,) = night.rows()
        ended = "SUCCESS" if published(night, row) else "FAILED"
        assert row["status"] == ended, where
        assert night.outcomes(row["backup_id"]) == [ended], where
    assert night.world.bucket.open_uploads() == [], where
    if ended != "SUCCESS":
        night.run_through("the next run")
    (last,) = night.rows()
    assert last["status"] == "SUCCESS", where
    assert night.outcomes(last["backup_id"]) == ["SUCCESS"], where
    assert published(night, last), where
    assert last["replanification_count"] == (1 if ended == "FAILED" else 0), where
    return ended


def published(night: Night, row: dict[str, Any]) -> bool:
    """Whether the bucket has the row's attempt, by the administrator's view of it."""
    manifest = night.world.bucket.manifest(row["object_key"])
    return manifest is not None and manifest["backup_id"] == str(row["backup_id"])


def sweep(night: Night, inner: int | None) -> dict[str | None, int]:
    """Kill at each boundary of tasks, and at so many steps within them, None: all; how often each end came."""
    steps = night.run_through("not killed")
    boundaries = [number for number, step in enumerate(steps, 1) if step.startswith(BETWEEN)]
    assert len(boundaries) == len(DUMP) + 1
    within = [number for number in range(1, len(steps) + 1) if number not in boundaries]
    chosen = within if inner is None else random.Random(SEED).sample(within, inner)
    ends: dict[str | None, int] = {}
    for number in sorted([*boundaries, *chosen]):
        night.begin_anew()
        step = night.kill_at(number)
        ended = settle_and_go_on(night, step, f"killed at step {number} of {len(steps)}: {step}")
        ends[ended] = ends.get(ended, 0) + 1
    return ends


@pytest.mark.parametrize("inner", [SAMPLE, pytest.param(None, marks=pytest.mark.soak)], ids=["some", "all"])
def test_a_dump_killed_at_any_step_is_settled_and_made_up_for(full_night: Night, inner: int | None):
    ends = sweep(full_night, inner)

    assert {"SUCCESS", "FAILED"} <= set(ends), ends


@pytest.mark.parametrize("kills", [5, pytest.param(50, marks=pytest.mark.soak)])
def test_dumps_killed_at_random_moments_are_settled_and_made_up_for(full_night: Night, kills: int):
    night = full_night
    moments = random.Random(SEED)
    whole = len(night.run_through("not killed"))
    hit = set()
    for kill in range(kills):
        night.begin_anew()
        # One in each of so many parts of the run, so that few kills meet all of it.
        steps, moment = int(whole * (kill % 5 + moments.random()) / 5), moments.uniform(0, 0.1)
        step = night.kill_after(steps, moment)
        where = f"kill {kill} of seed {SEED}, {moment:.3f} s after {steps} of {whole} steps: {step}"
        hit.add(settle_and_go_on(night, step, where))
    assert "FAILED" in hit, f"no kill of seed {SEED} hit a run at work"


def test_a_dump_killed_in_its_upload_is_settled_as_soon_as_its_lease_has_run_out(full_night: Night, monkeypatch):
    """In real time, with the second look that reconciliation takes; Airflow adds five minutes at most."""
    night = full_night
    monkeypatch.setattr("pv_backup.operators.reconcile._SECOND_LOOK_AT_MOST_S", SECOND_LOOK_S)
    monkeypatch.setenv("PV_BACKUP_LEASE_S", str(SHORTEST_LEASE_S))
    steps = night.run_through("not killed")
    night.begin_anew()
    night.kill_at(next(number for number, step in enumerate(steps, 1) if "PUT sent" in step))
    killed = time.monotonic()
    (row,) = night.rows()
    assert row["left_s"] <= SHORTEST_LEASE_S
    assert night.world.bucket.open_uploads() == [row["object_key"]]
    while night.rows()[0]["status"] == "RUNNING":
        assert time.monotonic() - killed < SHORTEST_LEASE_S + SECOND_LOOK_S + 60
        night.reconcile()
        time.sleep(0.5)
    assert time.monotonic() - killed >= row["left_s"]
    assert night.rows()[0]["status"] == "FAILED"
    assert night.world.bucket.open_uploads() == []


@pytest.mark.parametrize("publishes", [False, True], ids=["half an upload", "a published backup"])
@pytest.mark.parametrize("chosen", [SAMPLE, pytest.param(None, marks=pytest.mark.soak)], ids=["some", "all"])
def test_reconciliation_killed_at_any_step_is_finished_by_the_next(night: Night, publishes: bool, chosen: int | None):
    leave_dead_run(night, publishes=publishes)
    steps = night.run_through("")
    numbers = [*range(1, len(steps) + 1)]
    for number in numbers if chosen is None else random.Random(SEED).sample(numbers, chosen):
        night.begin_anew()
        backup_id = leave_dead_run(night, publishes=publishes)
        step = night.kill_at(number, name="")
        where = f"killed at step {number} of {len(steps)}: {step}"
        (row,) = night.rows()
        if row["status"] == "RUNNING":
            assert row["left_s"] <= LEASE_S, where
            night.world.journal.expire_lease()
        night.reconcile()
        ended = "SUCCESS" if publishes else "FAILED"
        assert [row["status"] for row in night.rows()] == night.outcomes(backup_id) == [ended], where
        assert [event.event_type for event in night.world.journal.audit.events_of(backup_id)].count("settled") == 1
        assert night.world.bucket.open_uploads() == [], where
        assert night.told(backup_id) == (0 if publishes else 1), where


def leave_dead_run(night: Night, *, publishes: bool) -> str:
    """A run that died in its upload or after its publication; its backup_id. What was told before is over."""
    night.world.journal.sql(
        "INSERT INTO pv_backup.backup_audit_events (event_type, details) SELECT DISTINCT 'alert_settled',"
        " jsonb_build_object('incident', details->'incident') FROM pv_backup.backup_audit_events"
        " WHERE event_type = 'alert'"
    )
    attempt = night.world.open()
    if publishes:
        night.world.export(attempt)
        night.world.verify(attempt)
        night.world.publish(attempt)
    else:
        night.world.bucket.begin_upload(attempt.object_key)
    night.world.journal.expire_lease()
    return attempt.backup_id
