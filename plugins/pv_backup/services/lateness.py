"""Whether the night's dump is over when it should be, while there is still a night to mend it in."""

from __future__ import annotations

from datetime import datetime, time
from typing import Final

from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.days import PARIS, day_of
from pv_backup.services.errors import RunLate
from pv_backup.services.models import BackupStatus
from pv_backup.services.relaunching import row_of_dump

#: A quarter of an hour before the watchdog looks, Europe/Paris.
DUE: Final = time(3, 45)

_OPEN: Final = (BackupStatus.SCHEDULED, BackupStatus.RUNNING)


def late_dump(sessions: sessionmaker[Session], now: datetime) -> RunLate | None:
    """What people should hear of today's dump by this hour, None if nothing.

    A day that no run ever opened counts too: a paused DAG and a stuck scheduler raise no alert of their own. One that
    has failed does not, also when it is being tried again: its failure was told, and the relaunch has its own deadline.

    :param now: the moment of the question, with its zone.
    :raises JournalUnavailable: ERR-47-06.
    """
    day = day_of(now)
    if now.astimezone(PARIS).time() < DUE:
        return None
    row = row_of_dump(sessions, day)
    if row is None:
        return RunLate(
            f"no run has opened the dump of {day}, due by {DUE:%H:%M}",
            remedy="see whether pv_backup_daily_dump is paused or queued, and whether scheduler and workers run; "
            "at 04:00 the watchdog looks for the backup itself",
        )
    if row.status not in _OPEN or not row.is_first:
        return None
    return RunLate(
        f"the dump of {day}, due by {DUE:%H:%M}, is {row.status}: {row.note or 'nobody works on it'}",
        remedy="see which task of that run is at work, and what slows it; it goes on, and at 04:00 the watchdog looks",
    )
