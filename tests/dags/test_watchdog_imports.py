"""The watchdog shares nothing with the dump (INV-47-06): what it imports of ours, now or later, is on a short list."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.dags.dag_world import ROOT, imports_of

pytestmark = pytest.mark.case("TC-INV-06")

WATCHDOG = ROOT / "dags" / "pv_backup_watchdog.py"
ITS_OWN = {
    "operators.escalation",
    "operators.start_run",
    "operators.wait_for_run",
    "sensors.published_backup",
    "triggers.looks",
    "triggers.published_backup",
    "triggers.run_end",
}
# How people are reached, and what a day, a setting and an error are; none of it touches a backup.
SHARED = {
    "dag_basics",
    "hooks.mail_server",
    "hooks.webhook",
    "notifiers.channel",
    "notifiers.failures",
    "notifiers.lines",
    "notifiers.mail",
    "notifiers.webhook",
    "operators.configuration",
    "operators.days",
    "operators.retrying",
    "services.alert_texts",
    "services.alerts",
    "services.days",
    "services.errors",
    "services.settings",
}
# Ways to a database, to Vault, to the source.
FORBIDDEN = ("sqlalchemy.orm", "psycopg", "hvac", "airflow.providers.postgres", "airflow.providers.hashicorp")


def file_of(module: str) -> Path | None:
    path = ROOT / "plugins" / Path(*module.split("."))
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def of_ours(file: Path) -> set[str]:
    """The modules of this project that a file imports anywhere in it, inside functions too."""
    found = set()
    for name in imports_of(file):
        if name.startswith("pv_backup"):
            module = name if file_of(name) else name.rpartition(".")[0]
            assert file_of(module), f"{file} imports {name}, which is not found"
            found.add(module)
    return found


def reached_from(start: Path) -> dict[str, str]:
    """module → who imports it, through the whole graph."""
    reached: dict[str, str] = {}
    waiting = [start]
    while waiting:
        file = waiting.pop()
        for module in of_ours(file) - reached.keys():
            reached[module] = file.stem
            waiting.append(file_of(module))
    return reached


def test_whatever_it_may_ever_import_is_on_the_list():
    reached = {module.removeprefix("pv_backup."): by for module, by in reached_from(WATCHDOG).items()}

    assert reached.keys() == ITS_OWN | SHARED, reached


def test_none_of_it_knows_a_way_to_a_database_or_a_key():
    for module in sorted(ITS_OWN | SHARED):
        imported = imports_of(file_of(f"pv_backup.{module}"))
        assert [name for name in imported if name.startswith(FORBIDDEN)] == [], module


def test_the_graph_of_the_dump_is_another():
    dump = reached_from(ROOT / "dags" / "pv_backup_daily_dump.py").keys()

    assert {f"pv_backup.{module}" for module in ITS_OWN} & dump == set()
    assert {"pv_backup.services.journal", "pv_backup.services.models", "pv_backup.services.exporting"} <= dump


def test_a_process_that_imports_it_has_nothing_else_of_ours(tmp_path: Path):
    script = f"""
import json, runpy, sys
runpy.run_path({str(WATCHDOG)!r})
print(json.dumps([name for name in sys.modules if name.startswith("pv_backup.")]))
"""
    bare = {"PYTHONPATH": str(ROOT / "plugins"), "HOME": str(tmp_path), "AIRFLOW_HOME": str(tmp_path)}
    answer = subprocess.run(
        [sys.executable, "-c", script], env=bare | {"PATH": os.environ["PATH"]}, capture_output=True, text=True
    )

    assert answer.returncode == 0, answer.stderr
    modules = {name.removeprefix("pv_backup.") for name in json.loads(answer.stdout.splitlines()[-1])}
    assert {name for name in modules if "." in name or name == "dag_basics"} <= ITS_OWN | SHARED
