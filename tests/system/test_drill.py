"""The drill's DAG on real servers: proof, or an incident; and nothing left of a drill that was killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dev.servers.postgres import BIN_DIR
from pv_backup.services.evidence.document import Evidence
from pv_backup.services.evidence.signed import SignedDocument
from tests.integration.drill_world import DRILL, Scene, scene
from tests.integration.wal_world import wait_until
from tests.support.clusters import ClusterTemplate
from tests.support.servers import TestStack
from tests.system.airflow_world import ROOT, AirflowWorld, wait_for

pytestmark = pytest.mark.case("TC-NOM-04", "TC-INV-09")

GONE_S = 60
LEG_LIMIT_S = 5
# What a failed drill starts.
ASKS = "pv_backup_compliance"
# The DAG's own file, with a leg that has seconds where it has hours.
_IN_A_HURRY = """
import runpy
from datetime import timedelta

leg = runpy.run_path({dag_file!r})["restore_the_dump"]
leg.execution_timeout = timedelta(seconds={limit_s})
dag = leg.dag  # by its type Airflow finds the DAG
"""


@pytest.fixture(scope="module")
def made(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Scene]:
    with scene(stack, cluster_template) as made:
        yield made


@pytest.fixture
def world(made: Scene, stack: TestStack, tmp_path: Path, open_path: Path) -> Iterator[AirflowWorld]:
    """An Airflow on the scene, with a staging area of its own."""
    backup = made.world.backup
    bucket = made.bucket
    env = stack.airflow_environment(
        home=tmp_path / "airflow", source=made.world.cluster, journal=made.journal, bucket=bucket
    )
    env |= {"PV_BACKUP_STAGING_DIRECTORY": str(open_path)}
    world = AirflowWorld(stack, backup.source, made.journal, bucket, env, tmp_path)
    yield world
    for run in world.runs:
        run.end()


def test_a_drill_passes_and_its_evidence_is_on_record(world: AirflowWorld, open_path: Path):
    ended = world.run(DRILL, conf={"target": "latest"})

    assert ended.exit_code == 0, ended.log
    states = {task_id: state for task_id, (state, _) in world.tasks().items()}
    assert states.pop("see_to_the_incident") == "skipped"
    assert set(states.values()) == {"success"}
    (row,) = world.sql("SELECT * FROM pv_backup.restoration_evidence")
    evidence = Evidence.model_validate(SignedDocument.parse(row["document"]).evidence)
    assert (row["verdict"], row["rto_s"], row["rpo_s"]) == ("PASSED", evidence.rto_s, evidence.rpo_s)
    assert evidence.run_id.startswith(f"{DRILL}/")
    assert [leg.verdict for leg in evidence.legs] == ["PASSED", "PASSED"]
    assert world.sql("SELECT * FROM pv_backup.compliance_incidents") == []
    assert list(open_path.iterdir()) == []


@pytest.mark.case("TC-ERR-07")
def test_a_leg_that_does_not_end_is_not_tried_again_and_the_drill_says_so(
    world: AirflowWorld, open_path: Path, tmp_path: Path
):
    dags, programs = tmp_path / "dags", open_path / "programs"
    dags.mkdir()
    (dags / f"{DRILL}.py").write_text(
        _IN_A_HURRY.format(dag_file=str(ROOT / "dags" / f"{DRILL}.py"), limit_s=LEG_LIMIT_S)
    )
    (dags / f"{ASKS}.py").symlink_to(ROOT / "dags" / f"{ASKS}.py")
    that_never_ends(programs, "pg_restore")
    (open_path / "staging").mkdir(mode=0o755)
    world.env |= {"AIRFLOW__CORE__DAGS_FOLDER": str(dags)}

    ended = world.start(
        DRILL, conf={"target": "latest", "leg": "logical"}, pg_bin_dir=programs, staging_directory=open_path / "staging"
    ).wait()

    tasks = world.tasks(DRILL)
    assert tasks["restore_the_dump"] == ("failed", 1), ended.log
    assert tasks["record_the_evidence"][0] == "success"
    assert tasks["demand_the_proof"][0] == "failed"
    (row,) = world.sql("SELECT * FROM pv_backup.restoration_evidence WHERE verdict <> 'PASSED'")
    evidence = Evidence.model_validate(SignedDocument.parse(row["document"]).evidence)
    (incident,) = world.sql("SELECT * FROM pv_backup.compliance_incidents")
    assert (row["verdict"], evidence.failures[0].code, incident["code"]) == ("FAILED", "TOO-SLOW", "TOO-SLOW")
    assert f"still at work after 0:00:0{LEG_LIMIT_S}" in incident["reason"]
    wait_until(
        lambda: not list((open_path / "staging").iterdir()), meaning="the staging area is empty", timeout_s=GONE_S
    )


@pytest.mark.case("TC-ERR-07", "TC-ERR-08")
def test_a_drill_that_is_killed_at_work_leaves_neither_files_nor_servers(world: AirflowWorld, open_path: Path):
    run = world.start(DRILL, conf={"target": "latest"})
    wait_for(lambda: restored_servers(open_path), run=run, meaning="a leg's server runs")

    run.process.send_signal(signal.SIGKILL)

    wait_until(lambda: not restored_servers(open_path), meaning="the servers are gone", timeout_s=GONE_S)
    wait_until(lambda: not list(open_path.iterdir()), meaning="the staging area is empty", timeout_s=GONE_S)


def that_never_ends(programs: Path, name: str) -> None:
    """PostgreSQL's programs in a directory of their own, one of which hangs."""
    programs.mkdir()
    for program in BIN_DIR.iterdir():
        if program.name != name:
            (programs / program.name).symlink_to(program)
    (programs / name).write_text(f"#!/bin/sh\n[ $1 = --version ] && exec {BIN_DIR / name} $1\nexec sleep 600\n")
    (programs / name).chmod(0o755)


def restored_servers(staging: Path) -> list[int]:
    """Every process of PostgreSQL that works below the staging area."""
    found = []
    for process in psutil.process_iter(["name", "cmdline"]):
        try:
            if process.info["name"] == "postgres" and process.cwd().startswith(f"{staging}/"):
                found.append(process.pid)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found
