"""Everything a step of a backup works with, made once per task by whoever knows where the connections are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from sqlalchemy.orm import Session, sessionmaker

from pv_backup.services.journal import Audit, Journal
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.lease_keeper import LeaseKeeper
from pv_backup.services.leases import Lease, Leases
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.settings import Settings
from pv_backup.services.state import Attempt, StateMachine


@dataclass(frozen=True)
class Workbench:
    """The clients and rules that the steps are handed; nothing in it is opened before it is used."""

    settings: Settings
    store: ObjectStore
    keys: KeyWrapper
    machine: StateMachine
    leases: Leases
    audit: Audit
    journal: Journal

    @classmethod
    def over(cls, settings: Settings, *, store: ObjectStore, keys: KeyWrapper, sessions: sessionmaker[Session]) -> Self:
        """Set everything out that the journal database serves, on one pool of its connections."""
        return cls(settings, store, keys, StateMachine(sessions), Leases(sessions), Audit(sessions), Journal(sessions))

    def keep_lease(self, backup_id: str) -> tuple[Attempt, LeaseKeeper]:
        """Take the attempt's lease over for this task, which fences a dead predecessor still at work.

        :raises LeaseLost: if the backup_id is no longer the running attempt's.
        """
        return self._keeping(self.leases.acquire(backup_id, self.settings.lease_s), self.settings.handover_s)

    def keep_expired_lease(self, backup_id: str) -> tuple[Attempt, LeaseKeeper]:
        """Take over the lease of a run that let it run out; no task follows that it would be left to.

        :raises RunAlive: if it has not run out.
        """
        return self._keeping(self.leases.take_over(backup_id, self.settings.lease_s), self.settings.lease_s)

    def _keeping(self, lease: Lease, handover_s: int) -> tuple[Attempt, LeaseKeeper]:
        keeper = LeaseKeeper(leases=self.leases, lease=lease, lease_s=self.settings.lease_s, handover_s=handover_s)
        return self.machine.attempt(lease), keeper
