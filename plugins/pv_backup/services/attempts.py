"""One attempt at a day's backup, as the steps of a run pass it on, and what it has produced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.leases import Lease
from pv_backup.services.models import BackupExecution


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

    artefact: Artefact
    facts: Mapping[str, Any]


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
            return RecordedArtefact(artefact=artefact, facts=row.facts or {})
        case _:
            return None
