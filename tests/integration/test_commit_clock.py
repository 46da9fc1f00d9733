"""The last commit is looked for in however many segments, and no more than two of them lie on the disk at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import cast

import pytest

from pv_backup.services.postgres import Server
from pv_backup.services.restoration.commit_clock import WalCommitClock
from pv_backup.services.restoration.wal_archive import WalArchive
from pv_backup.services.wal import SegmentName
from tests.support.clusters import ClusterTemplate, SourceCluster

pytestmark = [pytest.mark.case("TC-NOM-02"), pytest.mark.case("TC-NOM-04"), pytest.mark.case("TC-INV-01")]


@dataclass
class Archive:
    """Has what a pg_receivewal wrote, and looks how much lies there already when it is asked for more."""

    directory: Path
    lay_there: list[int] = field(default_factory=list)

    def fetch(self, name: str, path: Path) -> None:
        self.lay_there.append(len(list(path.parent.iterdir())))
        path.write_bytes((self.directory / name).read_bytes())


@pytest.fixture
def cluster(cluster_template: ClusterTemplate) -> Iterator[SourceCluster]:
    cluster = cluster_template.copied()
    yield cluster
    cluster.discard()


def test_a_long_load_without_a_commit_fills_no_disk(cluster: SourceCluster, tmp_path: Path):
    with cluster.server.connect() as connection:
        connection.execute("CREATE TABLE load (content text)")
        connection.commit()
        (before,) = connection.execute("SELECT clock_timestamp()").fetchone() or (None,)
        connection.execute(
            "INSERT INTO load SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 400) CROSS JOIN"
            " generate_series(1, 800) AS row GROUP BY row"
        )
        last = cluster.switch_wal()
        connection.rollback()
    cluster.wait_until_received(last)
    segments = [segment for name in cluster.finished() if (segment := SegmentName.parse(name)) and name <= last]
    archive = Archive(cluster.wal_directory)

    ended = WalCommitClock(cast("WalArchive", archive), tools=Server({}), staging=tmp_path)(segments)

    assert isinstance(before, datetime)
    assert ended is not None
    assert ended < before
    assert len(archive.lay_there) >= 4
    assert max(archive.lay_there) == 1
    assert list(tmp_path.iterdir()) == []
