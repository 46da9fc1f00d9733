"""One run a day, whatever the clock does, by Airflow's own timetable as the scheduler decodes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval, TimeRestriction, Timetable

from pv_backup.services.days import choose_day
from tests.dags.dag_world import dag_bag

pytestmark = pytest.mark.case("TC-NOM-01")

PARIS = ZoneInfo("Europe/Paris")
DAILY_DUMP = "pv_backup_daily_dump"


def timetable() -> Timetable:
    """The schedule, through the serialisation by which it reaches the scheduler."""
    return decode_timetable(encode_timetable(dag_bag().dags[DAILY_DUMP].timetable))


def runs_between(first: date, last: date) -> Iterator[datetime]:
    """`run_after` of every scheduled run, first and last day included."""
    start, end = (pendulum.datetime(day.year, day.month, day.day, tz="Europe/Paris") for day in (first, last))
    everything = TimeRestriction(earliest=start, latest=end.add(days=1), catchup=True)
    schedule, interval = timetable(), None
    while info := schedule.next_dagrun_info(last_automated_data_interval=interval, restriction=everything):
        yield info.run_after
        interval = info.data_interval


def days_from(first: date, last: date) -> list[date]:
    return [first + timedelta(days=offset) for offset in range((last - first).days + 1)]


@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25), date(2027, 3, 28), date(2027, 10, 31)])
def test_a_clock_change_neither_drops_nor_doubles_the_night(change: date):
    first, last = change - timedelta(days=2), change + timedelta(days=2)

    runs = list(runs_between(first, last))

    assert [choose_day(run, "today") for run in runs] == days_from(first, last)
    assert {run.astimezone(PARIS).strftime("%H:%M") for run in runs} == {"03:00"}


def test_ten_years_have_one_run_each_day():
    first, last = date(2026, 1, 1), date(2035, 12, 31)

    counted = Counter(choose_day(run, "today") for run in runs_between(first, last))

    assert counted == Counter(days_from(first, last))


def test_a_scheduler_that_was_down_for_a_month_starts_one_run():
    schedule, now = timetable(), datetime.now(UTC)
    before_the_outage = pendulum.instance(now) - timedelta(days=30)
    dag = dag_bag().dags[DAILY_DUMP]
    restriction = TimeRestriction(earliest=pendulum.instance(dag.start_date), latest=None, catchup=dag.catchup)
    interval, started = DataInterval.exact(before_the_outage), []

    while True:
        info = schedule.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        assert info is not None
        if info.run_after > now:
            break
        started.append(info.run_after)
        interval = info.data_interval

    assert len(started) == 1
    assert now - started[0] < timedelta(hours=25)
