"""The errors of drills: why one did not end in proof, and what is owed then (SPEC section 6, ERR-47-07)."""

from __future__ import annotations

from pv_backup.services.errors import IntegrityError, PvBackupError, RefusedError, RestoreFailed


class StagingFull(RestoreFailed):
    """The disk on which a drill restores has no room for it; nothing is wrong with the backup."""

    code = "STAGING-FULL"


class CorruptionFound(RestoreFailed):
    """What was restored is whole as an artefact, and broken as a database: the source had it so, or the disk here."""

    code = "CORRUPTION"


class ContractBroken(RestoreFailed):
    """A contract check returned rows, or the restored rows are not those that were backed up."""

    code = "CONTRACT"


class LegTooSlow(RestoreFailed):
    """A leg was still at work when its time was over: a way back that takes longer than a day is none."""

    code = "TOO-SLOW"


class PlanMissing(RefusedError):
    """A compliance incident is not closed without an action plan and the name of who answers for it."""


class DrillFailed(PvBackupError):
    """A restoration drill did not end in proof; its incident stays open until somebody says what will be done."""

    code = "ERR-47-07"


class DrillOverdue(PvBackupError):
    """More than 90 days since the last drill that left evidence or an incident (INV-47-09)."""

    code = "DRILL-OVERDUE"


class DrillUnproven(PvBackupError):
    """A drill was begun and left neither evidence nor an incident: its run was killed, or the journal was away."""

    code = "DRILL-UNPROVEN"


class EvidenceInvalid(IntegrityError):
    """A document of evidence that is not as it was signed, or not by the key that it must be."""

    code = "EVIDENCE"
