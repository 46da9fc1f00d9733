"""The day that a run is for."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow.sdk import Context


def day_of_run(context: Context) -> date:
    """The Europe/Paris date of the run's `run_after`, or the day before if the form says so (SPEC section 2).

    :raises FormatRejected: if the form names any other day, or the run is an old one.
    """
    from pv_backup.services.days import day_to_back_up

    requested = str(context["params"].get("day") or "today")
    return day_to_back_up(context["dag_run"].run_after, requested, now=datetime.now(UTC))
