"""WAL shipping by the real DAG: a run that ships, one that has no pg_receivewal, and how late a commit is in S3."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.support.clusters import ClusterTemplate, SourceCluster
from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, Ended, opened
from tests.system.whole_airflow import running, until

pytestmark = pytest.mark.case("TC-NOM-02")

DAG_ID = "pv_backup_wal_shipping"
COMMITS = 4
COMMIT_EVERY_S = 50
SEGMENT_DUE_S = 90
COMMIT_DUE_S = 150


@pytest.fixture(scope="module")
def cluster(cluster_template: ClusterTemplate) -> Iterator[SourceCluster]:
    cluster = cluster_template.copied()
    yield cluster
    cluster.discard()


def finished(cluster: SourceCluster, count: int) -> list[str]:
    """Names of so many segments that wait for a run."""
    names = []
    for _ in range(count):
        cluster.write(0.1)
        names.append(cluster.switch_wal())
    cluster.wait_until_received(names[-1])
    return names


def shipped(world: AirflowWorld) -> list[str]:
    """Keys of the objects that have one version."""
    return [key for key, versions in world.versions().items() if len(versions) == 1]


@dataclass(frozen=True)
class Shipped:
    """A run with pg_receivewal, then one without; and what each left."""

    world: AirflowWorld
    names: list[str]
    good: Ended
    returned: dict[str, Any]
    left_by_good: list[str]
    later_name: str
    alone: Ended
    left_by_alone: list[str]


@pytest.fixture(scope="module")
def runs(stack: TestStack, cluster: SourceCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shipped]:
    with opened(stack, tmp_path_factory.mktemp("wal"), cluster=cluster) as world:
        names = finished(cluster, 3)
        good = world.run(DAG_ID)
        returned, left_by_good = returned_value(world), cluster.finished()
        (later_name,) = finished(cluster, 1)
        cluster.receiver.stop()
        alone = world.run(DAG_ID)
        yield Shipped(world, names, good, returned, left_by_good, later_name, alone, cluster.finished())


def returned_value(world: AirflowWorld) -> dict[str, Any]:
    """What the XCom tab shows of the newest run."""
    with psycopg.connect(world.metadata_dsn) as connection:
        row = connection.execute(
            "SELECT value FROM xcom WHERE dag_id = %s AND key = 'return_value' ORDER BY timestamp DESC LIMIT 1",
            [DAG_ID],
        ).fetchone()
    assert row is not None
    value = json.loads(row[0]) if isinstance(row[0], str) else row[0]
    return json.loads(value) if isinstance(value, str) else value


def test_a_run_ships_every_finished_segment_and_tells_how_many(runs: Shipped):
    assert runs.good.exit_code == 0, runs.good.log
    assert {wal_object_key(name) for name in runs.names} <= set(shipped(runs.world))
    assert runs.left_by_good == []
    assert runs.returned["shipped"] >= len(runs.names)
    assert {name: runs.returned[name] for name in ("already_there", "replaced", "backlog", "oldest_s")} == {
        "already_there": 0,
        "replaced": 0,
        "backlog": 0,
        "oldest_s": 0,
    }
    assert runs.returned["rate"] > 0


def test_without_pg_receivewal_a_run_ships_what_is_there_and_fails_with_one_alert(runs: Shipped):
    assert runs.alone.exit_code != 0
    assert runs.left_by_alone == []
    assert wal_object_key(runs.later_name) in shipped(runs.world)
    (alert,) = runs.world.alerts()
    assert (alert["code"], alert["level"]) == ("WAL-RECEIVER", "critical")
    assert "no pg_receivewal is connected to slot pv_backup" in alert["cause"]
    assert runs.alone.lines_with("ALERT critical WAL-RECEIVER")


@dataclass
class Clock:
    """When rows were committed and segments were finished, in Unix seconds."""

    cluster: SourceCluster
    commits: dict[float, str] = field(default_factory=dict)
    segments: dict[str, float] = field(default_factory=dict)

    def commit(self) -> None:
        self.cluster.sql("INSERT INTO note VALUES (now())")
        ((name,),) = self.cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
        self.commits[time.time()] = str(name)

    def look(self) -> None:
        for name in self.cluster.finished():
            path: Path = self.cluster.wal_directory / name
            if name not in self.segments and path.exists():
                self.segments[name] = path.stat().st_mtime


def safe_at(world: AirflowWorld) -> dict[str, float]:
    """When each segment was in S3, verified and journaled, in Unix seconds."""
    events = world.sql("SELECT object_key, occurred_at FROM pv_backup.backup_journal_events WHERE type = 'wal'")
    times: dict[str, datetime] = {event["object_key"]: event["occurred_at"] for event in events}
    return {key.removeprefix("wal/").removesuffix(".enc"): at.timestamp() for key, at in times.items()}


@pytest.mark.soak
def test_a_commit_on_an_idle_server_is_in_s3_in_time_under_the_real_scheduler(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path: Path
):
    cluster = cluster_template.copied()
    try:
        with opened(stack, tmp_path, cluster=cluster) as world:
            cluster.sql("CREATE TABLE note (at timestamptz)")
            clock, log = Clock(cluster), world.folder / "standalone.log"
            with running(world) as airflow:
                until(lambda: airflow.knows(DAG_ID), meaning="the DAG is known", log=log)
                airflow.call("PATCH", f"dags/{DAG_ID}", json={"is_paused": False})
                until(lambda: safe_at(world), meaning="a first segment is shipped", log=log)
                for number in range(COMMITS):
                    clock.commit()
                    if number % 2:
                        # A busy server finishes its segments by itself, at any second of the minute.
                        cluster.switch_wal()
                    waited_until = time.monotonic() + COMMIT_EVERY_S
                    while time.monotonic() < waited_until:
                        clock.look()
                        time.sleep(0.2)
                last = list(clock.commits.values())[-1]
                until(lambda: last in safe_at(world), meaning="the last is safe", log=log)
            safe = safe_at(world)
    finally:
        cluster.discard()
    of_commits = [safe[name] - at for at, name in clock.commits.items()]
    of_segments = [safe[name] - at for name, at in clock.segments.items()]
    print(f"commit to S3: {[round(s) for s in of_commits]} s; segment to S3: {[round(s) for s in of_segments]} s")
    assert len(of_commits) == COMMITS
    assert of_segments
    assert max(of_commits) < COMMIT_DUE_S
    assert max(of_segments) < SEGMENT_DUE_S
