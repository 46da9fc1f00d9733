"""Begin an artefact: a data key wrapped by Vault, a fresh IV, and the header that says what it is (SPEC F1.2)."""

from __future__ import annotations

from datetime import UTC, datetime

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.envelope import ArtefactContext, EnvelopeWriter, new_iv
from pv_backup.services.key_wrapping import KeyWrapper
from pv_backup.services.timestamps import rfc3339


def begin_artefact(
    keys: KeyWrapper, dek: bytearray, *, backup_id: str, artefact_type: ArtefactType, object_key: str
) -> EnvelopeWriter:
    """Wrap the DEK and give the writer of this one artefact, whose content is zstd-compressed.

    :param dek: of this artefact alone; the caller wipes it (INV-47-02).
    :raises FailClosedError: ERR-47-02, when Vault does not wrap it.
    """
    wrapped = keys.wrap(dek)
    context = ArtefactContext(
        backup_id=backup_id,
        backup_type=artefact_type,
        object_key=object_key,
        created_at=rfc3339(datetime.now(UTC)),
        compression="zstd",
        wrapped_dek=wrapped.wrapped_dek,
        k_backup_version=wrapped.k_backup_version,
    )
    return EnvelopeWriter(dek=dek, iv=new_iv(), context=context)
