"""The open segment of a quiet server: closed when a commit waits in it, and else left alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psycopg
import pytest

from pv_backup.services.errors import ExportFailed, ReceiverDown
from pv_backup.services.wal_closing import SegmentCloser
from pv_backup.services.wal_spool import WalSpool
from tests.integration.wal_world import WalWorld, wal_world

pytestmark = pytest.mark.case("TC-NOM-02")

AT_ONCE = 0.0


@pytest.fixture
def world(stack, source_cluster, journal_db, bucket) -> Iterator[WalWorld]:
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        world.cluster.sql("CREATE TABLE note (said text)")
        yield world


def settled(world: WalWorld) -> WalWorld:
    """The state after a closing: the open segment is known to hold nothing that anybody committed."""
    closer = world.closer(older_than_s=AT_ONCE)
    closer.close_if_due()
    assert closer.close_if_due() is None
    return world


def commit(world: WalWorld) -> None:
    world.cluster.sql("INSERT INTO note VALUES ('seen')")


def segment_of_the_last_commit(world: WalWorld) -> str:
    ((name,),) = world.cluster.sql("SELECT pg_walfile_name(pg_current_wal_insert_lsn())")
    return str(name)


def test_a_single_committed_row_closes_its_segment_which_pg_receivewal_finishes(world: WalWorld):
    settled(world)
    commit(world)
    segment = segment_of_the_last_commit(world)

    closed = world.closer(older_than_s=AT_ONCE).close_if_due()

    assert closed == segment
    assert segment in world.cluster.finished()


def test_a_run_ships_the_segment_that_it_closed(world: WalWorld):
    settled(world)
    commit(world)

    report = world.run(closer=world.closer(older_than_s=AT_ONCE))

    assert report.closed in world.shipped()
    assert report.problems == []


def test_what_the_server_writes_by_itself_closes_nothing(world: WalWorld):
    settled(world)
    before = segment_of_the_last_commit(world)

    for _ in range(3):
        world.cluster.sql("CHECKPOINT")
        assert world.closer(older_than_s=AT_ONCE).close_if_due() is None

    assert segment_of_the_last_commit(world) == before


def test_a_young_segment_is_left_open_however_much_is_in_it(world: WalWorld):
    settled(world)
    commit(world)

    assert world.closer(older_than_s=60).close_if_due() is None


def test_its_age_counts_from_its_opening_and_not_from_its_first_commit(world: WalWorld):
    settled(world)
    time.sleep(1.2)
    commit(world)

    assert world.closer(older_than_s=1).close_if_due() is not None


def test_a_transaction_that_was_open_at_the_last_closing_and_commits_later_is_seen(world: WalWorld):
    with psycopg.connect(world.cluster.dsn) as connection:
        connection.execute("INSERT INTO note VALUES ('early')")
        settled(world)
        connection.commit()

        assert world.closer(older_than_s=AT_ONCE).close_if_due() is not None


def test_a_rolled_back_transaction_does_no_harm(world: WalWorld):
    settled(world)
    with psycopg.connect(world.cluster.dsn) as connection:
        connection.execute("INSERT INTO note VALUES ('never')")
        connection.rollback()
    world.closer(older_than_s=AT_ONCE).close_if_due()

    assert world.closer(older_than_s=AT_ONCE).close_if_due() is None


def test_a_lost_note_costs_one_closing_and_no_more(world: WalWorld):
    settled(world)
    (world.cluster.wal_directory / ".pv_backup.json").write_text("torn {")
    closer = world.closer(older_than_s=AT_ONCE)

    closer.close_if_due()

    assert closer.close_if_due() is None


def test_a_source_without_the_slot_is_named(world: WalWorld):
    world.cluster.receiver.stop()
    world.cluster.sql("SELECT pg_drop_replication_slot('pv_backup')")

    with pytest.raises(ReceiverDown, match="has no replication slot pv_backup"):
        world.closer().close_if_due()


def test_a_receiver_that_is_away_is_named(world: WalWorld):
    world.cluster.receiver.kill()

    with pytest.raises(ReceiverDown, match="no pg_receivewal is connected"):
        world.closer(receiver_patience_s=1).close_if_due()


def test_a_receiver_that_writes_elsewhere_is_named(world: WalWorld, tmp_path):
    closer = SegmentCloser(
        server=world.cluster.server, spool=WalSpool(directory=tmp_path), older_than_s=AT_ONCE, receiver_patience_s=1
    )
    commit(world)

    with pytest.raises(ReceiverDown, match="writes elsewhere"):
        closer.close_if_due()


def test_a_receiver_that_is_being_restarted_is_waited_for(world: WalWorld):
    world.cluster.receiver.stop()
    world.cluster.start_receiving()

    world.closer().close_if_due()


@pytest.mark.case("TC-ERR-01")
def test_a_source_that_is_down_keeps_no_file_from_being_shipped(world: WalWorld):
    names = world.segments(2)
    world.cluster.postgres.kill()

    report = world.run(closer=world.closer())

    assert set(names) <= set(world.shipped())
    (problem,) = report.problems
    assert isinstance(problem.error, ExportFailed)
    assert "does not let us in" in problem.error.what


def test_a_standby_has_nothing_to_close(world: WalWorld):
    world.cluster.postgres.stop()
    (world.cluster.postgres.data_directory / "standby.signal").touch()
    world.cluster.postgres.start()
    world.cluster.receiver.stop()
    world.cluster.start_receiving()

    assert world.closer(older_than_s=AT_ONCE).close_if_due() is None
