"""The documents beside an object: the manifest that makes it a backup, and the mark that unmakes it.

The manifest is written last, so that a half-written backup can't be mistaken for one (SPEC F1.6). With
the bucket and Vault's key alone, it must tell all that a restoration wants to know.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from pv_backup.services.artefacts import ArtefactType, invalid_mark_key, manifest_key
from pv_backup.services.envelope import Header, read_header
from pv_backup.services.errors import ReadBackMismatch
from pv_backup.services.object_store import ObjectStore

FORMAT_VERSION: Final = 1


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: Literal[1] = FORMAT_VERSION
    backup_id: str
    key: str
    hash_sha3_256: str
    header_tag: str

    def to_json(self) -> dict[str, Any]:
        """The document as JSON types, absent fields left out."""
        return self.model_dump(mode="json", exclude_none=True)


class Manifest(_Document):
    """What a published backup is (SPEC F1.6).

    :ivar size_bytes: bytes of the S3 object.
    :ivar exported_at: RFC 3339 UTC, the start of the export's snapshot; the drill selects by it.
    :ivar exported_bytes: bytes as the tool wrote them, before compression.
    :ivar export_seconds: how long the one streaming pass took.
    :ivar row_counts: rows of each table in the dump's own snapshot, by `schema.table`.
    :ivar row_counts_absent: why a table, or every one (`*`), has no count.
    """

    backup_type: ArtefactType
    size_bytes: int
    wrapped_dek: str
    k_backup_version: int
    exported_at: str
    finished_at: str
    exported_bytes: int
    export_seconds: float
    server_version: str
    system_identifier: str
    database: str | None = None
    tool_versions: dict[str, str]
    row_counts: dict[str, int] | None = None
    row_counts_absent: dict[str, str] | None = None


class InvalidMark(_Document):
    """Why the object beside it must not be trusted (ERR-47-04)."""

    reason: str
    found_at: str


def read_manifest(store: ObjectStore, object_key: str) -> tuple[Manifest, str] | None:
    """Read an object's manifest and its ETag, None where none was written.

    :raises ReadBackMismatch: if it is there but is no manifest of this format.
    """
    document = store.get_document(manifest_key(object_key))
    if document is None:
        return None
    try:
        return Manifest.model_validate(document.body), document.etag
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(str(part) for part in problem["loc"]) for problem in error.errors()}))
        raise ReadBackMismatch(
            f"{manifest_key(object_key)} is not a manifest of format {FORMAT_VERSION}: wrong or missing {fields}",
            remedy="look at it by hand; it was written by another version or by somebody else",
        ) from error


def stored_header(store: ObjectStore, object_key: str) -> Header:
    """Read the PVB1 header at the beginning of an object, which names the artefact that it holds."""
    return read_header(store.read(object_key).read)


def published(store: ObjectStore, object_key: str) -> Manifest | None:
    """The manifest of a key that holds a published backup, else None.

    A manifest whose backup_id is not that of the object's header says nothing about it (SPEC section 3).
    """
    found = read_manifest(store, object_key)
    if found is None or store.head(object_key) is None:
        return None
    manifest = found[0]
    return manifest if stored_header(store, object_key).context.backup_id == manifest.backup_id else None


def mark_invalid(store: ObjectStore, mark: InvalidMark) -> None:
    """Write the mark beside the object; the newest finding stands."""
    store.overwrite_document(invalid_mark_key(mark.key), mark.to_json())
