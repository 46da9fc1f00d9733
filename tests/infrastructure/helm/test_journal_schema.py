"""docs/deploy.md, "Airflow on Kubernetes": its command makes the journal's schema, with what the image has."""

from __future__ import annotations

import os
import shlex
import sys
import uuid
from pathlib import Path

import psycopg
import pytest

from dev.airflow_env import ROOT
from dev.provisioning import databases
from tests.infrastructure.compose.dockerfile import stages
from tests.support.pages import blocks, filled_in, paste
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-04")

PAGE = ROOT / "docs" / "deploy.md"
# As docker does: of the caller's variables only the named one, with the image's directory and programs.
STAND_IN = """#!/bin/sh
[ "$1 $2 $3" = "run --rm --env" ] || { echo "docker $*: not known here"; exit 64; }
variable=$4; image=$5; shift 5
case $image in REGISTRY/pv-backup:*) ;; *) echo "$image is not the image"; exit 64 ;; esac
cd %(home)s && exec env -i PATH=%(path)s PYTHONPATH=%(home)s/plugins "$variable=$(printenv "$variable")" "$@"
"""


@pytest.fixture
def shell(tmp_path: Path) -> dict[str, str]:
    """An environment in which `docker` runs the command among what the Dockerfile copies."""
    image = tmp_path / "image"
    image.mkdir()
    copied = [shlex.split(rest) for rest in stages()["airflow"].all("COPY") if not rest.startswith("--from")]
    for source, target in copied:
        place = image / Path(target).relative_to("/opt/airflow")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(ROOT / source)
    docker = tmp_path / "docker"
    programs = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    docker.write_text(STAND_IN % {"home": shlex.quote(str(image)), "path": shlex.quote(programs)})
    docker.chmod(0o755)
    return {"PATH": f"{tmp_path}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}


def test_the_journal_takes_records(stack: TestStack, shell: dict[str, str]) -> None:
    name = f"journal_{uuid.uuid4().hex}"
    databases.ensure_database(stack.postgres, name)
    databases.grant_journal(stack.postgres, name)
    dsns = {
        role: stack.postgres.dsn(name, user=role, password=databases.password_of(stack.credentials, role))
        for role in (databases.OWNER, databases.SERVICE)
    }

    (block,) = blocks(PAGE)["Airflow on Kubernetes"]
    paste(filled_in(block, {"PV_BACKUP_JOURNAL_OWNER_DSN": dsns[databases.OWNER]}), shell)

    with psycopg.connect(dsns[databases.SERVICE]) as connection:
        assert connection.execute("SELECT count(*) FROM pv_backup.backup_journal_events").fetchone() == (0,)


def test_both_ways_to_run_airflow_make_the_same_schema() -> None:
    host, kubernetes = (blocks(PAGE)[heading] for heading in ("7. Airflow", "Airflow on Kubernetes"))
    (command,) = [line.removeprefix(".venv/bin/") for block in host for line in block.splitlines() if "alembic" in line]

    assert kubernetes[0].rstrip().endswith(f" {command}")
