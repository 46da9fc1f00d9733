"""A dump that is not over by 03:45 Europe/Paris is told, once; one that is over, or whose failure was told, is not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from pv_backup.services.database import sessions_for
from pv_backup.services.days import choose_day
from pv_backup.services.lateness import DUE, late_dump
from tests.integration.journal_world import DAY, JournalWorld, opened
from tests.integration.worker import become_worker, run_task
from tests.support.webhook import Endpoint

pytestmark = pytest.mark.case("TC-NOM-01")

PARIS = ZoneInfo("Europe/Paris")
# The last Sunday of March: at 03:45 the clock has just been put forward.
IN_TIME = datetime(DAY.year, DAY.month, DAY.day, 3, 44, 59, tzinfo=PARIS)
TOO_LATE = datetime(DAY.year, DAY.month, DAY.day, 3, 45, tzinfo=PARIS)


@pytest.fixture
def journal(journal_db) -> Iterator[JournalWorld]:
    with opened(journal_db) as world:
        yield world


def test_a_dump_at_work_is_late_from_the_deadline_on(journal: JournalWorld):
    journal.open(run_id="pv_backup_daily_dump/scheduled__1")

    assert late_dump(journal.sessions, IN_TIME) is None
    late = late_dump(journal.sessions, TOO_LATE)
    assert late is not None
    assert f"the dump of {DAY}, due by 03:45, is RUNNING" in late.what
    assert "scheduled__1" in late.what


@pytest.mark.parametrize(
    "late_at",
    [
        datetime(2026, 1, 15, 2, 45, tzinfo=UTC),
        datetime(2026, 7, 15, 1, 45, tzinfo=UTC),
        datetime(2026, 3, 29, 1, 45, tzinfo=UTC),
        datetime(2026, 10, 25, 2, 45, tzinfo=UTC),
    ],
    ids=["winter", "summer", "clock put forward", "clock put back"],
)
def test_a_day_that_no_run_opened_is_late_by_the_clock_of_paris(journal: JournalWorld, late_at: datetime):
    assert late_dump(journal.sessions, late_at.replace(minute=44)) is None
    late = late_dump(journal.sessions, late_at)
    assert late is not None
    assert f"no run has opened the dump of {choose_day(late_at, 'today')}, due by 03:45" in late.what


def test_a_day_that_waits_for_a_run_is_late(journal: JournalWorld):
    journal.open()
    journal.put_in("SCHEDULED")

    assert late_dump(journal.sessions, TOO_LATE) is not None


def test_a_dump_that_is_over_is_not_late(journal: JournalWorld):
    journal.published()

    assert late_dump(journal.sessions, TOO_LATE) is None


def test_a_failure_that_was_told_is_not_told_again_as_lateness(journal: JournalWorld):
    journal.failed()

    assert late_dump(journal.sessions, TOO_LATE) is None


def test_a_day_that_failed_and_is_tried_again_is_the_relaunchs_to_watch(journal: JournalWorld):
    journal.failed()
    journal.open(run_id="pv_backup_daily_dump/relaunch__1")

    assert journal.row()["status"] == "RUNNING"
    assert late_dump(journal.sessions, TOO_LATE) is None


def test_a_late_day_is_one_alert_however_often_it_is_looked_at(stack, journal_db, bucket, phone: Endpoint, monkeypatch):
    become_worker(monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket=bucket.name)
    sessions, began = sessions_for(journal_db.service_dsn), datetime.now(UTC)
    for _ in range(3):
        assert run_task("pv_backup_deadline", "see_that_the_dump_is_over") is None
    ended = datetime.now(UTC)

    was_late, is_late = (late_dump(sessions, now) is not None for now in (began, ended))
    # Before 03:45 nobody is told; 03:45 or midnight may have come meanwhile.
    assert (was_late, is_late) == tuple(now.astimezone(PARIS).time() >= DUE for now in (began, ended))
    assert len(phone.received) in {was_late, is_late}
    for told in phone.received:
        assert (told["level"], told["code"], told["dag_id"]) == ("critical", "LATE", "pv_backup_daily_dump")
        assert told["day"] in {str(choose_day(now, "today")) for now in (began, ended)}
