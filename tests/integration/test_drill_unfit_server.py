"""A server that fails while a drill looks at what it restored is told as such, and never as a fault of the backup."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from dev.servers.postgres import BIN_DIR
from pv_backup.services.evidence.document import LegReport, Result
from tests.integration.drill_world import Scene, become_drill_worker, drill, evidence_of, scene
from tests.support.clusters import ClusterTemplate
from tests.support.people import People
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-NOM-04", "TC-ERR-07")

LEGS = ["logical", "physical"]
WAITING = "SELECT 1 FROM pg_sleep(120)\n"
# So much that no disk here holds it; nobody sorts it, it only has to be kept.
FILLING = "SELECT n FROM generate_series(1, 1000000000) AS n WHERE n < 0\n"
BROKEN = "SELECT id FROM filing LIMIT 1\n"


@pytest.fixture(scope="module")
def made(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Scene]:
    with scene(stack, cluster_template) as made:
        yield made


@pytest.fixture
def worker(made: Scene, people: People, open_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(open_path))
    become_drill_worker(monkeypatch, made)
    return made


@pytest.fixture
def contract(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Makes a contract of one check that passes, and of the dumped database's own, in this order."""

    def make(*own: str) -> None:
        (tmp_path / "own").mkdir()
        (tmp_path / "fine.sql").write_text("SELECT 1 WHERE false\n")
        for number, query in enumerate(own):
            (tmp_path / "own" / f"check_{number}.sql").write_text(query)
        monkeypatch.setenv("PV_BACKUP_CONTRACT_DIRECTORY", str(tmp_path))

    return make


def failed_leg(made: Scene, leg: str) -> LegReport:
    """Of a drill of this leg alone, which must fail and say so."""
    run = drill(leg=leg)
    assert type(run.errors["demand_the_proof"]).__name__ == "DrillFailed"
    (report,) = evidence_of(made).legs
    assert report.failure is not None
    assert made.incidents()[-1]["code"] == report.failure.code
    return report


def failed_checks(report: LegReport) -> list[str]:
    return [check.name for check in report.checks if check.result is Result.FAILED]


@contextmanager
def killed_amid_a_check(staging: Path, victim: str, by: signal.Signals = signal.SIGKILL) -> Iterator[None]:
    """As soon as the check that waits is under way, this process of the server is killed."""
    threading.Thread(target=_kill, args=(staging, victim, by), daemon=True).start()
    yield


def _kill(staging: Path, victim: str, by: signal.Signals) -> None:
    while True:
        time.sleep(0.05)
        with suppress(OSError, ValueError, IndexError, psutil.Error):  # initdb, or a server that is about to start
            for path in staging.glob("*/data/postmaster.pid"):
                postmaster = psutil.Process(int(path.read_text().split()[0]))
                for child in postmaster.children():
                    if "FETCH" in " ".join(child.cmdline()):
                        (postmaster if victim == "postmaster" else child).send_signal(by)
                        return


@pytest.mark.parametrize("victim", ["postmaster", "backend"])
@pytest.mark.parametrize("leg", LEGS)
def test_killed_amid_a_check(worker: Scene, open_path: Path, contract: Callable[..., None], leg: str, victim: str):
    contract(WAITING)

    with killed_amid_a_check(open_path, victim):
        report = failed_leg(worker, leg)

    assert report.failure
    assert report.failure.code == "RESTORE", report.failure
    assert "contract/own/check_0 (evidence)" in report.failure.cause
    assert "the end of the server's log" in report.failure.cause
    assert failed_checks(report) == []


def test_one_that_crashes_by_itself_died_of_what_it_read(worker: Scene, open_path: Path, contract: Callable[..., None]):
    contract(WAITING)

    with killed_amid_a_check(open_path, "backend", signal.SIGSEGV):
        report = failed_leg(worker, "logical")

    assert report.failure
    assert report.failure.code == "CORRUPTION", report.failure
    assert "terminated by signal 11" in report.failure.cause
    assert failed_checks(report)[0] == "contract/own/check_0 (evidence)"


@pytest.mark.parametrize("leg", LEGS)
def test_killed_while_its_pages_are_read(worker: Scene, open_path: Path, monkeypatch: pytest.MonkeyPatch, leg: str):
    programs = open_path / "programs"
    programs.mkdir()
    for program in BIN_DIR.iterdir():
        (programs / program.name).symlink_to(program)
    (programs / "pg_amcheck").unlink()
    (programs / "pg_amcheck").write_text(
        f"""#!/bin/sh
test "$1" = --version || kill -9 $(head -n 1 "$PGHOST/.s.PGSQL.5432.lock")
exec {BIN_DIR}/pg_amcheck "$@"
"""
    )
    (programs / "pg_amcheck").chmod(0o755)
    monkeypatch.setenv("PV_BACKUP_PG_BIN_DIR", str(programs))

    report = failed_leg(worker, leg)

    assert report.failure
    assert report.failure.code == "RESTORE", report.failure
    assert report.failure.cause.startswith("pg_amcheck")
    assert failed_checks(report) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
class TestFullDisk:
    @pytest.fixture
    def full(self, disk: Callable[[float], Path], monkeypatch: pytest.MonkeyPatch) -> None:
        """It has room for what is restored, and not for what a check puts on it."""
        monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(disk(240)))

    @pytest.mark.parametrize("leg", LEGS)
    def test_filled_by_a_check(self, worker: Scene, full: None, contract: Callable[..., None], leg: str):
        contract(FILLING)

        report = failed_leg(worker, leg)

        assert report.failure
        assert report.failure.code == "STAGING-FULL", report.failure
        assert "contract/own/check_0 (evidence)" in report.failure.cause
        assert "No space left on device" in report.failure.cause
        assert "PV_BACKUP_STAGING_DIRECTORY" in report.failure.remedy
        assert failed_checks(report) == []

    def test_what_a_check_had_found_before_names_the_incident(
        self, worker: Scene, full: None, contract: Callable[..., None]
    ):
        contract(BROKEN, FILLING)

        report = failed_leg(worker, "logical")

        assert report.failure
        assert (report.failure.code, report.failure.check) == ("CONTRACT", "contract/own/check_0 (evidence)")
        assert failed_checks(report) == ["contract/own/check_0 (evidence)"]
