"""How a run of WAL shipping went, and what a person must hear of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from pv_backup.services.errors import PvBackupError
from pv_backup.services.wal_shipping import Fate, Shipment

log = logging.getLogger(__name__)

#: Files with the same trouble that are told one by one; the others are told together.
TOLD_ONE_BY_ONE: Final = 3


@dataclass(frozen=True)
class Problem:
    """Something that a person must hear of, once.

    :ivar subject: the file that it is about; empty for an outage, which is about all of them.
    """

    error: PvBackupError
    subject: str = ""


@dataclass
class WalReport:
    """How a run went.

    :ivar closed: the segment that was closed for its age.
    :ivar source_seen: whether the source was asked, and pg_receivewal found to follow it.
    :ivar read_bytes: of the files that left the directory; stored_bytes: of their objects.
    :ivar seconds: that shipping took.
    :ivar backlog: finished files still in the directory; oldest_s: seconds since the oldest was finished.
    :ivar tell: hears of each problem when it is found: a hole cannot be seen any more once what follows it is
        shipped, so the news must not wait for the end of a run that may be killed.
    """

    tell: Callable[[Problem], None] | None = None
    closed: str | None = None
    source_seen: bool = False
    shipped: int = 0
    already_there: int = 0
    replaced: int = 0
    read_bytes: int = 0
    stored_bytes: int = 0
    seconds: float = 0.0
    backlog: int = 0
    oldest_s: float = 0.0
    problems: list[Problem] = field(default_factory=list)

    @property
    def done(self) -> int:
        """Files that left the directory."""
        return self.shipped + self.already_there + self.replaced

    @property
    def rate(self) -> float:
        """Files per second."""
        return self.done / max(self.seconds, 1e-9)

    @property
    def outages(self) -> list[Problem]:
        """The problems that are about no single file."""
        return [problem for problem in self.problems if not problem.subject]

    def count(self, shipment: Shipment) -> None:
        """Count a file that is out of the queue."""
        match shipment.fate:
            case Fate.SHIPPED:
                self.shipped += 1
            case Fate.ALREADY_THERE:
                self.already_there += 1
            case Fate.REPLACED:
                self.replaced += 1
        self.read_bytes += shipment.file.size
        self.stored_bytes += shipment.size_bytes
        if shipment.damage is not None:
            self.found(Problem(shipment.damage, shipment.file.name))

    def found(self, problem: Problem) -> None:
        """Keep a problem, and tell it unless there are many of its kind."""
        log.error("%s", ": ".join(part for part in (problem.subject, str(problem.error)) if part))
        self.problems.append(problem)
        if self.tell and (not problem.subject or len(self._alike(problem)) <= TOLD_ONE_BY_ONE):
            self.tell(problem)

    def tell_the_rest(self) -> None:
        """Tell of the files that were too many to be told one by one, once for each kind of trouble."""
        firsts = {problem.error.code: problem for problem in reversed(self.problems) if problem.subject}
        for first in firsts.values():
            rest = self._alike(first)[TOLD_ONE_BY_ONE:]
            if rest and self.tell:
                what = f"{len(rest)} more WAL files, {rest[0].subject} to {rest[-1].subject}, like {first.subject}"
                self.tell(Problem(type(first.error)(f"{what}: {first.error.what}", remedy=first.error.remedy), "more"))

    def _alike(self, problem: Problem) -> list[Problem]:
        return [other for other in self.problems if other.subject and other.error.code == problem.error.code]
