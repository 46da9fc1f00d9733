"""The signed document: the evidence and its signature as one canonical JSON text (RFC 8785).

What is signed is the document without the signature's `value`, so that key and version can't be exchanged either. Only
one text is the document, byte for byte: whoever reads it can't understand it otherwise than who signed it.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import rfc8785
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pv_backup.services.drill_errors import EvidenceInvalid

ALGORITHM: Final = "ed25519"
#: RFC 8032, section 5.1.6.
SIGNATURE_BYTES: Final = 64

_TAKE_ANOTHER: Final = "take the document from the journal database (restoration_evidence), and find out who changed it"


class Signature(BaseModel):
    """Who signed.

    :ivar key: the Transit key's name.
    :ivar key_version: which of its versions.
    :ivar value: base64 of the signature's 64 bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    algorithm: Literal["ed25519"]
    key: str
    key_version: int = Field(ge=1)
    value: str

    @property
    def raw(self) -> bytes:
        """The signature itself.

        :raises EvidenceInvalid: if the text is not the one base64 text of 64 bytes.
        """
        try:
            raw = base64.b64decode(self.value, validate=True)
        except (binascii.Error, ValueError):
            raw = b""
        # The last character of base64 has bits that say nothing: several texts would be one signature.
        if len(raw) != SIGNATURE_BYTES or base64.b64encode(raw).decode() != self.value:
            raise EvidenceInvalid(
                f"the signature's value is not the base64 of {SIGNATURE_BYTES} bytes", remedy=_TAKE_ANOTHER
            )
        return raw


@dataclass(frozen=True, kw_only=True)
class SignedDocument:
    """A document taken apart; nothing of it was checked against a key yet.

    :ivar evidence: as JSON types.
    :ivar signed: the bytes that the signature covers.
    """

    evidence: Mapping[str, Any]
    signature: Signature
    signed: bytes

    @classmethod
    def parse(cls, text: str) -> Self:
        """Take a document apart.

        :param text: as it was signed; one line feed may follow, since tools that print lines add it.
        :raises EvidenceInvalid: saying why it is none.
        """
        text = text.removesuffix("\n")
        document = _parsed(text)
        try:
            signature = Signature.model_validate(document["signature"])
            evidence = document["evidence"]
        except (KeyError, TypeError, ValidationError) as error:
            raise EvidenceInvalid(f"it is no signed evidence: {_first_line(error)}", remedy=_TAKE_ANOTHER) from None
        if not isinstance(evidence, dict) or set(document) != {"evidence", "signature"}:
            raise EvidenceInvalid(
                "it is no signed evidence: it has other members than evidence and signature", remedy=_TAKE_ANOTHER
            )
        _demand_canonical(document, text)
        return cls(
            evidence=evidence,
            signature=signature,
            signed=signed_bytes(evidence, key=signature.key, key_version=signature.key_version),
        )


def signed_bytes(evidence: Mapping[str, Any], *, key: str, key_version: int) -> bytes:
    """What a signature covers: the whole document but for the signature's value.

    :raises EvidenceInvalid: if RFC 8785 has no form for it, such as a number that is none.
    """
    signature = {"algorithm": ALGORITHM, "key": key, "key_version": key_version}
    return _canonical({"evidence": evidence, "signature": signature})


def document_text(evidence: Mapping[str, Any], signature: Signature) -> str:
    """The document, as it is stored, sent and verified."""
    return _canonical({"evidence": evidence, "signature": signature.model_dump(mode="json")}).decode()


def _parsed(text: str) -> dict[str, Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise EvidenceInvalid(f"it is no JSON: {_first_line(error)}", remedy=_TAKE_ANOTHER) from None
    if not isinstance(document, dict):
        raise EvidenceInvalid("it is no signed evidence: it is no JSON object", remedy=_TAKE_ANOTHER)
    return document


def _demand_canonical(document: Mapping[str, Any], text: str) -> None:
    """Refuse every other spelling: white space, another order, a repeated name, a number written otherwise."""
    if _canonical(document) != text.encode("utf-8", "surrogatepass"):
        raise EvidenceInvalid(
            "it is not in its canonical form (RFC 8785): reformatted, reordered, or with a member twice",
            remedy="take the file as it was delivered: an editor or a JSON tool has rewritten this one",
        )


def _canonical(value: Mapping[str, Any]) -> bytes:
    try:
        return rfc8785.dumps(dict(value))
    except (rfc8785.CanonicalizationError, RecursionError) as error:
        raise EvidenceInvalid(
            f"it has no canonical form (RFC 8785): {error}", remedy="report this with the document"
        ) from None


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        problem = error.errors(include_url=False, include_input=False)[0]
        return f"signature.{'.'.join(map(str, problem['loc']))}: {problem['msg']}"
    return f"{type(error).__name__} {error}".splitlines()[0]
