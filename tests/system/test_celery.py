"""All DAGs under CeleryExecutor, on two machines that see nothing of each other, one of which loses its power."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from pv_backup.services.days import choose_day
from tests.support.clusters import ClusterTemplate, SourceCluster
from tests.support.servers import TestStack
from tests.system.airflow_world import DAG_ID, AirflowWorld, DagRun, manifest_key, opened
from tests.system.celery_airflow import CeleryAirflow, Ran, running_on
from tests.system.dump_gate import DumpGate
from tests.system.machine import NEEDS, TEMPORARY, Machine, can_be_had
from tests.system.whole_airflow import processes_of

pytestmark = [
    pytest.mark.case("TC-INF-05"),
    pytest.mark.skipif(not can_be_had(), reason=NEEDS),
]

BASEBACKUP, WAL, DRILL = "pv_backup_weekly_basebackup", "pv_backup_wal_shipping", "pv_backup_restoration_drill"
WATCHDOG, RELAUNCH = "pv_backup_watchdog", "pv_backup_relaunch"
OF_ONE_TASK = ("pv_backup_reconciliation", "pv_backup_retention", "pv_backup_deadline", "pv_backup_compliance")
STEPS = ["open_the_day", "check_the_cluster", "stream_basebackup", "verify_upload", "publish_manifest"]


@dataclass
class Story:
    """What happened, and where.

    :ivar ran: by run: every try of a task, in the order of their beginnings; ``states``: how each run ended.
    :ivar victim: the machine that lost its power in the middle of a dump, and ``survivor``.
    :ivar strays: files in the machines' temporary and staging directories, when all was over.
    """

    world: AirflowWorld
    today: date
    ran: dict[str, list[Ran]] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    victim: str = ""
    survivor: str = ""
    strays: list[str] = field(default_factory=list)
    outlived: list[psutil.Process] = field(default_factory=list)

    def note(self, airflow: CeleryAirflow, dag_id: str, run_id: str, name: str = "") -> None:
        self.ran[name or dag_id] = airflow.ran(dag_id, run_id)
        self.states[name or dag_id] = airflow.state(dag_id, run_id)

    def __str__(self) -> str:
        lines = []
        for name, ran in self.ran.items():
            lines += [f"{name}: {self.states[name]}"]
            lines += [f"    {one.task_id} (try {one.try_number}) on {one.machine}: {one.state} {one.began[14:21]} {(one.ended or str())[14:21]}" for one in ran]
        return "\n".join(lines)


@pytest.fixture(scope="module")
def story(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Story]:
    cluster = cluster_template.copied()
    machines = [Machine("worker-1"), Machine("worker-2", sees=[cluster.wal_directory])]
    try:
        with opened(stack, tmp_path_factory.mktemp("celery"), cluster=cluster) as world:
            fill(world, cluster)
            told = Story(world, choose_day(datetime.now(UTC), "today"))
            with running_on(world, [(machines[0], ""), (machines[1], WAL_QUEUE)]) as airflow:
                tell(told, airflow, cluster, machines)
            told.outlived = [process for machine in machines for process in machine.outlived] + processes_of(world)
            yield told
    finally:
        for machine in machines:
            machine.discard()
        cluster.discard()


WAL_QUEUE = "pv_backup_wal"


def fill(world: AirflowWorld, cluster: SourceCluster) -> None:
    """Evidence, some of it in a tablespace of its own, so that a base backup must be staged."""
    world.fill_source(megabytes=12)
    cluster.add_tablespace("attic")
    cluster.sql("CREATE TABLE kept TABLESPACE attic AS SELECT generate_series(1, 1000) AS piece")
    world.env["PV_BACKUP_PART_SIZE_MB"] = "5"


def tell(story: Story, airflow: CeleryAirflow, cluster: SourceCluster, machines: list[Machine]) -> None:
    """A base backup, a dump and WAL; a drill of them; a second dump whose machine is lost; all else meanwhile."""
    for dag_id in (BASEBACKUP, DAG_ID):
        story.note(airflow, dag_id, airflow.run(dag_id, day="today"))
    cluster.wait_until_received(cluster.switch_wal())
    for dag_id in (WAL, WATCHDOG, DRILL):
        story.note(airflow, dag_id, airflow.run(dag_id))

    gate = DumpGate(story.world, cast(DagRun, SimpleNamespace(process=psutil.Process(), is_over=False, log="")))
    relaunch = airflow.trigger(RELAUNCH, day="yesterday")
    dump = f"relaunch__{relaunch}"
    airflow.wait(lambda: is_streaming(airflow, dump), "the second dump is under way")
    half_way = gate.dump_that_has_written(megabytes=8)
    (victim,) = [machine for machine in machines if half_way in machine.processes()]
    (survivor,) = [machine for machine in machines if machine is not victim]
    story.victim, story.survivor = victim.name, survivor.name
    victim.cut_the_power()
    airflow.turns.lost(victim.name)

    others = {dag_id: airflow.trigger(dag_id) for dag_id in OF_ONE_TASK}
    for dag_id, run_id in {RELAUNCH: relaunch, **others}.items():
        airflow.wait_for_the_end(dag_id, run_id)
        story.note(airflow, dag_id, run_id)
    story.note(airflow, DAG_ID, dump, "the second dump")
    story.strays = [str(path) for machine in machines for path in files_of(machine, alive=machine is survivor)]


def is_streaming(airflow: CeleryAirflow, dump: str) -> bool:
    runs = airflow.client.call("GET", f"dags/{DAG_ID}/dagRuns")["dag_runs"]
    return dump in [run["dag_run_id"] for run in runs] and (
        airflow.task_state(DAG_ID, dump, "stream_dump") == "running"
    )


def files_of(machine: Machine, *, alive: bool) -> list[Path]:
    """What lies in its temporary directories, its home not counted, and in the staging directory."""
    directories = [machine.path(directory) for directory in TEMPORARY] if alive else []
    found = [path for directory in [*directories, machine.staging] for path in directory.iterdir()]
    return [path for path in found if path.name != machine.home.name]


def test_it(story):
    print(story)
    print(story.strays, story.outlived)
    print(story.world.alerts())
    assert 0
