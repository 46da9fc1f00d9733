"""One compliance incident: how it reads, and what it takes to close it (SPEC F4.5)."""

from __future__ import annotations

import re
import unicodedata
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Self
from uuid import UUID

from pv_backup.services.drill_errors import PlanMissing
from pv_backup.services.errors import FormatRejected

if TYPE_CHECKING:
    from pv_backup.services.models import ComplianceIncident

#: Characters of an action plan, blanks not counted: less than "ask Ann to replace the disk" is no plan; a quarter of
#: as many must differ. The database has the same number in the newest include/sql/*/incidents.sql; tests compare both.
PLAN_MIN: Final = 20
#: Characters of an action plan, all counted: it is stored whole, never cut.
PLAN_MAX: Final = 4000

# Letters and marks by their category, and drawn as nothing: fillers and variation selectors.
_DRAWN_AS_NOTHING: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
_REMEDY: Final = f"say in at least {PLAN_MIN} characters what will be done, by whom and until when"


@dataclass(frozen=True, kw_only=True)
class Incident:
    """What stands open, or how it was closed.

    :ivar drill_id: whose it is, None if it is that there was no drill.
    :ivar code: of the error, such as ``ERR-47-04``.
    :ivar check: the check that failed, None where it did not come to one.
    :ivar action_plan: None while it is open, likewise the two after it.
    """

    incident_id: str
    drill_id: str | None
    code: str
    check: str | None
    cause: str
    next_step: str
    opened_at: datetime
    action_plan: str | None = None
    closed_by: str | None = None
    closed_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether nobody has said yet what will be done."""
        return self.closed_at is None

    @classmethod
    def of(cls, row: ComplianceIncident) -> Self:
        """Read it off its row."""
        return cls(
            incident_id=row.incident_id,
            drill_id=row.drill_id,
            code=row.code,
            check=row.failed_check,
            cause=row.reason,
            next_step=row.next_step or "",
            opened_at=row.opened_at,
            action_plan=row.action_plan,
            closed_by=row.closed_by,
            closed_at=row.closed_at,
        )


def check_plan(action_plan: object) -> str:
    """The plan as it is stored: nothing invisible at its ends or in it.

    :raises PlanMissing: if it is none: blank, too short, too long, or the same character again and again.
    """
    plan = "".join(_visible(character) for character in str(action_plan or "")).strip()
    seen = visible(plan)
    if len(seen) < PLAN_MIN or len(set(seen)) < PLAN_MIN // 4:
        raise PlanMissing(
            f"the action plan {plan[:PLAN_MIN]!r} says nothing" if plan else "there is no action plan", remedy=_REMEDY
        )
    if len(plan) > PLAN_MAX:
        raise PlanMissing(
            f"the action plan has {len(plan)} characters, and {PLAN_MAX} at most are kept",
            remedy="say it shorter, and name the document that has the rest",
        )
    return plan


def check_closer(closed_by: object) -> str:
    """The name of who closes.

    :raises PlanMissing: if it is none: somebody must answer for the plan.
    """
    name = "".join(_visible(character) for character in str(closed_by or "")).strip()
    if not visible(name):
        raise PlanMissing("nobody's name stands under the action plan", remedy="close the incident under your name")
    return name


def check_incident_id(value: str) -> str:
    """A UUID as the table has it; it comes from a form.

    :raises FormatRejected: otherwise.
    """
    with suppress(ValueError, AttributeError, TypeError):
        if str(UUID(value)) == value:
            return value
    raise FormatRejected(
        "incident_id", f"{str(value)[:120]!r} is no UUID in lower case", remedy="take it from the incident's alert"
    )


def visible(text: str) -> str:
    """What a reader sees of it, blanks left out; `pv_backup.visible` of the database does the same."""
    return _DRAWN_AS_NOTHING.sub("", "".join("".join(_visible(character) for character in text).split()))


def _visible(character: str) -> str:
    """Line breaks and tabs stay; what prints nothing (NUL, zero-width spaces, lone surrogates) goes."""
    if character in "\n\t":
        return character
    return "" if unicodedata.category(character).startswith("C") else character
