"""The role as it is written: what its linter, its argument specification and its own refusals say."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pv_backup.services.settings import Settings
from tests.infrastructure.ansible.machine import ANSIBLE, TOOLS, Play, run_playbook
from tests.infrastructure.ansible.receivewal_world import ROLE

pytestmark = pytest.mark.case("TC-INF-03")


def read(path: str) -> Any:
    return yaml.safe_load((ROLE / path).read_text())


def options() -> dict[str, dict[str, Any]]:
    return read("meta/argument_specs.yml")["argument_specs"]["main"]["options"]


def played_here(home: Path, variables: dict[str, object], **how: Any) -> Play:
    """The role's first steps on this very host, which refuse before they change anything.

    :param how: further arguments of include_role.
    """
    role = {"name": "postgresql_backup", **how}
    tasks = [{"name": "The role", "ansible.builtin.include_role": role, "vars": variables}]
    python = {"ansible_python_interpreter": str(TOOLS / "python")}
    play = {"hosts": "localhost", "connection": "local", "gather_subset": ["min"], "vars": python, "tasks": tasks}
    playbook = home / "playbook.yml"
    playbook.write_text(json.dumps([play]))
    return run_playbook(home, "--check", playbook=playbook)


def test_ansible_lint_has_nothing_to_say_at_its_strictest_profile(tmp_path: Path):
    # It would leave what it caches beside what it reads.
    copy = shutil.copytree(ANSIBLE, tmp_path / "ansible")
    done = subprocess.run(
        [TOOLS / "ansible-lint", "--profile", "production", "--strict", "--offline", "--nocolor"],
        cwd=copy,
        env={"PATH": f"{TOOLS}:/usr/bin:/bin", "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "Profile 'production' was required, and it passed" in done.stderr


def test_it_needs_no_module_but_ansibles_own():
    named = {
        word
        for path in [*ROLE.glob("tasks/*.yml"), *ROLE.glob("handlers/*.yml")]
        for word in re.findall(r"^\s+(?:- )?(\w+\.\w+\.\w+):", path.read_text(), flags=re.MULTILINE)
    }

    assert named
    assert {name for name in named if not name.startswith("ansible.builtin.")} == set()


def test_each_variable_that_must_be_given_is_named_when_it_is_not(tmp_path: Path):
    play = played_here(tmp_path, {})

    required = sorted(name for name, option in options().items() if option.get("required"))
    assert play.status != 0
    assert f"missing required arguments: {', '.join(required)}" in play.said
    assert play.changed == []


def test_a_value_that_would_harm_is_refused_with_its_remedy(tmp_path: Path):
    good = {**read("defaults/main.yml"), "postgresql_backup_vault_addr": "https://vault.example.com:8200"}
    wrong = {
        "postgresql_backup_vault_addr": "http://vault.example.com:8200",
        "postgresql_backup_wal_directory": "wal archive",
    }

    play = played_here(tmp_path, good | wrong, tasks_from="values", apply={"ignore_errors": True})

    assert "postgresql_backup_vault_addr is http://vault.example.com:8200. It must be https://host:port" in play.said
    assert "postgresql_backup_wal_directory is wal archive. It must be an absolute path" in play.said
    assert play.said.count("FAILED! =>") == len(wrong)


def test_what_need_not_be_given_has_a_default_that_is_no_secret():
    without = {name for name, option in options().items() if not option.get("required")} - set(
        read("defaults/main.yml")
    )

    assert without == {name for name, option in options().items() if option.get("no_log")}
    assert without == {"postgresql_backup_role_id", "postgresql_backup_secret_id"}


def test_the_example_and_the_defaults_speak_of_variables_that_exist():
    inventory = yaml.safe_load((ANSIBLE / "inventory.example.yml").read_text())

    assert set(inventory["pv_backup_receivers"]["vars"]) | set(read("defaults/main.yml")) <= set(options())


def test_each_variable_is_used():
    text = "".join(path.read_text() for folder in ("tasks", "templates") for path in (ROLE / folder).iterdir())

    assert {name for name in options() if name not in text} == set()


def test_it_writes_where_the_worker_looks():
    assert read("defaults/main.yml")["postgresql_backup_wal_directory"] == str(
        Settings.model_fields["wal_directory"].default
    )
