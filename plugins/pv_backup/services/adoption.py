"""Give the state machine back a backup that only the bucket still knows: the journal was lost, the object was not."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date, datetime
from typing import Any, Final

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.attempts import Artefact, event_of
from pv_backup.services.errors import TransitionRefused
from pv_backup.services.models import CLOSED, BackupStatus, JsonValue, Outcome
from pv_backup.services.opening import row_of_day
from pv_backup.services.state import StateMachine
from pv_backup.services.transitions import NOTHING_CHANGED, Move

#: The audit event of a row that was made from the bucket: object_key, by.
ADOPTED: Final = "adopted"


@dataclass(frozen=True, kw_only=True)
class Found:
    """A published backup that was read back and found equal; nothing less may become one of these (SPEC F7).

    :ivar facts: what its manifest says that the row keeps too.
    :ivar began: when its export began; `finished`: when it was published. Retention counts from there, not from today.
    """

    backup_id: str
    artefact_type: ArtefactType
    day: date
    artefact: Artefact
    facts: dict[str, Any]
    began: datetime
    finished: datetime


class AdoptingStateMachine(StateMachine):
    """The state machine, and the one way into SUCCESS that no run of ours goes: for the rebuilding of a journal."""

    def adopt(self, found: Found, *, by: str) -> bool:
        """SCHEDULED → RUNNING → SUCCESS of a day that has no row, its journal event and an audit event at once.

        :param by: who rebuilds, for the audit.
        :returns: False if an earlier, interrupted rebuild did it already.
        :raises TransitionRefused: if the day's row is of another attempt, or the journal says FAILED of this one.
        :raises FormatRejected: before any side effect.
        """
        doing = f"adopting backup {found.backup_id}"
        with self._moving(Move(BackupStatus.RUNNING, found.backup_id), doing) as (session, move):
            row = row_of_day(session, found.artefact_type, found.day, backup_id=found.backup_id)
            move.begin_at(row)
            if row.backup_id != found.backup_id:
                raise TransitionRefused(
                    f"{row.type} of {row.day} is {row.status} as backup {row.backup_id}, "
                    f"and the bucket holds backup {found.backup_id}",
                    remedy=NOTHING_CHANGED,
                )
            if row.status in CLOSED:
                return False
            self._enter(session, row, move.to)
            row.facts = found.facts
            for name, value in asdict(found.artefact).items():
                setattr(row, name, value)
            row.verified_auth_tag = found.artefact.auth_tag
            move.to = BackupStatus.SUCCESS
            self._enter(session, row, move.to)
            row.created_at = row.scheduled_at = row.started_at = found.began
            row.finished_at = found.finished
            if self._journal.write(session, event_of(row, Outcome.SUCCESS)) is not Outcome.SUCCESS:
                raise TransitionRefused(
                    f"the journal says FAILED of backup {found.backup_id} already", remedy=NOTHING_CHANGED
                )
            details: dict[str, JsonValue] = {"object_key": row.object_key, "by": by}
            self._audit.write(session, ADOPTED, backup_id=found.backup_id, details=details)
        return True
