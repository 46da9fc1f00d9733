"""One incident is one alert, however often it is met, until it is settled or a day old."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import pytest
from sqlalchemy.orm import sessionmaker

from pv_backup.services.alert_memory import AlertMemory
from pv_backup.services.alerts import Alert, Level
from pv_backup.services.database import engine_for
from pv_backup.services.errors import JournalUnavailable
from tests.integration.journal_world import JournalWorld, opened
from tests.integration.vault_world import address_nobody_listens_at

pytestmark = pytest.mark.case("TC-NOM-02", "TC-ERR-03")

ALERT = Alert(
    Level.CRITICAL,
    "ERR-47-03",
    "pv_backup_wal_shipping",
    "2026-03-29",
    "S3 does not answer",
    "bring it back",
    incident="pv_backup_wal_shipping/ERR-47-03",
)
OTHER = replace(ALERT, code="WAL-GAP", incident="pv_backup_wal_shipping/WAL-GAP/000000010000000000000007")


@pytest.fixture
def world(journal_db) -> Iterator[JournalWorld]:
    with opened(journal_db) as world:
        yield world


@pytest.fixture
def memory(world: JournalWorld) -> AlertMemory:
    return AlertMemory(world.sessions)


def trail(world: JournalWorld) -> list[tuple[str, str]]:
    events = world.sql("SELECT event_type, details FROM pv_backup.backup_audit_events ORDER BY id")
    return [(event["event_type"], event["details"]["incident"]) for event in events]


def told_ago(world: JournalWorld, alert: Alert, ago: str) -> None:
    """An alert of some time ago: nobody may change when a recorded one was."""
    world.sql(
        "INSERT INTO pv_backup.backup_audit_events (event_type, details, occurred_at)"
        " VALUES ('alert', %s, clock_timestamp() - %s::interval)",
        json.dumps(asdict(alert)),
        ago,
    )


def test_an_incident_is_news_once(world: JournalWorld, memory: AlertMemory):
    assert [memory.claim(ALERT) for _ in range(3)] == [True, False, False]
    assert trail(world) == [("alert", ALERT.incident)]


def test_what_is_recorded_is_the_whole_alert(world: JournalWorld, memory: AlertMemory):
    memory.claim(ALERT)

    (event,) = world.sql("SELECT details FROM pv_backup.backup_audit_events")
    assert event["details"] == asdict(ALERT)


def test_each_incident_has_a_memory_of_its_own(memory: AlertMemory):
    assert memory.claim(ALERT)
    assert memory.claim(OTHER)
    assert not memory.claim(OTHER)


def test_a_settled_incident_is_news_again(world: JournalWorld, memory: AlertMemory):
    memory.claim(ALERT)
    memory.claim(OTHER)

    assert memory.settle([ALERT.incident]) == [ALERT.incident]

    assert memory.claim(ALERT)
    assert not memory.claim(OTHER)
    assert trail(world)[2:] == [("alert_settled", ALERT.incident), ("alert", ALERT.incident)]


def test_only_what_is_open_is_settled(world: JournalWorld, memory: AlertMemory):
    assert memory.settle([ALERT.incident, OTHER.incident]) == []
    memory.claim(ALERT)
    memory.settle([ALERT.incident])

    assert memory.settle([ALERT.incident]) == []
    assert len(trail(world)) == 2


@pytest.mark.parametrize(("ago", "is_news"), [("23 hours 59 minutes", False), ("24 hours 1 minute", True)])
def test_an_incident_that_lasts_is_told_again_after_a_day(
    world: JournalWorld, memory: AlertMemory, ago: str, is_news: bool
):
    told_ago(world, ALERT, ago)

    assert memory.claim(ALERT) is is_news
    assert not memory.claim(ALERT)


def test_of_many_workers_that_come_at_once_one_is_told(world: JournalWorld, memory: AlertMemory):
    with ThreadPoolExecutor(5) as pool:
        answers: list[Any] = list(pool.map(lambda _: memory.claim(ALERT), range(20)))

    assert sorted(answers) == [False] * 19 + [True]
    assert trail(world) == [("alert", ALERT.incident)]


@pytest.mark.case("TC-ERR-06")
def test_a_memory_that_cannot_be_reached_says_so():
    engine = engine_for(f"postgresql://pv_backup_service@{address_nobody_listens_at()}/journal")
    memory = AlertMemory(sessionmaker(engine))

    with pytest.raises(JournalUnavailable):
        memory.claim(ALERT)
    with pytest.raises(JournalUnavailable):
        memory.settle([ALERT.incident])
