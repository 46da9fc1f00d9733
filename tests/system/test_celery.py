"""All DAGs under CeleryExecutor, on two machines that see nothing of each other, one of which loses its power."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import psutil
import pytest

from dev.airflow_env import ROOT
from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.compliance import Compliance
from pv_backup.services.database import sessions_for
from pv_backup.services.days import choose_day
from pv_backup.services.evidence.document import Failure, Verdict
from tests.support.clusters import ClusterTemplate, SourceCluster
from tests.support.servers import TestStack
from tests.system.airflow_world import DAG_ID as DUMP
from tests.system.airflow_world import AirflowWorld, DagRun, manifest_key, opened
from tests.system.celery_airflow import SHARED_QUEUE, CeleryAirflow, Ran, running_on
from tests.system.dump_gate import DumpGate
from tests.system.leaks import files_with, secrets_of
from tests.system.machine import NEEDS, Machine, can_be_had
from tests.system.whole_airflow import processes_of

pytestmark = [pytest.mark.case("TC-INF-05"), pytest.mark.skipif(not can_be_had(), reason=NEEDS)]

BASEBACKUP, WAL, DRILL = "pv_backup_weekly_basebackup", "pv_backup_wal_shipping", "pv_backup_restoration_drill"
WATCHDOG, RELAUNCH = "pv_backup_watchdog", "pv_backup_relaunch"
COMPLIANCE, INCIDENT = "pv_backup_compliance", "pv_backup_incident"
OF_ONE_TASK = ("pv_backup_reconciliation", "pv_backup_retention", "pv_backup_deadline")
SECOND_DUMP = "the dump that lost its machine"
WAL_QUEUE = "pv_backup_wal"
FAILURE = Failure(code="WAL-GAP", cause="a segment is missing", remedy="look in pg_wal", check="wal_complete")
PLAN = "Ann restores the segment from the second server by Friday, and drills again."


@dataclass
class Story:
    """What happened, and where.

    :ivar ran: by DAG, or :data:`SECOND_DUMP`: each try of its run on a worker; ``states``: how the run ended.
    :ivar sees: machine → which of both homes and the WAL directory it can see.
    :ivar victim: the machine that lost its power in the middle of the second dump, and the ``survivor``.
    :ivar files: what lay in the machines' temporary and staging directories when all was over; ``outlived``: what ran.
    """

    world: AirflowWorld
    machines: list[Machine]
    today: date
    wal_directory: Path
    ran: dict[str, list[Ran]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    sees: dict[str, set[Path]] = field(default_factory=dict)
    victim: str = ""
    survivor: str = ""
    segment: str = ""
    broker_password: bytes = b""
    files: list[Path] = field(default_factory=list)
    outlived: list[psutil.Process] = field(default_factory=list)

    def note(self, airflow: CeleryAirflow, dag_id: str, run_id: str, name: str = "") -> None:
        self.ran[name or dag_id] = airflow.ran(dag_id, run_id)
        self.states[name or dag_id] = airflow.runs(dag_id)[run_id]

    def where(self, name: str) -> dict[str, list[str]]:
        """task_id → the machine of each try."""
        found: dict[str, list[str]] = {}
        for one in self.ran[name]:
            found.setdefault(one.task_id, []).append(one.machine)
        return found

    def __str__(self) -> str:
        return "\n".join(
            "\n    ".join([f"{name}: {self.states[name]}", *map(str, ran)]) for name, ran in self.ran.items()
        )


@pytest.fixture(scope="module")
def story(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    cluster = cluster_template.copied()
    machines = [Machine("worker-1"), Machine("worker-2", sees=[cluster.wal_directory])]
    try:
        with opened(stack, tmp_path_factory.mktemp("celery"), cluster=cluster) as world:
            fill(world, cluster)
            told = Story(world, machines, choose_day(datetime.now(UTC), "today"), cluster.wal_directory)
            queues = (SHARED_QUEUE, f"{SHARED_QUEUE},{WAL_QUEUE}")
            with running_on(world, list(zip(machines, queues, strict=True))) as airflow:
                tell(told, airflow, cluster)
            told.outlived = [*(process for machine in machines for process in machine.outlived), *processes_of(world)]
            assert not airflow.redis.is_running()
            yield told
    finally:
        for machine in machines:
            machine.discard()
        cluster.discard()


def fill(world: AirflowWorld, cluster: SourceCluster) -> None:
    """Evidence, some of it in a tablespace of its own, so that a base backup must be staged; a part of an upload."""
    world.fill_source(megabytes=24)
    cluster.add_tablespace("attic")
    cluster.sql("CREATE TABLE kept TABLESPACE attic AS SELECT generate_series(1, 1000) AS piece")
    world.env["PV_BACKUP_PART_SIZE_MB"] = "5"


def tell(story: Story, airflow: CeleryAirflow, cluster: SourceCluster) -> None:
    """Back up; drill; answer for an incident; lose a machine in the middle of a dump, and do all else meanwhile."""
    paths = [cluster.wal_directory, *(machine.home for machine in story.machines)]
    story.sees = {machine.name: {path for path in paths if machine.can_see(path)} for machine in story.machines}
    story.broker_password = airflow.redis.password.encode()
    for dag_id in (BASEBACKUP, DUMP):
        story.note(airflow, dag_id, airflow.run(dag_id, day="today"))
    story.segment = cluster.switch_wal()
    cluster.wait_until_received(story.segment)
    for dag_id in (WAL, WATCHDOG, DRILL):
        story.note(airflow, dag_id, airflow.run(dag_id))
    answer_for_an_incident(story, airflow)
    lose_a_machine(story, airflow)
    story.files = [path for machine in story.machines for path in machine.files()]


def answer_for_an_incident(story: Story, airflow: CeleryAirflow) -> None:
    sessions = sessions_for(story.world.journal.service_dsn)
    opened = Compliance(sessions).record(
        drill_id=str(uuid4()), verdict=Verdict.FAILED, document="{}", rto_s=None, rpo_s=None, failures=[FAILURE]
    )
    sessions.kw["bind"].dispose()
    story.note(airflow, COMPLIANCE, airflow.run(COMPLIANCE))
    asking = f"{opened.incident_id}__1"
    airflow.answer(INCIDENT, asking, "ask_for_the_action_plan", {"action_plan": PLAN})
    airflow.wait_for_the_end(INCIDENT, asking)
    story.note(airflow, INCIDENT, asking)


def lose_a_machine(story: Story, airflow: CeleryAirflow) -> None:
    """Cut its power once pg_dump has written more than a part of the upload, and let the other take the next try."""
    # All workers are children of this process.
    gate = DumpGate(story.world, cast(DagRun, SimpleNamespace(process=psutil.Process(), is_over=False, log="")))
    relaunch = airflow.trigger(RELAUNCH, day="yesterday")
    dump = f"relaunch__{relaunch}"
    airflow.wait_for_the_task(DUMP, dump, "stream_dump", "running")
    half_way = gate.dump_that_has_written(megabytes=12)
    (victim,) = [machine for machine in story.machines if half_way in machine.processes()]
    (survivor,) = [machine for machine in story.machines if machine is not victim]
    story.victim, story.survivor = victim.name, survivor.name
    airflow.turns.go_on_without(victim.name)
    victim.cut_the_power()

    others = {dag_id: airflow.trigger(dag_id) for dag_id in OF_ONE_TASK}
    for dag_id, run_id in {RELAUNCH: relaunch, **others}.items():
        airflow.wait_for_the_end(dag_id, run_id)
        story.note(airflow, dag_id, run_id)
    story.note(airflow, DUMP, dump, SECOND_DUMP)


def test_no_machine_sees_the_other_and_only_one_the_wal(story: Story):
    first, second = story.machines

    assert story.sees == {first.name: {first.home}, second.name: {second.home, story.wal_directory}}


def test_a_run_of_every_dag_succeeds(story: Story):
    every_dag = {path.stem for path in (ROOT / "dags").glob("*.py")}

    assert story.states == dict.fromkeys([*every_dag, SECOND_DUMP], "success"), str(story)


def test_no_task_needs_a_second_try_but_the_one_that_lost_its_machine(story: Story):
    """A task that needs another's file fails, and may find it when its next try is on that one's machine."""
    again = [(name, one.task_id) for name, ran in story.ran.items() for one in ran if one.try_number > 1]

    assert again == [(SECOND_DUMP, "stream_dump")], str(story)


def test_the_tasks_of_a_run_work_on_different_machines(story: Story):
    both = {machine.name for machine in story.machines}

    for name in (BASEBACKUP, DUMP, WATCHDOG, DRILL, COMPLIANCE, INCIDENT, RELAUNCH, SECOND_DUMP):
        assert {one.machine for one in story.ran[name]} == both, f"{name} was on one machine alone\n{story}"
    for before, after in zip(story.ran[BASEBACKUP], story.ran[BASEBACKUP][1:], strict=False):
        assert before.machine != after.machine, f"{after.task_id} found the machine of {before.task_id}\n{story}"
    dump, drill = story.where(DUMP), story.where(DRILL)
    assert dump["stream_dump"] != dump["verify_upload"], str(story)
    assert drill["restore_the_dump"] != drill["restore_the_cluster"], str(story)
    assert story.where(WAL) == {"ship_wal": [story.machines[1].name]}, str(story)


def test_both_days_and_the_cluster_end_with_a_verified_backup_and_a_passed_drill(story: Story):
    world, yesterday = story.world, story.today - timedelta(days=1)
    rows = world.sql("SELECT type, day, status FROM pv_backup.backup_executions WHERE type <> 'globals'")
    (evidence,) = world.sql("SELECT verdict FROM pv_backup.restoration_evidence WHERE document <> '{}'")

    made = {("basebackup", story.today), ("pg_dump", story.today), ("pg_dump", yesterday)}
    assert {(row["type"], row["day"]): row["status"] for row in rows} == dict.fromkeys(made, "SUCCESS")
    expected = {manifest_key(day, "basebackup" if kind == "basebackup" else "backup") for kind, day in made}
    assert expected | {wal_object_key(story.segment)} <= set(world.versions())
    assert evidence == {"verdict": "PASSED"}


@pytest.mark.case("TC-ERR-08")
def test_the_other_machine_makes_the_dump_that_lost_its_own(story: Story):
    tries = [one for one in story.ran[SECOND_DUMP] if one.task_id == "stream_dump"]

    assert [(one.machine, one.state) for one in tries] == [(story.victim, "failed"), (story.survivor, "success")]
    assert [outcome for _, outcome in story.world.outcomes()] == ["SUCCESS", "SUCCESS"], str(story)
    assert story.world.open_uploads() == []
    assert told(story) == [FAILURE.code], "the lost machine cost a try, and no alert"


def told(story: Story) -> list[Any]:
    return [alert["code"] for alert in story.world.alerts()]


def test_nothing_is_left_behind(story: Story):
    assert story.files == []
    assert story.outlived == []
    for machine in story.machines:
        assert {path.name for path in machine.home.iterdir()} == {"airflow", "staging"}


@pytest.mark.case("TC-INV-02")
def test_no_secret_is_in_what_the_workers_wrote(story: Story):
    secrets = {**secrets_of(story.world), "password of the broker": story.broker_password}
    for machine in story.machines:
        assert files_with(machine.home / "airflow" / "logs", b"airflow"), "the search must reach the tasks' logs"
        for name, secret in secrets.items():
            assert files_with(machine.home, secret) == [], name
