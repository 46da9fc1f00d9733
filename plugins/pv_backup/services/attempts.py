"""One attempt at a day's backup, as the steps of a run pass it on, and what it has produced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import RefusedError
from pv_backup.services.journal import JournalEvent
from pv_backup.services.leases import Lease
from pv_backup.services.models import BackupExecution, Outcome


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """The current attempt of a (type, day), and the lease to work on it.

    :ivar replanification_count: how many attempts of this day failed before it.
    """

    backup_id: str
    artefact_type: ArtefactType
    day: date
    object_key: str
    replanification_count: int
    lease: Lease


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """What was uploaded: SHA3-256 over the compressed plaintext, size of the object, header fields in hex (PVB1)."""

    hash_sha3_256: str
    size_bytes: int
    wrapped_dek: str
    iv: str
    auth_tag: str
    k_backup_version: int


@dataclass(frozen=True, kw_only=True)
class RecordedArtefact:
    """An artefact as the journal database holds it, with the facts that the export learnt for the manifest."""

    backup_id: str
    artefact: Artefact
    facts: Mapping[str, Any]
    verified: bool

    def demand_verified(self) -> None:
        """Refuse to go on with what was not read back, whatever order the tasks were cleared or marked in (INV-47-04).

        :raises RefusedError: naming the backup.
        """
        if not self.verified:
            raise RefusedError(
                f"backup {self.backup_id} was not read back since its last upload",
                remedy="run its verification: clear verify_upload and what follows it",
            )


def attempt_of(row: BackupExecution, lease: Lease) -> Attempt:
    """The attempt that stands in a row."""
    return Attempt(
        backup_id=row.backup_id,
        artefact_type=ArtefactType(row.type),
        day=row.day,
        object_key=row.object_key,
        replanification_count=row.replanification_count,
        lease=lease,
    )


def recorded_in(row: BackupExecution) -> RecordedArtefact | None:
    """The artefact that stands in a row; None until every part of it does."""
    parts = (row.hash_sha3_256, row.size_bytes, row.wrapped_dek, row.iv, row.auth_tag, row.k_backup_version)
    match parts:
        case (str(digest), int(size), str(wrapped_dek), str(iv), str(auth_tag), int(version)):
            artefact = Artefact(
                hash_sha3_256=digest,
                size_bytes=size,
                wrapped_dek=wrapped_dek,
                iv=iv,
                auth_tag=auth_tag,
                k_backup_version=version,
            )
            return RecordedArtefact(
                backup_id=row.backup_id,
                artefact=artefact,
                facts=row.facts or {},
                verified=row.verified_auth_tag == auth_tag,
            )
        case _:
            return None


def event_of(row: BackupExecution, outcome: Outcome) -> JournalEvent:
    """What the journal keeps of an attempt that ends now."""
    return JournalEvent(
        backup_id=row.backup_id,
        artefact_type=ArtefactType(row.type),
        day=row.day,
        outcome=outcome,
        object_key=row.object_key,
        hash_sha3_256=row.hash_sha3_256,
        size_bytes=row.size_bytes,
        k_backup_version=row.k_backup_version,
        error_code=row.error_code,
        error_text=row.error_text,
    )
