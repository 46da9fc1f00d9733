"""All DAG files of the project, loaded as the DAG processor loads them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG

ROOT = Path(__file__).resolve().parents[2]
DAG_FILES = sorted((ROOT / "dags").glob("*.py"))
SOURCES = ROOT / "plugins" / "pv_backup"


@cache
def dag_bag() -> DagBag:
    """The bag; no database is asked."""
    return DagBag(ROOT / "dags", bundle_path=ROOT / "dags", bundle_name="dags-folder")


def dags() -> list[DAG]:
    """Every DAG of the project."""
    found = list(dag_bag().dags.values())
    assert found, dag_bag().import_errors
    return found


def imports_of(path: Path) -> set[str]:
    """Full names of all modules, and of all names in modules, that a file imports anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively, which these checks do not follow"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports_any(path: Path, modules: tuple[str, ...]) -> set[str]:
    """The imports of a file that fall under these modules."""
    below = tuple(f"{module}." for module in modules)
    return {name for name in imports_of(path) if name in modules or name.startswith(below)}
