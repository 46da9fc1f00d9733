"""The day that a run is for."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context


def day_of_run(context: Context) -> date:
    """The Europe/Paris date of the run's `run_after`, or the day before if the form says so (SPEC section 2).

    It stays the same however long the run lasts: a backup that succeeded before midnight is looked at after it.

    :raises FormatRejected: if the form names any other day.
    """
    from pv_backup.services.days import choose_day

    return choose_day(context["dag_run"].run_after, _requested(context))


def day_to_open(context: Context) -> date:
    """The same day, for a task after which data of now is filed under it.

    :raises FormatRejected: if the form names any other day, or the run is an old one.
    """
    from pv_backup.services.days import day_to_back_up

    return day_to_back_up(context["dag_run"].run_after, _requested(context), now=datetime.now(UTC))


def _requested(context: Context) -> str:
    return str(context["params"].get("day") or "today")
