"""One incident is one alert on each channel, however often it is met, until it is settled or a day old."""

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
from tests.support.recorder import Recorder

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
def mail() -> Recorder:
    return Recorder()


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
        json.dumps(asdict(alert) | {"channel": "mail"}),
        ago,
    )


def test_an_incident_is_news_once(world: JournalWorld, memory: AlertMemory, mail: Recorder):
    assert [memory.tell_once(ALERT, mail) for _ in range(3)] == [True, False, False]

    assert mail.sent == [ALERT.incident]
    assert trail(world) == [("alert", ALERT.incident)]


def test_what_is_recorded_is_the_whole_alert_and_where_it_went(
    world: JournalWorld, memory: AlertMemory, mail: Recorder
):
    memory.tell_once(ALERT, mail)

    (event,) = world.sql("SELECT details FROM pv_backup.backup_audit_events")
    assert event["details"] == asdict(ALERT) | {"channel": "mail"}


def test_each_incident_has_a_memory_of_its_own(memory: AlertMemory, mail: Recorder):
    assert memory.tell_once(ALERT, mail)
    assert memory.tell_once(OTHER, mail)
    assert not memory.tell_once(OTHER, mail)


def test_each_channel_has_a_memory_of_its_own(memory: AlertMemory, mail: Recorder):
    webhook = Recorder("webhook")

    assert [memory.tell_once(ALERT, channel) for channel in (mail, webhook, mail, webhook)] == [
        True,
        True,
        False,
        False,
    ]


def test_what_was_not_delivered_is_not_recorded_and_is_news_still(
    world: JournalWorld, memory: AlertMemory, mail: Recorder
):
    mail.down = True
    with pytest.raises(ConnectionError):
        memory.tell_once(ALERT, mail)
    assert trail(world) == []

    mail.down = False

    assert memory.tell_once(ALERT, mail)
    assert mail.sent == [ALERT.incident]


def test_a_settled_incident_is_news_again_on_every_channel(world: JournalWorld, memory: AlertMemory, mail: Recorder):
    webhook = Recorder("webhook")
    for alert, channel in ((ALERT, mail), (ALERT, webhook), (OTHER, mail)):
        memory.tell_once(alert, channel)

    assert memory.settle([ALERT.incident]) == [ALERT.incident]

    assert memory.tell_once(ALERT, mail)
    assert memory.tell_once(ALERT, webhook)
    assert not memory.tell_once(OTHER, mail)
    assert trail(world)[3:] == [("alert_settled", ALERT.incident), *[("alert", ALERT.incident)] * 2]


def test_only_what_is_open_is_settled(world: JournalWorld, memory: AlertMemory, mail: Recorder):
    assert memory.settle([ALERT.incident, OTHER.incident]) == []
    memory.tell_once(ALERT, mail)
    assert memory.open_incidents("pv_backup_wal_shipping/") == [ALERT.incident]
    memory.settle([ALERT.incident])

    assert memory.settle([ALERT.incident]) == []
    assert memory.open_incidents("pv_backup_wal_shipping/") == []
    assert len(trail(world)) == 2


@pytest.mark.parametrize(("ago", "is_news"), [("23 hours 59 minutes", False), ("24 hours 1 minute", True)])
def test_an_incident_that_lasts_is_told_again_after_a_day(
    world: JournalWorld, memory: AlertMemory, mail: Recorder, ago: str, is_news: bool
):
    told_ago(world, ALERT, ago)

    assert memory.tell_once(ALERT, mail) is is_news
    assert not memory.tell_once(ALERT, mail)


def test_of_many_workers_that_come_at_once_one_tells(world: JournalWorld, memory: AlertMemory, mail: Recorder):
    with ThreadPoolExecutor(5) as pool:
        answers: list[Any] = list(pool.map(lambda _: memory.tell_once(ALERT, mail), range(20)))

    assert sorted(answers) == [False] * 19 + [True]
    assert mail.sent == [ALERT.incident]
    assert trail(world) == [("alert", ALERT.incident)]


@pytest.mark.case("TC-ERR-06")
def test_a_memory_that_cannot_be_reached_says_so_and_sends_nothing(mail: Recorder):
    engine = engine_for(f"postgresql://pv_backup_service@{address_nobody_listens_at()}/journal")
    memory = AlertMemory(sessionmaker(engine))

    with pytest.raises(JournalUnavailable):
        memory.tell_once(ALERT, mail)
    with pytest.raises(JournalUnavailable):
        memory.settle([ALERT.incident])
    assert mail.sent == []


@pytest.mark.case("TC-ERR-06")
def test_a_journal_that_dies_between_sending_and_recording_does_not_make_it_two(
    world: JournalWorld, memory: AlertMemory, mail: Recorder, caplog
):
    class Deadly(Recorder):
        def send(self, alert: Alert) -> None:
            super().send(alert)
            world.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pv_backup_service'")

    deadly = Deadly()

    assert memory.tell_once(ALERT, deadly)

    assert deadly.sent == [ALERT.incident]
    assert "was sent by mail, but not recorded" in caplog.text
