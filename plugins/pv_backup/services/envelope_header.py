"""The header of a PVB1 artefact: all that its decryption needs, except the key in Vault (FORMAT: Header).

Whoever has only the bucket and the key starts here, so every refusal names the field that is wrong.
"""

from __future__ import annotations

import json
import re
import secrets
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import ArtefactDamaged, FormatRejected
from pv_backup.services.validation import check_backup_id, check_object_key, check_timestamp

MAGIC: Final = b"PVB1"
VERSION: Final = 1
SUITE_AES_256_GCM: Final = 1
DEK_BYTES: Final = 32
IV_BYTES: Final = 12
TAG_BYTES: Final = 16
MIN_SEGMENT_LOG2: Final = 16
MAX_SEGMENT_LOG2: Final = 24
MAX_CONTEXT_BYTES: Final = 65_536
FETCH_AGAIN: Final = "download the object again; if that fails too, keep it for inspection and restore another backup"

_FIXED: Final = struct.Struct(">4sBBBB12sI")
_COMPRESSIONS: Final = ("zstd", "none")
_WRAPPED_DEK: Final = re.compile(r"vault:v([1-9][0-9]{0,8}):[A-Za-z0-9+/]+={0,2}")

Read = Callable[[int], bytes]
"""Gives at most so many bytes, fewer when a socket has no more yet, none only at the end."""


def key_version_of(wrapped_dek: str) -> int:
    """Tell which version of the Transit key wrapped a DEK, so that a drill can say which one must still exist.

    Vault reads `v0` as version 1; here it is refused, for one key version has one name.

    :param wrapped_dek: `vault:vN:` and base64, as Vault Transit returned it.
    :raises FormatRejected: naming the rule, never the value.
    """
    match = _WRAPPED_DEK.fullmatch(wrapped_dek)
    if match is None:
        raise FormatRejected("wrapped_dek", "is not 'vault:vN:' (N from 1) followed by base64")
    return int(match[1])


@dataclass(frozen=True, kw_only=True)
class ArtefactContext:
    """What an artefact says about itself, bound to its data by the header tag (FORMAT: context).

    An invalid context cannot be made, so that none is ever written or believed.

    :param object_key: the key that the type has in SPEC section 5.
    :param created_at: RFC 3339 in UTC with `Z`.
    :param compression: `zstd` or `none`.
    :raises FormatRejected: naming the first field that breaks its rule.
    """

    backup_id: str
    backup_type: str
    object_key: str
    created_at: str
    compression: str
    wrapped_dek: str
    k_backup_version: int

    def __post_init__(self) -> None:
        for field in fields(self):
            wanted = int if field.name == "k_backup_version" else str
            # `type`, not `isinstance`: JSON's true is an int to Python, and a StrEnum writes as its value.
            value = getattr(self, field.name)
            if type(value) is not wanted and not (wanted is str and isinstance(value, str)):
                raise FormatRejected(field.name, f"is {type(value).__name__}, must be {wanted.__name__}")
        check_backup_id(self.backup_id)
        if self.backup_type not in list(ArtefactType):
            raise FormatRejected("backup_type", f"{self.backup_type!r} is none of {', '.join(ArtefactType)}")
        check_object_key(ArtefactType(self.backup_type), self.object_key)
        check_timestamp(self.created_at)
        if self.compression not in _COMPRESSIONS:
            raise FormatRejected("compression", f"{self.compression!r} is none of {', '.join(_COMPRESSIONS)}")
        version = key_version_of(self.wrapped_dek)
        if self.k_backup_version != version:
            raise FormatRejected("k_backup_version", f"is {self.k_backup_version}, but wrapped_dek says v{version}")

    def to_json(self) -> bytes:
        """Give the one canonical form: sorted keys, no white space, UTF-8.

        :raises FormatRejected: when it is too long for a header, or not expressible in UTF-8.
        """
        try:
            text = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise FormatRejected("context", "holds a character that UTF-8 has no form for") from None
        if len(text) > MAX_CONTEXT_BYTES:
            raise FormatRejected("context", f"is {len(text)} bytes long, {MAX_CONTEXT_BYTES} are allowed")
        return text

    @classmethod
    def from_json(cls, text: bytes) -> ArtefactContext:
        """Read the canonical form and nothing else, so that two texts can never mean the same context.

        :raises ArtefactDamaged: naming the field and the rule.
        """
        try:
            # Recursion: 64 KiB of '[' are valid enough to exhaust the parser's stack.
            values = json.loads(text)
        except (ValueError, RecursionError):
            raise ArtefactDamaged("the header's context is not JSON in UTF-8", remedy=FETCH_AGAIN) from None
        names = {field.name for field in fields(cls)}
        if not isinstance(values, dict) or set(values) != names:
            found = sorted(values) if isinstance(values, dict) else type(values).__name__
            raise ArtefactDamaged(
                f"the header's context must have exactly the keys {sorted(names)}, found {str(found)[:500]}",
                remedy=FETCH_AGAIN,
            )
        try:
            context = cls(**values)
            canonical = context.to_json()
        except FormatRejected as rejected:
            raise ArtefactDamaged(
                f"the header's context field {rejected.field} {rejected.reason}", remedy=FETCH_AGAIN
            ) from None
        if canonical != text:
            raise ArtefactDamaged(
                "the header's context is not canonical JSON (keys sorted and unique, no white space, no escapes)",
                remedy=FETCH_AGAIN,
            )
        return context


