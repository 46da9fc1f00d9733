"""The formats of SPEC section 5 (CC-47-09), one function a field, so that a bad value stops before any side effect.

Each function returns the value when it is good and raises :class:`FormatRejected` (``FAILED_FORMAT``), which names the
field and the rule, when it is not.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, date, datetime
from typing import Final

from pv_backup.services.artefacts import ArtefactType, object_key_of_day
from pv_backup.services.errors import FormatRejected

#: The largest integer that every JSON reader keeps exact (RFC 8259, section 6).
MAX_SIZE_BYTES: Final = 2**53 - 1

# The variant digit is 8, 9, a or b (RFC 9562, section 4.1).
_UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_SHA3_256_HEX = re.compile(r"[0-9a-f]{64}")
_DAY_IN_KEY = re.compile(r"_([0-9]{4})([0-9]{2})([0-9]{2})\.enc\Z")
_WAL_KEY = re.compile(r"wal/(?:[0-9A-F]{24}|[0-9A-F]{8}\.history)\.enc")
_DECIMAL = re.compile(r"[1-9][0-9]{0,15}")
_TIMESTAMP = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?Z")

# The names of SPEC section 5; they stand in the refusal.
_KEY_FIELDS: Final = {
    ArtefactType.PG_DUMP: "s3_object_key_backup",
    ArtefactType.GLOBALS: "s3_object_key_globals",
    ArtefactType.BASEBACKUP: "s3_object_key_basebackup",
    ArtefactType.WAL: "s3_object_key_wal",
}
_QUOTED_AT_MOST = 120


def check_backup_id(value: str) -> str:
    """A UUID version 4 in lower case: one spelling only, since it is compared as text in S3 and headers."""
    return _matching("backup_id", value, _UUID4, "a UUID version 4 in lower case")


def check_hash(value: str) -> str:
    """A SHA3-256 digest as 64 lower-case hex digits."""
    return _matching("hash_sha3_256", value, _SHA3_256_HEX, "64 lower-case hex digits")


def check_object_key(artefact_type: ArtefactType, value: str) -> str:
    """The key of an artefact of this type, and of this type only: a base backup must not pass for a dump."""
    if artefact_type is ArtefactType.WAL:
        return _matching(
            _KEY_FIELDS[artefact_type],
            value,
            _WAL_KEY,
            "wal/ + 24 upper-case hex digits, or 8 and .history, + .enc",
        )
    rule = f"{object_key_of_day(artefact_type, date(2000, 12, 31))} with a real date, the same in both parts"
    return _checked(_KEY_FIELDS[artefact_type], value, lambda text: _is_key_of_day(artefact_type, text), rule)


def artefact_type_of(key: str) -> ArtefactType | None:
    """Whose key this is, None if no artefact of ours bears such a one."""
    for artefact_type in ArtefactType:
        with suppress(FormatRejected):
            check_object_key(artefact_type, key)
            return artefact_type
    return None


def check_size(value: int | str) -> int:
    """The bytes of an object, as an integer or, from S3 metadata, as its decimal text."""
    field, rule = "size_bytes", f"a decimal integer from 1 to {MAX_SIZE_BYTES}"
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = int(value)
    # bool is an int in Python, and True is no size.
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_SIZE_BYTES:
        raise _refusal(field, value, rule)
    return value


def check_timestamp(value: str) -> datetime:
    """An instant as RFC 3339 writes it, in UTC with ``Z``; parts of a second below the microsecond are dropped."""
    rule = "RFC 3339 in UTC, such as 2026-03-29T01:00:00Z"
    match = _TIMESTAMP.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise _refusal("timestamp", value, rule)
    try:
        instant = datetime.fromisoformat(match[1])
    except ValueError:
        raise _refusal("timestamp", value, f"{rule}, and a real date and time") from None
    return instant.replace(microsecond=int((match[2] or "0").ljust(6, "0")[:6]), tzinfo=UTC)


def _is_key_of_day(artefact_type: ArtefactType, key: str) -> bool:
    """Build the key of the day that it names and compare: one place says what a key looks like."""
    named = _DAY_IN_KEY.search(key)
    if named is None:
        return False
    try:
        day = date(*map(int, named.groups()))
    except ValueError:
        return False
    return key == object_key_of_day(artefact_type, day)


def _matching(field: str, value: str, pattern: re.Pattern[str], rule: str) -> str:
    return _checked(field, value, lambda text: pattern.fullmatch(text) is not None, rule)


def _checked(field: str, value: str, good: Callable[[str], bool], rule: str) -> str:
    # Values come from S3 metadata and forms, where a type hint holds nobody.
    if not isinstance(value, str) or not good(value):
        raise _refusal(field, value, rule)
    return value


def _refusal(field: str, value: object, rule: str) -> FormatRejected:
    quoted = repr(value)
    if len(quoted) > _QUOTED_AT_MOST:
        quoted = f"{quoted[:_QUOTED_AT_MOST]}… ({len(quoted)} characters)"
    return FormatRejected(field, f"{quoted} is not {rule}", remedy=f"correct {field} where it comes from")
