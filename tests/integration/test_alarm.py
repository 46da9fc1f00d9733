"""Alerts that really arrive: an incident is one message on each channel, with all that a person needs."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict

import pytest

from pv_backup.operators.alerting import alarm, alert_of, settle
from tests.integration.alarm_world import ALERT, BACKUP_ID, DAG_ID, ERROR, IDS, connected_journal, context_of, recorded
from tests.integration.journal_world import JournalWorld
from tests.integration.wal_schedule import schedule_of
from tests.integration.wal_world import wal_world
from tests.support.people import People

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-03")


@pytest.fixture
def world(journal_db, monkeypatch) -> Iterator[JournalWorld]:
    with connected_journal(journal_db, monkeypatch) as world:
        yield world


def test_an_alert_reaches_mail_and_webhook_with_all_that_a_person_needs(people: People, world: JournalWorld):
    alarm(IDS).tell(ALERT)

    assert people.mail.subjects == ["[pv-backup] CRITICAL ERR-47-02 pv_backup_daily_dump 2026-11-22"]
    html = people.mail.text_of()
    assert "Vault is sealed &lt;at vault:8200&gt;" in html
    for needed in ("unseal it, then trigger again", f'href="{ALERT.run_url}"', BACKUP_ID):
        assert needed in html
    (posted,) = people.webhook.received
    text = posted.pop("text")
    assert posted == json.loads(json.dumps(asdict(ALERT)))
    for needed in ("CRITICAL", "ERR-47-02", "2026-11-22", "unseal it", ALERT.run_url):
        assert needed in text
    assert sorted(recorded(world)) == [("alert", "log"), ("alert", "mail"), ("alert", "webhook")]


def test_an_incident_is_one_message_until_it_is_settled(people: People, world: JournalWorld):
    for _ in range(5):
        alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"]

    settle(context_of(ERROR), connections=IDS, day="2026-11-22")

    for _ in range(2):
        alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"] * 2


def test_the_success_of_one_day_does_not_settle_another_days_incident(people: People, world: JournalWorld):
    alarm(IDS).tell(ALERT)

    settle(context_of(ERROR), connections=IDS, day="2026-11-23")
    settle(context_of(ERROR), connections=IDS)

    alarm(IDS).tell(ALERT)
    assert people.codes == ["ERR-47-02"]


def test_workers_that_come_at_once_send_one_message(people: People, world: JournalWorld):
    start = threading.Barrier(4)

    def work(_: int) -> None:
        start.wait()
        alarm(IDS).tell(ALERT)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))

    assert people.codes == ["ERR-47-02"]


@pytest.mark.parametrize("count", [10, pytest.param(100, marks=pytest.mark.soak)])
def test_many_failing_wal_runs_are_one_message(
    stack, source_cluster, journal_db, bucket, people: People, count: int, monkeypatch
):
    with wal_world(stack, source_cluster, journal_db, bucket) as world:
        schedule = schedule_of(world, journal_db, monkeypatch)
        monkeypatch.setenv("PV_BACKUP_WAL_DIRECTORY", str(world.directory / "gone"))
        for _ in range(count):
            assert schedule.run().error is not None

        assert people.codes == ["CONFIGURATION"]
        assert schedule.trail() == [("alert", "CONFIGURATION")] * 3


def test_an_alert_in_mid_run_names_its_own_incident(people: People, world: JournalWorld):
    alert_of(context_of(ERROR), ERROR, backup_id=BACKUP_ID, connections=IDS, incident="ERR-47-02/a file")

    (posted,) = people.webhook.received
    assert (posted["incident"], posted["backup_id"]) == (f"{DAG_ID}/ERR-47-02/a file", BACKUP_ID)
