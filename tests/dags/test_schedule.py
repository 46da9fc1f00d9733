"""One run a day and one a Sunday, whatever the clock does, by Airflow's own timetable as the scheduler decodes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pendulum
import pytest
from airflow.serialization.decoders import decode_timetable
from airflow.serialization.encoders import encode_timetable
from airflow.timetables.base import DataInterval, TimeRestriction, Timetable

from pv_backup.services.days import choose_day
from tests.dags.dag_world import dag_bag

PARIS = ZoneInfo("Europe/Paris")
SUNDAY = 6


@dataclass(frozen=True)
class Schedule:
    """What the schedule of a DAG promises.

    :ivar weekday: the only one that has a run, 0 for Monday; None: each.
    :ivar hour: when it is due, by the clock on the wall; the 02:00 that comes twice is one of them.
    :ivar skipped_hour: when instead, where the clock skips that hour.
    """

    dag_id: str
    weekday: int | None
    hour: str
    skipped_hour: str

    @property
    def timetable(self) -> Timetable:
        """Through the serialisation by which it reaches the scheduler."""
        return decode_timetable(encode_timetable(dag_bag().dags[self.dag_id].timetable))

    @property
    def period(self) -> timedelta:
        return timedelta(days=1 if self.weekday is None else 7)

    def days_between(self, first: date, last: date) -> list[date]:
        every = [first + timedelta(days=offset) for offset in range((last - first).days + 1)]
        return [day for day in every if self.weekday in (None, day.weekday())]

    def runs_between(self, first: date, last: date) -> Iterator[datetime]:
        """`run_after` of every scheduled run, first and last day included."""
        start, end = (pendulum.datetime(day.year, day.month, day.day, tz="Europe/Paris") for day in (first, last))
        everything = TimeRestriction(earliest=start, latest=end.add(days=1), catchup=True)
        timetable, interval = self.timetable, None
        while info := timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=everything):
            yield info.run_after
            interval = info.data_interval


DAILY = Schedule("pv_backup_daily_dump", None, "03:00", "03:00")
WEEKLY = Schedule("pv_backup_weekly_basebackup", SUNDAY, "02:00", "03:00")
WATCHDOG = Schedule("pv_backup_watchdog", None, "04:00", "04:00")
DEADLINE = Schedule("pv_backup_deadline", None, "03:45", "03:45")
RETENTION = Schedule("pv_backup_retention", None, "05:00", "05:00")
COMPLIANCE = Schedule("pv_backup_compliance", None, "06:00", "06:00")
# Of no day, and by no hour.
ROUNDS = Schedule("pv_backup_reconciliation", None, "", "")
each_schedule = pytest.mark.parametrize(
    "schedule",
    [
        pytest.param(DAILY, marks=pytest.mark.case("TC-NOM-01"), id="daily dump"),
        pytest.param(WEEKLY, marks=pytest.mark.case("TC-NOM-03"), id="weekly base backup"),
        pytest.param(WATCHDOG, marks=pytest.mark.case("TC-NOM-05"), id="watchdog"),
        pytest.param(DEADLINE, marks=pytest.mark.case("TC-NOM-01"), id="deadline"),
        pytest.param(RETENTION, marks=pytest.mark.case("TC-NOM-08"), id="retention"),
        pytest.param(COMPLIANCE, marks=pytest.mark.case("TC-INV-09"), id="compliance"),
    ],
)


@each_schedule
@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25), date(2027, 3, 28), date(2027, 10, 31)])
def test_a_clock_change_neither_drops_nor_doubles_a_run(schedule: Schedule, change: date):
    first, last = change - timedelta(days=8), change + timedelta(days=8)

    runs = list(schedule.runs_between(first, last))

    assert [choose_day(run, "today") for run in runs] == schedule.days_between(first, last)
    hours = {choose_day(run, "today"): run.astimezone(PARIS).strftime("%H:%M") for run in runs}
    spring = change.month == 3
    assert hours.pop(change) == (schedule.skipped_hour if spring else schedule.hour)
    assert set(hours.values()) == {schedule.hour}


@each_schedule
def test_ten_years_have_each_run_exactly_once(schedule: Schedule):
    first, last = date(2026, 1, 1), date(2035, 12, 31)

    counted = Counter(choose_day(run, "today") for run in schedule.runs_between(first, last))

    assert counted == Counter(schedule.days_between(first, last))


@each_schedule
def test_a_scheduler_that_was_down_for_a_month_starts_one_run(schedule: Schedule):
    (started,) = started_after_a_month(schedule.dag_id, schedule.timetable)

    assert datetime.now(UTC) - started < schedule.period + timedelta(hours=1)


@pytest.mark.case("TC-NOM-07")
def test_reconciliation_comes_at_once_when_the_scheduler_does():
    (started,) = started_after_a_month(ROUNDS.dag_id, ROUNDS.timetable)

    assert datetime.now(UTC) - started < timedelta(minutes=6)


@pytest.mark.case("TC-NOM-07")
@pytest.mark.parametrize("change", [date(2026, 3, 29), date(2026, 10, 25)])
def test_reconciliation_comes_every_five_minutes_also_when_the_clock_changes(change: date):
    seconds = [run.timestamp() for run in ROUNDS.runs_between(change, change)]

    assert {later - earlier for earlier, later in pairwise(seconds)} == {300}
    assert seconds[-1] - seconds[0] > 22 * 3600


@pytest.mark.case("TC-INV-09")
class TestDrills:
    DRILL = Schedule("pv_backup_restoration_drill", None, "", "")

    def test_there_are_never_more_than_ninety_days_between_two(self):
        # The scheduler keeps what it started in UTC.
        begin, end = pendulum.datetime(2026, 1, 1), pendulum.datetime(2030, 12, 31)
        everything = TimeRestriction(earliest=begin, latest=end, catchup=True)
        runs, interval = [], None
        while info := self.DRILL.timetable.next_dagrun_info(
            last_automated_data_interval=interval, restriction=everything
        ):
            runs.append(info.run_after)
            interval = info.data_interval

        assert len(runs) > 20
        assert {(later - earlier).total_seconds() for earlier, later in pairwise(runs)} == {90 * 86400}

    def test_the_first_begins_at_once_when_its_dag_is_unpaused(self):
        dag = dag_bag().dags[self.DRILL.dag_id]
        restriction = TimeRestriction(earliest=pendulum.instance(dag.start_date), latest=None, catchup=dag.catchup)

        info = self.DRILL.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)

        assert info is not None
        assert abs(info.run_after - datetime.now(UTC)) < timedelta(minutes=1)

    def test_one_that_fell_into_an_outage_is_made_up_for_at_once_and_only_once(self):
        now = pendulum.instance(datetime.now(UTC))
        restriction = TimeRestriction(earliest=now.subtract(years=1), latest=None, catchup=False)
        last = DataInterval.exact(now.subtract(days=100))

        info = self.DRILL.timetable.next_dagrun_info(last_automated_data_interval=last, restriction=restriction)
        assert info is not None
        following = self.DRILL.timetable.next_dagrun_info(
            last_automated_data_interval=info.data_interval, restriction=restriction
        )

        assert abs(info.run_after - datetime.now(UTC)) < timedelta(minutes=1)
        assert following is not None
        assert (following.run_after - info.run_after).total_seconds() == 90 * 86400


def started_after_a_month(dag_id: str, timetable: Timetable) -> list[datetime]:
    """`run_after` of what a scheduler starts that was down for thirty days."""
    now = datetime.now(UTC)
    before_the_outage = pendulum.instance(now) - timedelta(days=30)
    dag = dag_bag().dags[dag_id]
    restriction = TimeRestriction(earliest=pendulum.instance(dag.start_date), latest=None, catchup=dag.catchup)
    interval, started = DataInterval.exact(before_the_outage), []
    while True:
        info = timetable.next_dagrun_info(last_automated_data_interval=interval, restriction=restriction)
        assert info is not None
        if info.run_after > now:
            return started
        started.append(info.run_after)
        interval = info.data_interval
