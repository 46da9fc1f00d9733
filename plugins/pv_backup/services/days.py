"""The day of a run: the Europe/Paris date of its ``run_after``, scheduled and manual alike (SPEC section 2)."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from pv_backup.services.errors import FormatRejected

PARIS: Final = ZoneInfo("Europe/Paris")


def day_of(run_after: datetime) -> date:
    """The calendar day in Paris, so that a backup's name does not change with the worker's time zone.

    :raises FormatRejected: for a time without a zone, which names no instant.
    """
    if run_after.tzinfo is None:
        raise FormatRejected("run_after", f"{run_after.isoformat()} has no time zone", remedy="pass an aware datetime")
    return run_after.astimezone(PARIS).date()


def choose_day(run_after: datetime, requested: str) -> date:
    """The day that an operator asked for, which must be the run's own or the one before it.

    :param requested: ``today``, ``yesterday``, or one of these two days as ``YYYY-MM-DD``.
    :raises FormatRejected: for anything else: an older day's data is gone, a later one's is not there.
    """
    today = day_of(run_after)
    yesterday = today - timedelta(days=1)
    allowed = {"today": today, "yesterday": yesterday, today.isoformat(): today, yesterday.isoformat(): yesterday}
    if requested not in allowed:
        raise FormatRejected(
            "day",
            f"{requested!r} is neither today ({today}) nor yesterday ({yesterday}) in Paris",
            remedy=f"give today, yesterday, {today} or {yesterday}",
        )
    return allowed[requested]


def day_to_back_up(run_after: datetime, requested: str, *, now: datetime) -> date:
    """The day that an attempt opened now may be for.

    A cleared old run, a backfill or a run triggered with an old logical date names an old day, and what would be
    exported under its name is the data of now.

    :raises FormatRejected: if the day is neither today nor yesterday in Paris, by the clock and not by the run.
    """
    day = choose_day(run_after, requested)
    today = day_of(now)
    if not today - timedelta(days=1) <= day <= today:
        raise FormatRejected(
            "day",
            f"{day} is neither today ({today}) nor yesterday in Paris: the export would hold the data of now",
            remedy="trigger a new run instead of clearing, backfilling or back-dating one",
        )
    return day
