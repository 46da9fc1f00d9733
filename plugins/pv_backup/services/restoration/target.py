"""Where recovery shall stop (PostgreSQL 15, section 20.5.5): the end of the WAL, a time, an LSN or a restore point."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self

from pv_backup.services.errors import FormatRejected
from pv_backup.services.wal import format_lsn, parse_lsn

# MAXFNAMELEN of PostgreSQL's xlog_internal.h, less the zero at the end; it makes no restore point of a longer name.
_NAME_MAX_BYTES: Final = 63


@dataclass(frozen=True)
class RecoveryTarget:
    """At most one of its fields is set; none of them: the end of the shipped WAL.

    :ivar time: the last moment whose commits shall be there, by the clock of the server that made them.
    :ivar lsn: the last byte of WAL that shall be replayed.
    :ivar name: of a restore point (`pg_create_restore_point`).
    """

    time: datetime | None = None
    lsn: int | None = None
    name: str | None = None

    @classmethod
    def at_time(cls, text: str) -> Self:
        """Read an ISO 8601 time.

        :raises FormatRejected: if it is none, or names no zone: 02:30 comes twice in a night of October.
        """
        try:
            time = datetime.fromisoformat(text)
        except ValueError:
            time = None
        if time is None or time.tzinfo is None:
            raise FormatRejected(
                "target time",
                f"{text!r} is no time with a zone",
                remedy="write it like 2026-11-22T03:15:00+01:00 or 2026-11-22T02:15:00Z",
            )
        return cls(time=time)

    @classmethod
    def at_lsn(cls, text: str) -> Self:
        """Read an LSN such as `16/B374D848`.

        :raises FormatRejected: if it is none.
        """
        return cls(lsn=parse_lsn(text))

    @classmethod
    def at_name(cls, text: str) -> Self:
        """Take the name of a restore point.

        :raises FormatRejected: if no restore point can have it.
        """
        size = len(os.fsencode(text))
        if not text.strip() or size > _NAME_MAX_BYTES:
            raise FormatRejected(
                "target name",
                f"{text!r} is blank or longer than {_NAME_MAX_BYTES} bytes ({size}): no restore point is called so",
                remedy="give the name that pg_create_restore_point was called with",
            )
        return cls(name=text)

    @property
    def settings(self) -> dict[str, str]:
        """The server parameters that make recovery stop there."""
        if self.time is not None:
            return {"recovery_target_time": self.time.isoformat()}
        if self.lsn is not None:
            return {"recovery_target_lsn": format_lsn(self.lsn)}
        return {} if self.name is None else {"recovery_target_name": self.name}

    def __str__(self) -> str:
        if self.time is not None:
            return self.time.isoformat()
        if self.lsn is not None:
            return f"LSN {format_lsn(self.lsn)}"
        return "the end of the shipped WAL" if self.name is None else f"restore point {self.name}"
