"""docs/deploy.md: each command that is typed on the two hosts is there by then, and is one."""

from __future__ import annotations

import re
import shlex
from typing import Final

import pytest
from airflow.cli.cli_parser import get_parser

from dev.airflow_env import ROOT
from tests.infrastructure.deploy_page import AIRFLOW, FIRST_BACKUP, PAGE, part
from tests.infrastructure.vault import vault_page
from tests.support.pages import blocks

pytestmark = pytest.mark.case("TC-INF-04")

INTRODUCTION: Final = PAGE.read_text().partition("\n## ")[0]
A_TOKEN: Final = blocks(vault_page.PAGE)["A token for a person"][0]
# A paragraph of it is what stands in a file, and no command.
IN_A_FILE: Final = re.compile(r"[A-Z][A-Z0-9_]*=|bind |server \{")
BUILT_IN: Final = {"cd", "export", "set", ".", "umask", "printf", "for", "done", "as_airflow"}
# Of packages that every Debian has: bash, coreutils, sed, passwd, apt, dpkg, systemd, debconf.
OF_DEBIAN: Final = {"apt-get", "chown", "date", "install", "sed", "systemctl", "useradd", "/usr/sbin/runuser"}
# Program: the package that brings it.
PACKAGED: Final = {"git": "git", "python3.11": "python3.11-venv"} | {name: name for name in ("curl", "jq", "openssl")}
# What comes before a program, and the program.
STARTS: Final = re.compile(r"(?:^|&&|\||;|\()\s*(?:(?:do|exec|[A-Za-z_]\w*=[^\s(]*)\s+)*([\w./-]+)(?=\s|$|;)")
FENCED: Final = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[str]:
    """The lines of commands, continued ones in one, and what is quoted for others left out."""
    paragraphs = re.findall(r"(?:^    .*\n)+", FENCED.sub("", text), re.MULTILINE)
    typed = [re.sub("^    ", "", paragraph, flags=re.MULTILINE) for paragraph in paragraphs]
    found = [*FENCED.findall(text), *[paragraph for paragraph in typed if not IN_A_FILE.match(paragraph)]]
    lines = re.sub(r"\\\n\s*|\|\n\s*", lambda end: end[0][0].replace("\\", " ") + " ", "".join(found)).splitlines()
    return [re.sub(r"'[^']*'", "''", re.sub(r"(?:^|\s)#.*$", "", line)) for line in lines]


def programs(text: str) -> set[str]:
    return {name for line in commands(text) for name in STARTS.findall(line)} - BUILT_IN


def test_every_program_is_there_by_then():
    typed = "\n".join([INTRODUCTION, part(AIRFLOW), part(FIRST_BACKUP), f"```sh\n{A_TOKEN}```"])
    on_both = "\n".join([INTRODUCTION, part(AIRFLOW).partition("**On the Airflow host**")[0]])
    installed = {word for line in re.findall(r"apt-get install ([^&\n]+)", on_both) for word in line.split()}

    wanted = programs(typed)
    assert {"curl", "jq", "openssl", "systemctl", "useradd", ".venv/bin/alembic"} <= wanted
    of_the_clone = {name for name in wanted if name.startswith(".venv/bin/")}
    there = OF_DEBIAN | of_the_clone | {program for program, package in PACKAGED.items() if package in installed}
    assert wanted - there == set()


def test_every_command_of_airflows_is_one():
    text = PAGE.read_text()
    typed = re.findall(r"(?:^|[`; ])as_airflow ([a-z][^;`\n]+)", text, re.MULTILINE)
    assert len(typed) >= 9

    for line in typed:
        get_parser().parse_args(shlex.split(re.sub(r"\$\(date .*?\)", "2026-11-22", line)))


def test_the_units_that_are_started_are_there():
    started = re.findall(r"^    systemctl enable --now (.+)$", PAGE.read_text(), re.MULTILINE)
    templates = {re.sub("@.*", "@.service", unit) for line in started for unit in line.split()}

    assert templates == {unit.name for unit in (ROOT / "deploy" / "systemd").glob("*.service")}