@dataclass(frozen=True, kw_only=True)
class Header:
    """A header as it stands in the artefact; only :func:`check_key` says whether it is authentic.

    :ivar iv: 12 bytes, new for every artefact.
    :ivar segment_log2: 16 to 24; a segment holds 2 to that power bytes of plaintext.
    :ivar tag: the 16-byte header tag, `auth_tag` of database and metadata.
    :ivar raw: all header bytes, tag included.
    """

    context: ArtefactContext
    iv: bytes
    segment_log2: int
    tag: bytes
    raw: bytes

    @property
    def metadata(self) -> dict[str, str]:
        """The four fields that S3 keeps beside the object (CC-47-04), so that HEAD alone tells how to open it."""
        return {
            "wrapped_dek": self.context.wrapped_dek,
            "iv": self.iv.hex(),
            "auth_tag": self.tag.hex(),
            "k_backup_version": str(self.context.k_backup_version),
        }

    @property
    def segment_bytes(self) -> int:
        """Plaintext bytes in every segment but the last."""
        return 1 << self.segment_log2


def new_iv() -> bytes:
    """Draw an artefact's IV: 12 random bytes, never used twice (INV-47-02)."""
    return secrets.token_bytes(IV_BYTES)


def make_header(*, dek: bytes | bytearray, iv: bytes, context: ArtefactContext, segment_log2: int) -> Header:
    """Build and seal a header; its tag is known before the first data byte, so metadata can carry it.

    :raises ValueError: for a key, IV or segment size that the format does not have; no value is named.
    :raises FormatRejected: for a context that is too long.
    """
    if len(dek) != DEK_BYTES or len(iv) != IV_BYTES:
        raise ValueError(f"PVB1 needs a DEK of {DEK_BYTES} and an IV of {IV_BYTES} bytes, got {len(dek)} and {len(iv)}")
    if not MIN_SEGMENT_LOG2 <= segment_log2 <= MAX_SEGMENT_LOG2:
        raise ValueError(f"segment_log2 is {segment_log2}, PVB1 allows {MIN_SEGMENT_LOG2} to {MAX_SEGMENT_LOG2}")
    text = context.to_json()
    sealed = _FIXED.pack(MAGIC, VERSION, SUITE_AES_256_GCM, segment_log2, 0, iv, len(text)) + text
    tag = AESGCM(dek).encrypt(iv, b"", sealed)
    return Header(context=context, iv=iv, segment_log2=segment_log2, tag=tag, raw=sealed + tag)


def read_header(read: Read) -> Header:
    """Read exactly the header, so that `read` then stands at the first segment.

    Nothing here is authenticated yet: the DEK that can do it is only known from the context.

    :raises ArtefactDamaged: naming the field that breaks the format, or where the artefact ends.
    """
    fixed = _read_exactly(read, _FIXED.size, "the fixed part of the header")
    magic, version, suite, segment_log2, flags, iv, context_bytes = _FIXED.unpack(fixed)
    if magic != MAGIC:
        raise ArtefactDamaged(
            f"this is no PVB1 artefact: it begins with {magic.hex()}, not {MAGIC.hex()}",
            remedy="check that the key names an .enc object; if it does, download it again",
        )
    _require("version", version, version == VERSION, f"{VERSION}")
    _require("suite", suite, suite == SUITE_AES_256_GCM, f"{SUITE_AES_256_GCM} (AES-256-GCM)")
    in_bounds = MIN_SEGMENT_LOG2 <= segment_log2 <= MAX_SEGMENT_LOG2
    _require("segment size (log2)", segment_log2, in_bounds, f"{MIN_SEGMENT_LOG2} to {MAX_SEGMENT_LOG2}")
    _require("flags", flags, flags == 0, "0")
    _require("context length", context_bytes, context_bytes <= MAX_CONTEXT_BYTES, f"at most {MAX_CONTEXT_BYTES}")
    text = _read_exactly(read, context_bytes, "the header's context")
    tag = _read_exactly(read, TAG_BYTES, "the header tag")
    context = ArtefactContext.from_json(text)
    return Header(context=context, iv=iv, segment_log2=segment_log2, tag=tag, raw=fixed + text + tag)


def check_key(header: Header, dek: bytes | bytearray) -> None:
    """Prove that this DEK made this header; what the context claims is true only after that.

    :raises ArtefactDamaged: otherwise. GCM can't tell a wrong key from a changed header, so both are named.
    """
    if len(dek) != DEK_BYTES:
        raise ArtefactDamaged(
            f"the key unwrapped from wrapped_dek has {len(dek)} bytes, AES-256 needs {DEK_BYTES}",
            remedy="check that transit_key names the key that wrapped this artefact",
        )
    try:
        AESGCM(dek).decrypt(header.iv, header.tag, header.raw[:-TAG_BYTES])
    except InvalidTag:
        raise ArtefactDamaged(
            f"the header of {header.context.object_key} does not open under this key: either the DEK is another"
            " artefact's, or a byte of the header (IV, context or tag) was changed",
            remedy="compare the object's metadata with the journal's wrapped_dek, iv and auth_tag to see which",
        ) from None


def _read_exactly(read: Read, size: int, part: str) -> bytes:
    got = bytearray()
    while len(got) < size:
        piece = read(size - len(got))
        if not piece:
            raise ArtefactDamaged(
                f"the artefact is cut: it ends {size - len(got)} bytes before the end of {part}", remedy=FETCH_AGAIN
            )
        got += piece
    return bytes(got)


def _require(field: str, value: int, holds: bool, rule: str) -> None:
    if not holds:
        raise ArtefactDamaged(f"the header's {field} is {value}, PVB1 has {rule}", remedy=FETCH_AGAIN)
