"""The day of a run, through midnight and both clock changes of Paris."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from pv_backup.services.days import PARIS, choose_day, day_of, day_to_back_up
from pv_backup.services.errors import FormatRejected

pytestmark = pytest.mark.case("TC-NOM-01", "TC-NEG-05")


@pytest.mark.parametrize(
    ("run_after", "day"),
    [
        (datetime(2026, 1, 15, 22, 59, 59, tzinfo=UTC), date(2026, 1, 15)),
        (datetime(2026, 1, 15, 23, 0, tzinfo=UTC), date(2026, 1, 16)),
        (datetime(2026, 7, 15, 21, 59, 59, tzinfo=UTC), date(2026, 7, 15)),
        (datetime(2026, 7, 15, 22, 0, tzinfo=UTC), date(2026, 7, 16)),
        # The hour that does not exist, and the one that comes twice.
        (datetime(2026, 3, 29, 1, 0, tzinfo=UTC), date(2026, 3, 29)),
        (datetime(2026, 10, 25, 2, 30, tzinfo=PARIS), date(2026, 10, 25)),
        (datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=PARIS), date(2026, 10, 25)),
        (datetime(2026, 12, 31, 23, 30, tzinfo=UTC), date(2027, 1, 1)),
    ],
)
def test_the_day_is_the_date_in_paris(run_after, day):
    assert day_of(run_after) == day


def test_a_time_without_zone_is_no_instant():
    with pytest.raises(FormatRejected, match="run_after"):
        day_of(datetime(2026, 1, 15, 12, 0))


@pytest.mark.parametrize(
    ("requested", "day"),
    [
        ("today", date(2026, 3, 1)),
        ("2026-03-01", date(2026, 3, 1)),
        ("yesterday", date(2026, 2, 28)),
        ("2026-02-28", date(2026, 2, 28)),
    ],
)
def test_an_operator_may_name_today_or_yesterday(requested, day):
    assert choose_day(datetime(2026, 2, 28, 23, 30, tzinfo=UTC), requested) == day


@pytest.mark.parametrize(
    "requested",
    ["2026-02-27", "2026-03-02", "20260301", "2026-W09-7", "TODAY", "", "tomorrow", "2026-02-30", " today"],
)
def test_nothing_else(requested):
    with pytest.raises(FormatRejected) as refused:
        choose_day(datetime(2026, 2, 28, 23, 30, tzinfo=UTC), requested)
    assert refused.value.field == "day"
    assert "2026-03-01" in refused.value.remedy
    assert "2026-02-28" in refused.value.remedy


@pytest.mark.parametrize("requested", ["today", "yesterday"])
def test_a_run_of_now_backs_up_today_or_yesterday(requested):
    now = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    assert day_to_back_up(now, requested, now=now) == choose_day(now, requested)


def test_a_run_that_waited_past_midnight_keeps_its_day():
    run_after, now = datetime(2026, 6, 1, 21, 0, tzinfo=UTC), datetime(2026, 6, 2, 3, 0, tzinfo=UTC)
    assert day_to_back_up(run_after, "today", now=now) == date(2026, 6, 1)


@pytest.mark.parametrize(
    ("run_after", "requested"),
    [
        (datetime(2026, 5, 30, 12, 0, tzinfo=UTC), "today"),
        (datetime(2026, 6, 1, 12, 0, tzinfo=UTC), "yesterday"),
        (datetime(2026, 6, 3, 12, 0, tzinfo=UTC), "today"),
    ],
)
def test_an_old_or_future_run_does_not_name_the_data_of_now(run_after, requested):
    with pytest.raises(FormatRejected, match="data of now"):
        day_to_back_up(run_after, requested, now=datetime(2026, 6, 2, 12, 0, tzinfo=UTC))
