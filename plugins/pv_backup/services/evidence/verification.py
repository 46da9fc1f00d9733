"""Check a document of evidence offline: with its text and the public keys of somebody who is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from pydantic import ValidationError

from pv_backup.services.drill_errors import EvidenceInvalid
from pv_backup.services.evidence.document import FORMAT_VERSION, Evidence
from pv_backup.services.evidence.public_keys import PublicKey
from pv_backup.services.evidence.signed import Signature, SignedDocument


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Evidence whose signature holds, and by which key."""

    evidence: Evidence
    signature: Signature
    key: PublicKey


def verify_evidence(text: str, public_keys: Sequence[PublicKey]) -> Evidence:
    """The evidence of a document, if it is as one of the keys signed it.

    :param public_keys: from :func:`~pv_backup.services.evidence.public_keys.read_public_keys`.
    :raises EvidenceInvalid: saying what is wrong.
    """
    return verified(text, public_keys).evidence


def verified(text: str, public_keys: Sequence[PublicKey]) -> Proof:
    """As :func:`verify_evidence`, with the key that it was.

    :raises EvidenceInvalid: if the text is no canonical document, no key is the one that it names, or none made its
        signature; or if the signature holds and the format is one that this version does not know.
    """
    document = SignedDocument.parse(text)
    signature, raw = document.signature, document.signature.raw
    candidates = [key for key in public_keys if key.may_have_made(signature)]
    if not candidates:
        raise EvidenceInvalid(
            f"it is signed by {signature.key}, version {signature.key_version}, and the keys at hand are: "
            + ("; ".join(map(str, public_keys)) or "none"),
            remedy="get that version of the public key from who runs Vault",
        )
    for key in candidates:
        try:
            key.key.verify(raw, document.signed)
        except InvalidSignature:
            continue
        return Proof(evidence=_evidence(document), signature=signature, key=key)
    raise EvidenceInvalid(
        f"the signature does not hold: {signature.key}, version {signature.key_version}, has not signed this",
        remedy="take the document from the journal database (restoration_evidence); if that fails too, find out who "
        "changed it, and whether the public key is the right one",
    )


def read_unverified(text: str) -> tuple[Evidence, Signature]:
    """What a document says, for showing it; nobody has checked who signed it.

    :raises EvidenceInvalid: if it is no canonical document, or of another format.
    """
    document = SignedDocument.parse(text)
    return _evidence(document), document.signature


def _evidence(document: SignedDocument) -> Evidence:
    try:
        return Evidence.model_validate(document.evidence)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        raise EvidenceInvalid(
            f"its format is none that this version knows ({FORMAT_VERSION}): "
            f"evidence.{'.'.join(map(str, problem['loc']))}: {problem['msg']}",
            remedy="use the version of pv_backup that wrote it, or a newer one",
        ) from None
