"""The errors of SPEC section 6, as a tree that decides what is retried.

An error is read at 04:10 by someone who did not write this. So each one says what happened, with the
names involved, and what to do next; and its class alone tells whether another try can help:

* :class:`RetryableError`: the world may be better in a moment (a killed pg_dump, a restarted database).
* :class:`IntegrityError`: the bytes are not what they must be. Trying again would hide it.
* :class:`ConfigurationError`: someone must change something first.
* :class:`RefusedError`: the system works as it should, and said no.
* :class:`FailClosedError`: encryption or key service failed; there is no other scheme to fall back to.
"""

from __future__ import annotations


class PvBackupError(Exception):
    """Base of all errors raised on purpose, so that a caller can tell them from bugs.

    :param what: what happened, with the names involved; no secret ever goes in here.
    :param remedy: what the reader should do next, as an imperative sentence.
    """

    code = "ERR-47"
    #: Whether people were alerted of it where it was found, so that the end of the task need not say it again.
    told = False

    def __init__(self, what: str, *, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy

    def __str__(self) -> str:
        text = f"{self.code} {self.what}"
        return f"{text}. Next: {self.remedy}" if self.remedy else text


class RetryableError(PvBackupError):
    """Another try of the same attempt may succeed."""


class ExportFailed(RetryableError):
    """pg_dump, pg_dumpall or pg_basebackup ended with an error, or the source could not be reached."""

    code = "ERR-47-01"


class TaskStopped(RetryableError):
    """Airflow told the task to stop; whether another try follows is Airflow's to say."""

    code = "STOPPED"


class JournalUnavailable(RetryableError):
    """The journal database could not be read or written; without it no backup becomes SUCCESS."""

    code = "ERR-47-06"


class StoreUnavailable(RetryableError):
    """A short S3 call (head, manifest, read-back) failed for a reason that may pass."""

    code = "ERR-47-03"


class IntegrityError(PvBackupError):
    """Bytes that are not what they must be; never retried, never hidden."""

    code = "ERR-47-04"


class ArtefactDamaged(IntegrityError):
    """A PVB1 artefact that is malformed, cut, or fails authentication (FORMAT: PVB1)."""


class ReadBackMismatch(IntegrityError):
    """What S3 returned is not what was uploaded (INV-47-04)."""


class WalDamaged(IntegrityError):
    """A WAL file that PostgreSQL cannot have written like this, or its object that does not open."""

    code = "WAL-DAMAGED"


class WalConflict(IntegrityError):
    """A WAL file and the object of its name are both whole, and differ: two clusters, or two histories."""

    code = "WAL-CONFLICT"


class WalGap(IntegrityError):
    """WAL is missing between what was shipped and what is there; no later WAL file mends that."""

    code = "WAL-GAP"


class RestoreFailed(PvBackupError):
    """A restoration did not end in a server that answers: PostgreSQL or a tool refused, or a disk is full."""

    code = "RESTORE"


class ReceiverDown(PvBackupError):
    """pg_receivewal does not receive what the source writes, so nothing reaches the WAL directory."""

    code = "WAL-RECEIVER"


class ConfigurationError(PvBackupError):
    """A setting, connection or privilege is missing or wrong; nothing was started."""

    code = "CONFIGURATION"


class FormatRejected(ConfigurationError):
    """A value breaks its rule of SPEC section 5 (CC-47-09), refused before any side effect.

    :param field: the name of the field as SPEC section 5 writes it.
    :param reason: what the rule is and how the value breaks it.
    """

    code = "FAILED_FORMAT"

    def __init__(self, field: str, reason: str, *, remedy: str = "") -> None:
        super().__init__(f"{field}: {reason}", remedy=remedy)
        self.field = field
        self.reason = reason


class ChannelNotConfigured(ConfigurationError):
    """An alert channel that nobody asked for, or whose connection can't be had right now.

    :param channel: `mail` or `webhook`.
    :param conn_id: the Airflow connection that says where it leads.
    :param field: what the connection lacks, if it is defined.
    """

    def __init__(self, channel: str, conn_id: str, *, field: str = "") -> None:
        super().__init__(
            f"no alert goes by {channel}: the Airflow connection {conn_id} "
            + (f"has no {field}" if field else "is not defined"),
            remedy=f"define {conn_id} to be alerted by {channel}; if it is in a secrets backend, look there",
        )


class AlertUndelivered(PvBackupError):
    """An alert channel did not take an alert; the next occurrence of the incident tries it again."""

    code = "ALERT-UNDELIVERED"


class RefusedError(PvBackupError):
    """The rules say no: nothing is broken, nothing was changed."""

    code = "REFUSED"


class DayClosed(RefusedError):
    """The day's backup is published already; a published day is never touched again."""


class NotPublished(RefusedError):
    """There is no published backup under this key: no manifest speaks for what is there, if anything."""


class TargetRefused(RefusedError):
    """What the bucket holds does not lead to this recovery target; nothing was started."""


class TargetAhead(TargetRefused):
    """The target lies after the last shipped commit: no recovery can arrive there."""


class AttemptPublished(RefusedError):
    """This very attempt is published: its row ends in SUCCESS by settlement, never in FAILED."""


class RunAlive(RefusedError):
    """Another run holds the day's row under a live lease."""


class LeaseLost(RefusedError):
    """This worker no longer holds the row: it may neither complete an upload nor publish."""


class AttemptOver(LeaseLost):
    """The attempt has ended already: an earlier try's answer was lost, or reconciliation has settled it.

    :param succeeded: whether it ended in SUCCESS. Of a failure people were told when it was recorded.
    """

    told = True

    def __init__(self, what: str, *, remedy: str = "", succeeded: bool = False) -> None:
        super().__init__(what, remedy=remedy)
        self.succeeded = succeeded


class TransitionRefused(RefusedError):
    """A move that the state machine does not allow (CC-47-02), or that another worker made first."""


class CircuitBreakerOpen(TransitionRefused):
    """FAILED → SCHEDULED past ``max_replanification_cycles`` (DI-01); a person must look first."""

    code = "CIRCUIT-BREAKER"


class FailClosedError(PvBackupError):
    """Encryption failed, or Vault is unreachable or sealed: stop at once, no other scheme (INV-47-03)."""

    code = "ERR-47-02"


class UploadFailed(PvBackupError):
    """No part completed for ``timeout_upload_s``; the retries happened inside the attempt already."""

    code = "ERR-47-03"


class WorkerDied(PvBackupError):
    """A worker's lease ran out before its backup was published; reconciliation says so in its stead."""

    code = "ERR-47-08"


class StagingLeft(PvBackupError):
    """An export in clear outlived its worker and the guard: INV-47-01 holds again, and did not for a while."""

    code = "STAGING-LEFT"


class BackupAbsent(PvBackupError):
    """The watchdog waited and saw no published backup of the day; the relaunch is on its way."""

    code = "WATCHDOG-ABSENT"


class RunLate(PvBackupError):
    """A scheduled run is not over when it should be."""

    code = "LATE"


class RelaunchFailed(PvBackupError):
    """The relaunch of a day's backup failed, or did not end in time: nothing more happens by itself."""

    code = "ERR-47-05"


class BackupVanished(IntegrityError):
    """The journal says SUCCESS, and the bucket no longer has the backup: somebody deleted evidence."""

    code = "VANISHED"


class LifecycleIdle(PvBackupError):
    """The bucket still has what expired long ago: its lifecycle does not delete, so it grows and keeps too much."""

    code = "LIFECYCLE"


def explain(error: BaseException) -> tuple[str, str, str]:
    """Code, cause and next step of any error; one that is not ours was not foreseen, and says so."""
    if isinstance(error, PvBackupError):
        return error.code, error.what, error.remedy
    next_step = "read the task's log; this error was not foreseen, report it with the log"
    return "UNEXPECTED", f"{type(error).__name__}: {error}", next_step
