"""What a backup leaves in the bucket, and where: types and object keys (SPEC sections 2 and 5)."""

from __future__ import annotations

from datetime import date
from enum import StrEnum
from typing import Final


class ArtefactType(StrEnum):
    """The kinds of artefact; the values stand in headers, rows and manifests for good."""

    PG_DUMP = "pg_dump"
    GLOBALS = "globals"
    BASEBACKUP = "basebackup"
    WAL = "wal"


_DAILY_STEM = {
    ArtefactType.PG_DUMP: "backup",
    ArtefactType.GLOBALS: "globals",
    ArtefactType.BASEBACKUP: "basebackup",
}


def object_key_of_day(artefact_type: ArtefactType, day: date) -> str:
    """Name the object of a day, so that anyone can find it without a database.

    :raises ValueError: for WAL, whose keys are named after segments and not after days.
    """
    stem = _DAILY_STEM.get(artefact_type)
    if stem is None:
        raise ValueError(f"{artefact_type} artefacts have no day")
    return f"{day:%Y/%m}/{stem}_{day:%Y%m%d}.enc"


WAL_PREFIX: Final = "wal/"


def wal_object_key(name: str) -> str:
    """Name the object of a WAL file, so that recovery finds it by the name that PostgreSQL asks for."""
    return f"{WAL_PREFIX}{name}.enc"


def wal_name(object_key: str) -> str:
    """The name that PostgreSQL knows a WAL object by."""
    return object_key.removeprefix(WAL_PREFIX).removesuffix(".enc")


def manifest_key(object_key: str) -> str:
    """The manifest stands beside its object; an object without it is not a backup (SPEC F1.6)."""
    return object_key.removesuffix(".enc") + ".manifest.json"


def invalid_mark_key(object_key: str) -> str:
    """The mark of ERR-47-04 stands beside the object whose read-back differed."""
    return object_key.removesuffix(".enc") + ".invalid.json"
