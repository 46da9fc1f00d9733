"""Every DAG file imports: quickly, with nothing around it, and without looking at the world."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.dags import import_probe
from tests.dags.dag_world import DAG_FILES, ROOT, dag_bag

pytestmark = pytest.mark.case("TC-NR-05")

IMPORT_BUDGET_S = 2.0
# Airflow reads its own settings while it makes a DAG object, and pydantic a switch of its own.
LIBRARIES_OWN = ("environment variable AIRFLOW__", "environment variable PYDANTIC_DISABLE_PLUGINS")


def probe(dag_files: list[Path], home: Path) -> list[dict[str, Any]]:
    """Import files in processes that have an empty environment but for the way to the code and a home."""
    bare = {"PYTHONPATH": str(ROOT / "plugins"), "HOME": str(home), "AIRFLOW_HOME": str(home)}
    answer = subprocess.run(
        [sys.executable, import_probe.__file__, *dag_files], env=bare, cwd=home, capture_output=True, text=True
    )
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[Path, dict[str, Any]]:
    return dict(zip(DAG_FILES, probe(DAG_FILES, tmp_path_factory.mktemp("home")), strict=True))


def test_every_file_imports_and_yields_a_dag():
    bag = dag_bag()

    assert bag.import_errors == {}
    assert {Path(dag.fileloc).resolve() for dag in bag.dags.values()} == set(DAG_FILES)


def test_no_file_raises_a_warning():
    assert dag_bag().captured_warnings == {}


@pytest.mark.parametrize("dag_file", DAG_FILES, ids=lambda path: path.stem)
def test_a_file_imports_within_two_seconds_and_reads_nothing(dag_file: Path, imported: dict[Path, dict[str, Any]]):
    result = imported[dag_file]

    assert [what for what in result["touched"] if not what.startswith(LIBRARIES_OWN)] == []
    assert result["file_s"] < IMPORT_BUDGET_S


def test_the_probe_notices_what_a_dag_file_may_not_do(tmp_path: Path):
    offender = tmp_path / "offender.py"
    offender.write_text(
        "import contextlib, os, socket\n"
        "os.environ.get('PV_BACKUP_BUCKET')\n"
        "'AIRFLOW_CONN_PV_BACKUP_S3' in os.environ\n"
        "dict(os.environ)\n"
        "with contextlib.suppress(OSError):\n    socket.create_connection(('127.0.0.1', 9))\n"
        "from airflow.sdk import Variable\nVariable.get('pv_backup_settings', default=None)\n"
    )

    (seen,) = probe([offender], tmp_path)
    touched = " ".join(seen["touched"])

    for offence in ("PV_BACKUP_BUCKET", "AIRFLOW_CONN_PV_BACKUP_S3", "the whole", "socket.", "AIRFLOW_VAR_PV_BACKUP"):
        assert offence in touched
