"""Hold on to a row's lease while a task works, and know at once when it is lost.

A worker that lost its lease may be a zombie whose successor is already writing: it may neither complete
an upload nor publish (SPEC section 3).
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import Final, Self

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from pv_backup.services.errors import JournalUnavailable, LeaseLost, PvBackupError
from pv_backup.services.leases import Lease, Leases
from pv_backup.services.progress import Ticker

log = logging.getLogger(__name__)

#: How often a worker tries to renew its lease before that runs out.
RENEWALS_PER_LEASE: Final = 3
_CONFIRM_AGAIN_S = 1.0


class LeaseKeeper:
    """A context that renews a lease three times per its length, and on leaving hands it to the next task.

    A journal that does not answer is no reason to stop: it may be back for the next renewal, and until
    somebody takes the lease over nobody else can work on the row. :meth:`check` is cheap and meant for every
    chunk; :meth:`confirm` asks the database.

    :param lease_s: how long each renewal lasts, `lease_s`.
    :param handover_s: how long the lease is left for the next task, `handover_s`.
    """

    def __init__(self, *, leases: Leases, lease: Lease, lease_s: int, handover_s: int) -> None:
        self._leases = leases
        self.lease = lease
        self._lease_s = lease_s
        self._handover_s = handover_s
        self._stop_reason: PvBackupError | None = None
        self._lock = threading.Lock()
        self._ticker = Ticker(every_s=lease_s / RENEWALS_PER_LEASE, action=self._renew, name="lease renewal")

    def check(self) -> None:
        """Raise if the lease is known to be lost or the task was told to stop.

        :raises LeaseLost: or the error given to :meth:`stop`.
        """
        if self._stop_reason is not None:
            raise self._stop_reason

    def confirm(self) -> None:
        """Renew now, right before something becomes visible; a database that is away gets one lease's patience.

        :raises LeaseLost: if another worker took the row, or the attempt ended.
        :raises JournalUnavailable: if the database still cannot say.
        """
        self.check()
        retrying = Retrying(
            retry=retry_if_exception_type(JournalUnavailable),
            wait=wait_fixed(_CONFIRM_AGAIN_S),
            stop=stop_after_delay(self._lease_s),
            reraise=True,
        )
        with self._lock:
            retrying(self._leases.renew, self.lease, self._lease_s)

    def stop(self, reason: PvBackupError) -> None:
        """Make the next check raise this: the task is being killed."""
        self._stop_reason = reason

    def _renew(self) -> None:
        with self._lock:
            try:
                self._leases.renew(self.lease, self._lease_s)
            except JournalUnavailable as error:
                log.warning("lease of backup %s not renewed this time: %s", self.lease.backup_id, error.what)
            except LeaseLost as error:
                self._stop_reason = error

    def __enter__(self) -> Self:
        self._ticker.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._ticker.__exit__(kind, error, tb)
        if self._stop_reason is not None:
            return
        try:
            self._leases.hand_over(self.lease, self._handover_s)
        except (LeaseLost, JournalUnavailable) as lost:
            log.warning("lease of backup %s not handed over: %s", self.lease.backup_id, lost.what)
