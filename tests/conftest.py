"""Fixtures on real servers: started when the first test asks for one, 6 s for all three, gone at the end."""

from __future__ import annotations

import os
import shutil
import signal
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dev import guard
from dev.ports import keep_to_share
from dev.provisioning.databases import drop_database
from pv_backup.services import local_memory
from tests.support.clusters import ClusterTemplate, SourceCluster, open_directory
from tests.support.places import prefer_memory
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack

pytest_plugins = ["tests.case_listing"]

_LONGEST_FIRST = ("system", "infrastructure", "integration")
_STACK = pytest.StashKey[TestStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Keep the servers of tests that run side by side off each other's ports, and let what we start hear signals.

    Those of the long tests stay on disk: they store ten gigabytes.
    """
    if config.getoption("markexpr") in ("", "not soak"):
        prefer_memory()
    for ignored in (signal.SIGINT, signal.SIGQUIT):
        # A shell that runs us in the background has them ignored, and so would all that we start.
        if signal.getsignal(ignored) is signal.SIG_IGN:
            signal.signal(ignored, signal.SIG_DFL)
    if worker := os.environ.get("PYTEST_XDIST_WORKER"):
        keep_to_share(int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: one that begins last is waited for alone."""
    tests = Path(__file__).parent

    def rank(item: pytest.Item) -> int:
        folder = item.path.relative_to(tests).parts[0]
        return _LONGEST_FIRST.index(folder) if folder in _LONGEST_FIRST else len(_LONGEST_FIRST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def _guarded() -> Iterator[None]:
    """Whatever servers the tests start end with pytest, even when it is killed."""
    guard.start()
    yield
    guard.finish()


@pytest.fixture(scope="session")
def stack(_guarded: None, request: pytest.FixtureRequest) -> Iterator[TestStack]:
    """The running servers and their controls: ``stack.s3.kill()``, ``stack.vault.seal()``, ``stack.postgres.stop()``.

    A test need not undo what it stopped or sealed; :func:`_everything_up_again` does.
    """
    stack = TestStack()
    try:
        stack.start()
        request.session.stash[_STACK] = stack
        yield stack
    finally:
        stack.discard()


@pytest.fixture(autouse=True)
def _everything_up_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """Hand the next test servers that run, whatever this one did to them; starts none by itself."""
    yield
    if _STACK in request.session.stash:
        request.session.stash[_STACK].restore()


@pytest.fixture(autouse=True)
def _no_alert_remembered(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A test's own operators find no memory of another test's alerts, and leave none on the machine."""
    directory = tmp_path_factory.getbasetemp() / f"alerts-{uuid.uuid4()}"
    monkeypatch.setattr(local_memory, "own_directory", lambda: directory)


@pytest.fixture
def journal_db(stack: TestStack) -> Iterator[JournalDatabase]:
    """A fresh journal database at the newest schema."""
    journal = stack.new_journal()
    yield journal
    stack.postgres.start()
    drop_database(stack.postgres, journal.superuser_dsn.rpartition("/")[2])


@pytest.fixture
def source_db(stack: TestStack) -> Iterator[SourceDatabase]:
    """A fresh, empty database on the server to back up."""
    source = stack.new_source()
    yield source
    stack.postgres.start()
    drop_database(stack.postgres, source.name)


@pytest.fixture
def bucket(stack: TestStack) -> Bucket:
    """A fresh versioned bucket; it goes with the stack."""
    return stack.new_bucket()


@pytest.fixture(scope="session")
def cluster_template(_guarded: None) -> Iterator[ClusterTemplate]:
    """Where clusters come from; for fixtures with another scope than :func:`source_cluster` has."""
    template = ClusterTemplate()
    yield template
    template.discard()


@pytest.fixture
def source_cluster(cluster_template: ClusterTemplate) -> Iterator[SourceCluster]:
    """A cluster of this test's own, WAL files of 1 MiB, received by a running pg_receivewal; 0.5 s."""
    cluster = cluster_template.copied()
    yield cluster
    cluster.discard()


@pytest.fixture
def new_cluster(cluster_template: ClusterTemplate) -> Iterator[Callable[..., SourceCluster]]:
    """Makes clusters that are copies of no other: ``new_cluster(wal_segment_mb=16, receiving=True)``; 1.5 s each."""
    made: list[SourceCluster] = []

    def make(*, wal_segment_mb: int = 16, receiving: bool = True) -> SourceCluster:
        made.append(cluster_template.new(wal_segment_mb=wal_segment_mb, receiving=receiving))
        return made[-1]

    yield make
    for cluster in made:
        cluster.discard()


@pytest.fixture
def open_path(_guarded: None) -> Iterator[Path]:
    """As ``tmp_path``, but PostgreSQL's user may pass through: for data directories that a server shall run on."""
    directory = open_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def airflow_env(
    stack: TestStack, source_db: SourceDatabase, journal_db: JournalDatabase, bucket: Bucket, tmp_path: Path
) -> dict[str, str]:
    """The whole environment of a subprocess such as ``airflow dags test``, pointed at this test's own fixtures.

    The metadata database stays until the stack goes: whoever the test started may still be connected to it.
    """
    return stack.airflow_environment(home=tmp_path / "airflow", source=source_db, journal=journal_db, bucket=bucket)
