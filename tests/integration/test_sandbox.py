"""Nothing of a restoration stays: neither files nor processes, whoever is killed, and at which step."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from pv_backup.dag_basics import LONG_STEP
from pv_backup.services.basebackup_source import BasebackupSource
from pv_backup.services.errors import ConfigurationError, RestoreFailed
from pv_backup.services.export_sources import DumpSource, GlobalsSource
from pv_backup.services.postgres import Server
from pv_backup.services.restoration.sandbox import LIMIT_S, Sandbox
from pv_backup.services.staging import purge_orphans
from tests.integration.killing import Worker, steps_of, worker_of
from tests.integration.restore_worker import ANSWERS, PIECE, Order
from tests.integration.wal_world import WalWorld, wait_until, wal_world
from tests.support.clusters import ClusterTemplate
from tests.support.processes import children_running
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INV-01", "TC-NOM-04")

# A server that is told to quit has 7 s before it is killed; the rest is for a busy machine.
GONE_WITHIN_S = 60


@dataclass(frozen=True)
class Bench:
    """A worker to kill, and where its sandboxes are."""

    worker: Worker
    base: Path
    log: Path

    def order(self, *, dump: bool, kill_at: int = 0, kill_from: str = "", hold: bool = False) -> Order:
        self.log.unlink(missing_ok=True)
        return Order(
            steps=str(self.log), kill_at=kill_at, kill_from=kill_from, base=str(self.base), dump=dump, hold=hold
        )

    def steps(self, *, dump: bool) -> list[str]:
        """Of a restoration that nobody kills."""
        self.worker.start(self.order(dump=dump))
        assert self.worker.end().exit_code == 0
        assert self.left() == []
        return steps_of(self.log)

    def hold(self, *, dump: bool) -> psutil.Process:
        """A restoration whose server answers; it stays there."""
        pid = self.worker.start(self.order(dump=dump, hold=True))
        wait_until(lambda: ANSWERS in steps_of(self.log), meaning="answered")
        return psutil.Process(pid)

    def left(self) -> list[str]:
        """Files and processes of sandboxes."""
        return [path.name for path in self.base.iterdir()] + [name for name, _ in self.processes()]

    def processes(self) -> list[tuple[str, int]]:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                traces = [process.cwd(), *process.cmdline(), *process.environ().values()]
                if process.pid != os.getpid() and any(str(self.base) in trace for trace in traces):
                    found.append((process.name(), process.pid))
        return found

    def assert_nothing_left(self, where: str) -> None:
        deadline = time.monotonic() + GONE_WITHIN_S
        while (left := self.left()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == [], where


@pytest.fixture(scope="module")
def world(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[WalWorld]:
    """A dump, its roles, a base backup and the WAL of some commits."""
    cluster = cluster_template.copied()
    try:
        with wal_world(stack, cluster, stack.new_journal(), stack.new_bucket()) as world:
            cluster.sql("CREATE TABLE ledger AS SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 5000) AS n")
            world.backup.back_up(BasebackupSource(server=cluster.server))
            world.backup.back_up(GlobalsSource(server=cluster.server))
            world.backup.back_up(DumpSource(server=cluster.server))
            # More than are fetched ahead, so that recovery asks the bucket too.
            world.segments(14)
            assert world.run(closer=world.closer(older_than_s=0)).problems == []
            yield world
    finally:
        cluster.discard()


@pytest.fixture(scope="module")
def worker(world: WalWorld) -> Iterator[Worker]:
    journal_dsn = world.backup.journal.superuser_dsn
    with worker_of(world, "tests.integration.restore_worker", journal_dsn=journal_dsn) as worker:
        yield worker


@pytest.fixture
def bench(worker: Worker, open_path: Path, tmp_path: Path) -> Bench:
    return Bench(worker, open_path, tmp_path / "steps")


def kill(bench: Bench, *, dump: bool, number: int, after: str = "") -> None:
    bench.worker.start(bench.order(dump=dump, kill_at=number, kill_from=after))
    assert bench.worker.end().exit_code == -signal.SIGKILL, f"step {number} from {after or 'the first'}"
    bench.assert_nothing_left(f"killed at step {number} from {after or 'the first'}: {steps_of(bench.log)[-1]}")


@pytest.mark.case("TC-ERR-08")
@pytest.mark.parametrize("dump", [True, False], ids=["dump", "cluster"])
def test_a_restoration_killed_at_any_kind_of_step_leaves_nothing(bench: Bench, dump: bool):
    steps = bench.steps(dump=dump)
    tools = ("initdb", "psql", "pg_restore") if dump else ("tar", "pg_verifybackup")
    assert {PIECE, ANSWERS, "started: postgres"} | {f"started: {tool}" for tool in tools} <= set(steps)
    for name in (*(f"started: {tool}" for tool in (*tools, "postgres")), PIECE, ANSWERS):
        kill(bench, dump=dump, number=1, after=name)
    # Once more when the tool has begun to read, or when the server has begun to recover.
    kill(bench, dump=dump, number=2 if dump else 3, after="started: pg_restore" if dump else "started: postgres")


def test_a_worker_killed_with_its_guard_is_cleaned_up_behind(bench: Bench):
    killed = bench.hold(dump=False)
    (guard,) = children_running("staging_guard", of=killed)
    (path,) = bench.base.iterdir()
    for process in (guard, killed):
        process.kill()
    bench.worker.end()
    assert "postgres" in [name for name, _ in bench.processes()]
    told: list[Path] = []

    purge_orphans(bench.base, told.append)

    assert told == [path]
    bench.assert_nothing_left("purged as an orphan")


def test_a_server_that_hangs_goes_with_its_worker_too(bench: Bench):
    killed = bench.hold(dump=True)
    for name, pid in bench.processes():
        if name == "postgres":
            os.kill(pid, signal.SIGSTOP)
    killed.kill()
    bench.worker.end()
    bench.assert_nothing_left("with a stopped server")


def test_a_sandbox_has_a_limit_that_no_tool_outlasts(open_path: Path):
    with Sandbox(open_path, limit_s=3) as sandbox:
        with pytest.raises(RestoreFailed, match="sleep was ended by signal 9"):
            sandbox.runner(Server({})).run(["sleep", "60"], failing="no sleep", remedy="none")
        wait_until(lambda: list(open_path.iterdir()) == [], meaning="purged")


def test_its_limit_outlasts_the_longest_leg():
    assert LONG_STEP < timedelta(seconds=LIMIT_S) <= timedelta(days=1)


def test_without_its_guard_no_tool_is_started(open_path: Path):
    with Sandbox(open_path) as sandbox:
        (guard,) = children_running("staging_guard")
        guard.kill()
        guard.wait()
        with pytest.raises(RestoreFailed, match="guard of the staging directory"):
            sandbox.runner(Server({})).run(
                ["touch", str(sandbox.path / "never")], failing="nothing", remedy="none", stdin=[b"clear"]
            )
        assert not (sandbox.path / "never").exists()
    assert list(open_path.iterdir()) == []


def test_postgresqls_user_may_pass_and_nobody_may_list(open_path: Path):
    with Sandbox(open_path) as sandbox:
        mode = sandbox.path.stat().st_mode & 0o777
        assert mode == (0o710 if sandbox.user else 0o700)
        with sandbox.folder("wal-") as folder:
            assert folder.stat().st_mode & 0o777 == 0o700
            assert folder.owner() == (sandbox.user or Path.home().owner())


def test_a_base_that_is_too_long_for_a_socket_is_refused_with_its_setting(open_path: Path):
    base = open_path / ("x" * 60)
    base.mkdir(mode=0o711)
    with pytest.raises(ConfigurationError, match="too long a path for a server's socket") as refused, Sandbox(base):
        pass
    assert "PV_BACKUP_STAGING_DIRECTORY" in refused.value.remedy
    assert list(base.iterdir()) == []
    (longest,) = (int(word) for word in refused.value.remedy.split() if word.isdigit())
    fitting = open_path / ("x" * (longest - len(str(open_path)) - 1))
    fitting.mkdir(mode=0o711)
    with Sandbox(fitting):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="tools run as ourselves: no directory of ours is closed to them")
def test_a_base_that_postgresqls_user_cannot_reach_is_refused_with_its_setting(tmp_path: Path):
    with pytest.raises(ConfigurationError, match="is closed to it") as refused, Sandbox(tmp_path):
        pass
    assert "PV_BACKUP_STAGING_DIRECTORY" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.soak
@pytest.mark.case("TC-ERR-08")
@pytest.mark.parametrize("dump", [True, False], ids=["dump", "cluster"])
def test_a_restoration_killed_at_each_of_its_steps_leaves_nothing(bench: Bench, dump: bool):
    # Not the last few: which thread comes to its last step is another one each time.
    for number in range(1, len(bench.steps(dump=dump)) - 3):
        kill(bench, dump=dump, number=number)
