"""Fixtures that several files of integration tests share."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.break_glass_world import Left, what_is_left
from tests.integration.contract_world import Restored
from tests.integration.vault_world import Connect, Engine, hook_maker, own_engine
from tests.integration.wal_world import RecordedWal, record
from tests.support.clusters import ClusterTemplate
from tests.support.people import People, on_call
from tests.support.servers import TestStack
from tests.support.webhook import Endpoint, endpoint


@pytest.fixture
def engine(stack: TestStack) -> Iterator[Engine]:
    with own_engine(stack.vault.client()) as engine:
        yield engine


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Connect:
    return hook_maker(monkeypatch)


@pytest.fixture
def people(monkeypatch: pytest.MonkeyPatch) -> Iterator[People]:
    """A mailbox and an endpoint, which get what this process tells people."""
    with on_call() as people:
        reach(monkeypatch, people.environment)
        yield people


@pytest.fixture
def phone(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    """The endpoint alone."""
    with endpoint() as phone:
        reach(monkeypatch, phone.environment)
        yield phone


def reach(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """Let this process find what listens there."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def disk(open_path: Path) -> Iterator[Callable[[float], Path]]:
    """Mounts a disk of so many MiB, which only root can."""
    with ExitStack() as mounted:

        def mount(mebibytes: float) -> Path:
            place = open_path / "disk"
            place.mkdir()
            options = f"size={int(mebibytes * 1024)}k,mode=0711"
            subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True)
            mounted.callback(place.rmdir)
            mounted.callback(subprocess.run, ["umount", "--lazy", place], check=True)
            return place

        yield mount


@pytest.fixture(scope="session")
def recorded(cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory) -> RecordedWal:
    """The WAL of a cluster, through one promotion; files of 1 MiB."""
    cluster = cluster_template.copied()
    try:
        return record(cluster, tmp_path_factory.mktemp("recorded"))
    finally:
        cluster.discard()


@pytest.fixture(scope="session")
def foreign(cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory) -> RecordedWal:
    """The WAL of another cluster: other files under the same names."""
    cluster = cluster_template.new(wal_segment_mb=1)
    try:
        return record(cluster, tmp_path_factory.mktemp("foreign"))
    finally:
        cluster.discard()


@pytest.fixture(scope="module")
def left(
    stack: TestStack, cluster_template: ClusterTemplate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Left]:
    """Bucket and key, after the loss of all else; 4 s."""
    with what_is_left(stack, cluster_template, tmp_path_factory) as left:
        yield left


@pytest.fixture(scope="module")
def kinds(cluster_template: ClusterTemplate) -> Iterator[Restored]:
    """A restored cluster; for the fixture below, which is what a test takes."""
    cluster = cluster_template.new(receiving=False)
    try:
        yield Restored(cluster)
    finally:
        cluster.discard()


@pytest.fixture
def restored(kinds: Restored) -> Iterator[Restored]:
    """The module's restored cluster, without the databases that another test made in it."""
    yield kinds
    kinds.drop_copies()
