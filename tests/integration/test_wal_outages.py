"""S3, Vault or the journal away for a while, under load: nothing lost, nothing twice, told once, drained after."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from pv_backup.services import wal_run
from pv_backup.services.artefacts import wal_object_key
from pv_backup.services.wal_closing import SegmentCloser
from tests.integration.wal_schedule import Load, Ran, Schedule, schedule_of
from tests.integration.wal_world import WalWorld, wait_until, wal_world
from tests.support.people import People
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-NOM-02")

IMPATIENT_S = 1.0


@dataclass(frozen=True)
class Outage:
    """A server that goes away and comes back.

    :ivar code: what the alert says.
    """

    code: str
    begin: Callable[[TestStack], object]
    end: Callable[[TestStack], object]


S3 = Outage("ERR-47-03", lambda stack: stack.s3.kill(), lambda stack: stack.s3.start())
VAULT = Outage("ERR-47-02", lambda stack: stack.vault.seal(), lambda stack: stack.vault.unseal())
JOURNAL = Outage("ERR-47-06", lambda stack: stack.postgres.stop(), lambda stack: stack.postgres.start())
OUTAGES = pytest.mark.parametrize(
    "outage",
    [
        pytest.param(S3, marks=pytest.mark.case("TC-ERR-03"), id="S3"),
        pytest.param(VAULT, marks=pytest.mark.case("TC-ERR-02"), id="Vault"),
    ],
)


@pytest.fixture
def world(stack, source_cluster, journal_db, bucket) -> Iterator[WalWorld]:
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        yield world


@pytest.fixture
def schedule(world: WalWorld, journal_db, people: People, monkeypatch) -> Schedule:
    return schedule_of(world, journal_db, monkeypatch)


@pytest.fixture
def load(world: WalWorld, open_path) -> Load:
    return Load(world, open_path)


def runs_during(outage: Outage, schedule: Schedule, *, seconds: float) -> list[Ran]:
    """What the scheduler starts while the server is away, one run after the other."""
    stack = schedule.world.backup.stack
    outage.begin(stack)
    wait_until(schedule.world.waiting, meaning="a file waited in the outage")
    until, runs = time.monotonic() + seconds, []
    while time.monotonic() < until or len(runs) < 2:
        runs.append(schedule.run())
        time.sleep(0.5)
    outage.end(stack)
    return runs


def assert_all_there_once(world: WalWorld, load: Load) -> None:
    """Every file that pg_receivewal finished is in the bucket, unbroken, as it was written, in one version."""
    contents = load.contents()
    shipped = world.shipped()
    numbers = [int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in shipped]
    assert numbers == list(range(numbers[0], numbers[0] + len(shipped))), "a hole in the bucket"
    assert contents
    assert set(contents) <= set(shipped)
    for name, content in contents.items():
        assert world.fetched(name) == content, name
    events = [(event["object_key"], str(event["backup_id"])) for event in world.events()]
    assert events == [(wal_object_key(name), world.backup_id_of(name)) for name in shipped]
    assert [world.bucket.versions(wal_object_key(name)) for name in shipped] == [
        [wal_object_key(name)] for name in shipped
    ]


def two_outages(
    outage: Outage, schedule: Schedule, load: Load, people: People, *, seconds: float, run_at_most_s: float
) -> None:
    with load:
        schedule.run_until_well()
        for incident in (1, 2):
            runs = runs_during(outage, schedule, seconds=seconds)
            assert len(runs) > 1
            assert all(ran.error for ran in runs)
            assert max(ran.seconds for ran in runs) < run_at_most_s
            schedule.run_until_well()
            told = [("alert", outage.code)] * 3  # log, mail, webhook
            assert schedule.trail() == [*told, ("alert_settled", outage.code)] * incident
            assert people.codes == [outage.code] * incident
    schedule.run_until_well()
    assert schedule.world.waiting() == []
    assert_all_there_once(schedule.world, load)


@OUTAGES
def test_an_outage_is_told_once_and_again_when_it_comes_back(
    schedule: Schedule, load: Load, people: People, outage: Outage, monkeypatch
):
    monkeypatch.setattr(wal_run, "S3_PATIENCE_S", IMPATIENT_S)
    two_outages(outage, schedule, load, people, seconds=4, run_at_most_s=28)


@pytest.mark.soak
@OUTAGES
def test_five_minutes_away_lose_and_repeat_nothing(schedule: Schedule, load: Load, people: People, outage: Outage):
    two_outages(outage, schedule, load, people, seconds=300, run_at_most_s=45)


@pytest.mark.case("TC-ERR-06")
@pytest.mark.parametrize("seconds", [3, pytest.param(300, marks=pytest.mark.soak)])
def test_files_wait_for_a_journal_that_is_away(schedule: Schedule, load: Load, people: People, seconds: float, caplog):
    with load:
        schedule.run_until_well()
        shipped_before = len(schedule.world.shipped())
        runs = runs_during(JOURNAL, schedule, seconds=seconds)
        assert all("ERR-47-06" in str(ran.error) for ran in runs)
        assert caplog.text.count("ALERT critical ERR-47-06") == 1, "this worker remembers what it told"
        assert people.codes == ["ERR-47-06"]
        assert len(schedule.world.shipped()) > shipped_before
        schedule.run_until_well()
    schedule.run_until_well()
    assert schedule.world.waiting() == []
    assert_all_there_once(schedule.world, load)


def test_a_receiver_that_is_away_is_told_once_while_the_rest_is_shipped(
    schedule: Schedule, people: People, monkeypatch
):
    monkeypatch.setitem(SegmentCloser.__init__.__kwdefaults__, "receiver_patience_s", IMPATIENT_S)
    world = schedule.world
    first, second = world.segments(2)
    world.cluster.receiver.stop()
    (world.directory / second).rename(world.directory / "aside")
    assert schedule.run().error is not None
    (world.directory / "aside").rename(world.directory / second)
    assert schedule.run().error is not None
    assert {first, second} <= set(world.shipped())
    assert schedule.trail() == [("alert", "WAL-RECEIVER")] * 3
    assert people.codes == ["WAL-RECEIVER"]

    world.cluster.start_receiving()
    schedule.run_until_well()

    assert schedule.trail()[3:] == [("alert_settled", "WAL-RECEIVER")]
