"""What the DAGs say alike of schedule, retries and forms; the watchdog, which knows no journal, takes this alone."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, Final

from airflow.sdk import Param

from pv_backup.operators.retrying import MAX_RETRIES, BackupRetryPolicy

PARIS: Final = "Europe/Paris"
DAY_PATTERN: Final = r"^(today|yesterday|\d{4}-\d{2}-\d{2})$"
TARGET_PATTERN: Final = r"^(latest|\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2}))$"
SHORT_STEP: Final = timedelta(minutes=30)
LONG_STEP: Final = timedelta(hours=20)


class Tag(StrEnum):
    """The tags by which the UI's list of DAGs is filtered."""

    PV_BACKUP = "pv-backup"
    BACKUP = "backup"
    RESTORATION = "restoration"


BASIC_ARGS: Final[dict[str, Any]] = {
    "owner": "pv-backup",
    "retries": MAX_RETRIES,
    "retry_policy": BackupRetryPolicy(),
    # For a task whose process was killed, and which asked no policy: soon enough to find its lease not run out.
    "retry_delay": timedelta(seconds=10),
    "execution_timeout": SHORT_STEP,
}


def day_form() -> dict[str, Param]:
    """The form of a DAG that backs up a day: which one, and why by hand."""
    return {
        "day": Param(
            "today",
            type="string",
            pattern=DAY_PATTERN,
            examples=["today", "yesterday"],
            title="Day",
            description="The day to back up, Europe/Paris: today or yesterday.",
        ),
        "reason": _reason(),
    }


def drill_form() -> dict[str, Param]:
    """The form of a drill: how far back, by which way, and why by hand."""
    return {
        "target": Param(
            "latest",
            type="string",
            pattern=TARGET_PATTERN,
            examples=["latest"],
            title="Target",
            description="latest, or a time with a zone, such as 2026-11-22T03:15:00+01:00.",
        ),
        "leg": Param(
            "both", type="string", enum=["both", "logical", "physical"], title="Leg", description="Which way back."
        ),
        "reason": _reason(),
    }


def _reason() -> Param:
    return Param("", type="string", maxLength=500, title="Reason", description="Why by hand; the audit trail keeps it.")
