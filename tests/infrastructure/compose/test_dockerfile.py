"""The Dockerfile: hadolint's and checkov's rules, and our own, of what an image of this system may and must be."""

from __future__ import annotations

import fnmatch
import re
import subprocess

import pytest

from tests.infrastructure.compose import dockerfile
from tests.infrastructure.compose.composition import ROOT
from tests.infrastructure.compose.dockerfile import stages

pytestmark = pytest.mark.case("TC-INF-04")

HADOLINT, CHECKOV = ROOT / ".venv/bin/hadolint", ROOT / ".venv-tools/bin/checkov"
every_stage = pytest.mark.parametrize("name", sorted(stages()))


def test_hadolint_finds_nothing() -> None:
    done = subprocess.run([HADOLINT, dockerfile.PATH], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_checkov_finds_nothing() -> None:
    command = [CHECKOV, "--file", dockerfile.PATH, "--framework", "dockerfile", "--compact", "--skip-download"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert re.search(r"Passed checks: [1-9]\d*, Failed checks: 0, Skipped checks: 0", done.stdout), done.stdout


@every_stage
def test_it_begins_with_a_pinned_image(name: str) -> None:
    base = stages()[name].base
    assert base in stages() or re.fullmatch(r"python:3\.11\.\d+-slim-bookworm", base), "as requires-python says"


@pytest.mark.parametrize("name", ["airflow", "provision"])
def test_it_runs_as_a_user_that_is_not_root(name: str) -> None:
    assert stages()[name].user == "50000:50000"
    assert "useradd --uid 50000 --gid 50000" in " ".join(stages()[name].all("RUN"))


@every_stage
def test_nothing_secret_and_nothing_from_elsewhere_is_built_in(name: str) -> None:
    stage = stages()[name]
    assert not stage.all("ADD"), "COPY says what it copies; ADD unpacks and downloads"
    for word in [*stage.environment, *stage.all("ARG")]:
        assert not re.search(r"PASSWORD|SECRET|TOKEN|FERNET|ACCESS_KEY|CONN_", word), word
    assert not re.search(r"https?://", " ".join(stage.all("RUN")))


def test_packages_are_those_of_the_lock_and_no_others() -> None:
    (install,) = [run for run in stages()["packages"].all("RUN") if "pip install" in run]
    assert "--require-hashes" in install
    assert stages()["packages"].all("COPY") == ["requirements.txt /tmp/requirements.txt"]
    assert not [run for run in stages()["provision"].all("RUN") if "pip" in run]


def test_debians_packages_are_pinned_to_what_debian_has() -> None:
    """Where this machine is a Debian 12 with package lists, the versions must be there; else only that one is said."""
    packages = stages()["airflow"].packages
    assert {"postgresql-15", "postgresql-common", "tini", "curl", "locales"} == set(packages)
    assert all(packages.values())
    policy = subprocess.run(["apt-cache", "policy", *packages], capture_output=True, text=True, check=False).stdout
    for package, candidate in re.findall(r"^(\S+):\n.*\n  Candidate: (\S+)", policy, re.MULTILINE):
        if "deb12" in candidate or "+b" in candidate:
            assert fnmatch.fnmatch(candidate, packages[package]), f"{package} is {candidate} in Debian 12"


def test_postgresql_makes_no_cluster_in_the_image() -> None:
    (install,) = [run for run in stages()["airflow"].all("RUN") if "postgresql-15" in run]
    assert install.index("create_main_cluster = false") < install.index("postgresql-15=")


def test_what_is_copied_is_there_and_gets_past_dockerignore() -> None:
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [rest for rest in stages()["provision"].all("COPY") if not rest.startswith("--from")]
    for source in [words.split()[0] for words in [*copied, *stages()["packages"].all("COPY")]]:
        assert (ROOT / source).exists()
        assert any(source == path or source.startswith(f"{path}/") for path in allowed), source
    assert not {".env", ".dev", ".venv", ".git", "tests"} & set(allowed)


def test_the_code_is_where_airflow_looks_and_nobody_may_change_it() -> None:
    stage = stages()["airflow"]
    home = stage.environment["AIRFLOW_HOME"]
    copied = [words.split() for words in stage.all("COPY")]
    assert ["dags", f"{home}/dags"] in copied
    assert ["plugins", f"{home}/plugins"] in copied
    assert ["include", f"{home}/include"] in copied, "contract checks are looked for beside plugins"
    assert f"{home}/plugins" in stage.environment["PYTHONPATH"].split(":")
    assert not [words for words in stage.all("COPY") if "--chown" in words], "root owns it"
    assert "compileall" in " ".join(stage.all("RUN"))


@pytest.mark.parametrize("name", ["airflow", "provision"])
def test_signals_reach_the_program(name: str) -> None:
    assert stages()[name].entrypoint[:2] == ["tini", "--"]
