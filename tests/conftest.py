"""Fixtures on real servers: started when the first test asks for one, 6 s for all three, gone at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dev.provisioning.databases import drop_database
from tests.support.servers import Bucket, JournalDatabase, SourceDatabase, TestStack

pytest_plugins = ["tests.case_listing"]

_STACK = pytest.StashKey[TestStack]()


@pytest.fixture(scope="session")
def stack(request: pytest.FixtureRequest) -> Iterator[TestStack]:
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


@pytest.fixture
def airflow_env(
    stack: TestStack, source_db: SourceDatabase, journal_db: JournalDatabase, bucket: Bucket, tmp_path: Path
) -> dict[str, str]:
    """The whole environment of a subprocess such as ``airflow dags test``, pointed at this test's own fixtures.

    The metadata database stays until the stack goes: whoever the test started may still be connected to it.
    """
    return stack.airflow_environment(home=tmp_path / "airflow", source=source_db, journal=journal_db, bucket=bucket)
