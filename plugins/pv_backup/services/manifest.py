"""The documents beside an object: the manifest that makes it a backup, and the mark that unmakes it.

The manifest is written last, so that a half-written backup can't be mistaken for one (SPEC F1.6). With
the bucket and Vault's key alone, it must tell all that a restoration wants to know.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from pv_backup.services.artefacts import ArtefactType, invalid_mark_key, manifest_key
from pv_backup.services.envelope import Header, read_header
from pv_backup.services.errors import IntegrityError
from pv_backup.services.naming import naming
from pv_backup.services.object_store import ObjectStore

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1

_OF_A_BASE_BACKUP: Final = ("stopped_at", "timeline", "start_lsn", "stop_lsn", "wal_segment_bytes", "wal_files")


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

    Of a base backup only, and each of them required there unless it says otherwise:

    :ivar stopped_at: RFC 3339 UTC, the source's clock once the backup was made; no earlier target can be recovered to.
    :ivar timeline: the timeline of the WAL between start_lsn and stop_lsn.
    :ivar start_lsn: where recovery begins, such as `0/2000028`.
    :ivar stop_lsn: where the restored cluster is consistent.
    :ivar wal_segment_bytes: the cluster's `wal_segment_size`.
    :ivar wal_files: the segments that the backup itself needs; the artefact holds them in `pg_wal`.
    :ivar backup_manifest: PostgreSQL's own, which `pg_verifybackup -m` takes, without its final newline.
    :ivar backup_manifest_absent: why it is not here; one of the two is.
    :ivar tablespaces: oid → location of the extra ones, if there are any; they lie in `pg_tblspc/<oid>`.
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
    stopped_at: str | None = None
    timeline: int | None = None
    start_lsn: str | None = None
    stop_lsn: str | None = None
    wal_segment_bytes: int | None = None
    wal_files: list[str] | None = None
    backup_manifest: str | None = None
    backup_manifest_absent: str | None = None
    tablespaces: dict[str, str] | None = None

    @model_validator(mode="after")
    def _demand_positions(self) -> Self:
        """Without them nobody knows which WAL a base backup needs, nor which it can be rolled forward with."""
        if self.backup_type is ArtefactType.BASEBACKUP:
            missing = [name for name in _OF_A_BASE_BACKUP if getattr(self, name) in (None, [])]
            if not (self.backup_manifest or self.backup_manifest_absent):
                missing.append("backup_manifest")
            if missing:
                raise ValueError(f"a base backup without {', '.join(missing)}")
        return self


class InvalidMark(_Document):
    """Why the object beside it must not be trusted (ERR-47-04)."""

    reason: str
    found_at: str


@dataclass(frozen=True)
class StoredManifest:
    """What lies under a manifest's key: None for the manifest if it is not one, and the ETag to replace it by."""

    manifest: Manifest | None
    etag: str


def read_manifest(store: ObjectStore, object_key: str) -> StoredManifest | None:
    """Read what lies beside an object, None where nothing does."""
    document = store.get_document(manifest_key(object_key))
    if document is None:
        return None
    try:
        return StoredManifest(Manifest.model_validate(document.body), document.etag)
    except ValidationError as error:
        fields = ", ".join(sorted({".".join(map(str, problem["loc"])) or problem["msg"] for problem in error.errors()}))
        log.warning("%s is no manifest of this format: wrong or missing %s", manifest_key(object_key), fields)
        return StoredManifest(None, document.etag)


def stored_header(store: ObjectStore, object_key: str) -> Header:
    """Read the PVB1 header at the beginning of an object, which names the artefact that it holds."""
    with naming(object_key):
        return read_header(store.read(object_key).read)


def published(store: ObjectStore, object_key: str) -> Manifest | None:
    """The manifest of a key that holds a published backup, else None.

    A manifest speaks only for the object whose header has its backup_id and tag, and which was made for this
    very key (SPEC section 3): copied beside another day it says nothing. Nor does it when the object was
    marked invalid since.
    """
    found = read_manifest(store, object_key)
    if found is None or found.manifest is None or store.head(object_key) is None:
        return None
    manifest = found.manifest
    try:
        header = stored_header(store, object_key)
    except IntegrityError as error:
        log.warning("a manifest, but no artefact: %s", error.what)
        return None
    speaks = (
        header.context.object_key == object_key == manifest.key
        and header.context.backup_id == manifest.backup_id
        and header.tag.hex() == manifest.header_tag
    )
    return manifest if speaks and not _is_marked_invalid(store, manifest) else None


def _is_marked_invalid(store: ObjectStore, manifest: Manifest) -> bool:
    mark = store.get_document(invalid_mark_key(manifest.key))
    return mark is not None and (mark.body.get("backup_id"), mark.body.get("header_tag")) == (
        manifest.backup_id,
        manifest.header_tag,
    )


def mark_invalid(store: ObjectStore, mark: InvalidMark) -> None:
    """Write the mark beside the object; the newest finding stands."""
    store.overwrite_document(invalid_mark_key(mark.key), mark.to_json())
