"""Three floors, one direction: dags → operators and hooks → services (DESIGN), and what keeps it so."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags.dag_world import ROOT, SOURCES, dags, imports_any

pytestmark = pytest.mark.case("TC-NR-05")

SERVICES = sorted((SOURCES / "services").rglob("*.py"))
DAG_FLOOR = ("pv_backup.dag_basics", "pv_backup.dag_defaults")
MIDDLE_FLOOR = ("operators", "sensors", "hooks", "notifiers", "triggers")


@pytest.mark.parametrize("module", SERVICES, ids=lambda path: path.stem)
def test_a_service_has_never_heard_of_airflow(module: Path):
    above = ("airflow", *DAG_FLOOR, *(f"pv_backup.{room}" for room in MIDDLE_FLOOR))

    assert imports_any(module, above) == set()


@pytest.mark.parametrize(
    "module", [path for room in MIDDLE_FLOOR for path in sorted((SOURCES / room).glob("*.py"))], ids=lambda p: p.stem
)
def test_the_middle_floor_knows_no_dag(module: Path):
    assert imports_any(module, ("dags", *DAG_FLOOR)) == set()


def test_hooks_know_no_operator():
    for module in sorted((SOURCES / "hooks").glob("*.py")):
        assert imports_any(module, ("pv_backup.operators", "pv_backup.sensors")) == set()


@pytest.mark.parametrize("line", ["import airflow", "from airflow.sdk import Variable", "import random"])
def test_ruff_refuses_the_import_inside_services(line: str):
    answer = subprocess.run(
        [Path(sys.executable).parent / "ruff", "check", "--stdin-filename", SOURCES / "services" / "offender.py", "-"],
        input=f'"""An offender."""\n\n{line}\n',
        capture_output=True,
        text=True,
        cwd=ROOT,
    )

    assert answer.returncode == 1
    assert "TID251" in answer.stdout


def test_no_operator_opens_anything_when_it_is_made():
    """A DAG processor makes every operator every few seconds: its constructor only assigns."""
    for operator in {type(task) for dag in dags() for task in dag.tasks}:
        for cls in operator.__mro__:
            if cls.__module__.startswith("pv_backup.") and "__init__" in vars(cls):
                assert calls_of(cls.__init__) <= {"super", "__init__", "ConnectionIds"}, cls


def calls_of(function: object) -> set[str]:
    """The names of what a function calls."""
    called = (node.func for node in ast.walk(ast.parse(_dedented(function))) if isinstance(node, ast.Call))
    return {name.attr if isinstance(name, ast.Attribute) else ast.unparse(name) for name in called}


def _dedented(function: object) -> str:
    return inspect.cleandoc("\n" + inspect.getsource(function))  # type: ignore[arg-type]
