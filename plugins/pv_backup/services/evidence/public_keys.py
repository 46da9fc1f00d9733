"""The public keys that evidence is checked with: from PEM files or Vault's JSON, never from the document itself."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key
from hvac import Client

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.evidence.signed import ALGORITHM, Signature
from pv_backup.services.key_wrapping import ask_vault

# Text before a block is a comment in PEM (RFC 7468, section 2); ours says which key it is.
_BLOCK: Final = re.compile(
    r"(?:^(?P<name>\S+) version (?P<version>[0-9]{1,9})\s*\n)?"
    r"(?P<pem>^-----BEGIN PUBLIC KEY-----\r?\n[A-Za-z0-9+/=\s]+?^-----END PUBLIC KEY-----)",
    re.MULTILINE,
)
_HOW: Final = "get the key from who runs Vault: `python -m pv_backup evidence public-key`"


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """One version of a signing key.

    :ivar name: the key's name in Transit, None where the file does not say.
    :ivar version: likewise.
    """

    key: Ed25519PublicKey
    name: str | None = None
    version: int | None = None

    @property
    def fingerprint(self) -> str:
        """SHA3-256 of the key in DER, for two people to compare over the telephone."""
        return hashlib.sha3_256(self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()

    def may_have_made(self, signature: Signature) -> bool:
        """Whether it is the key that the signature names, or says nothing of what it is."""
        return self.name in (None, signature.key) and self.version in (None, signature.key_version)

    def __str__(self) -> str:
        version = f"version {self.version}" if self.version is not None else "no stated version"
        return f"{self.name or 'a key'}, {version}"


def read_public_keys(text: str, *, source: str) -> list[PublicKey]:
    """Read every key that a file holds.

    :param text: PEM blocks, each perhaps after a line `<name> version <N>`, or Vault's answer to
        `vault read -format=json transit/keys/<name>`.
    :param source: the file's name, for messages.
    :raises ConfigurationError: if it holds none, or one that is no ed25519 key.
    """
    if text.lstrip().startswith("{"):
        try:
            answer = json.loads(text)
        except ValueError:
            raise ConfigurationError(f"{source} is neither PEM nor JSON", remedy=_HOW) from None
        return _of_answer(answer, source=source)
    keys = [
        PublicKey(
            key=_ed25519(block["pem"], source),
            name=block["name"],
            version=int(block["version"]) if block["version"] else None,
        )
        for block in _BLOCK.finditer(text)
    ]
    if not keys:
        raise ConfigurationError(f"{source} holds no public key: no block BEGIN PUBLIC KEY", remedy=_HOW)
    return keys


def public_keys_of_vault(client: Client, key_name: str, *, mount_point: str) -> list[PublicKey]:
    """Ask Vault for every version, the oldest first; the token must be allowed to read the key.

    :raises FailClosedError: when Vault does not answer, or has no such key.
    :raises ConfigurationError: if it is no ed25519 key.
    """
    path = f"{mount_point}/keys/{key_name}"
    answer = ask_vault(path, lambda: client.secrets.transit.read_key(name=key_name, mount_point=mount_point))
    return _of_answer(answer, source=path)


def pem_of(key: PublicKey) -> str:
    """The key as a PEM block that openssl reads, after a line that says which it is."""
    label = f"{key.name} version {key.version}\n" if key.name and key.version else ""
    return label + key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def _of_answer(answer: object, *, source: str) -> list[PublicKey]:
    """Read the keys off `transit/keys/<name>`, or `transit/export/public-key/<name>`, with or without its envelope."""
    data: Any = answer.get("data", answer) if isinstance(answer, Mapping) else None
    versions = data.get("keys") if isinstance(data, Mapping) else None
    if not isinstance(versions, Mapping) or not versions or not all(str(name).isdecimal() for name in versions):
        raise ConfigurationError(f"{source} holds no public keys of Transit", remedy=_HOW)
    name = data.get("name")
    return [
        PublicKey(
            key=_ed25519(entry.get("public_key") if isinstance(entry, Mapping) else entry, source),
            name=name if isinstance(name, str) else None,
            version=int(version),
        )
        for version, entry in sorted(versions.items(), key=lambda item: int(item[0]))
    ]


def _ed25519(text: object, source: str) -> Ed25519PublicKey:
    """From PEM, or from the bare 32 bytes in base64, as Vault shows an ed25519 key.

    :raises ConfigurationError: if it is none.
    """
    encoded = text if isinstance(text, str) else ""
    key: object
    try:
        if "BEGIN" in encoded:
            key = load_pem_public_key(encoded.encode())
        else:
            key = Ed25519PublicKey.from_public_bytes(base64.b64decode(encoded, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{source} holds a key that is no {ALGORITHM} public key", remedy=_HOW)
    return key
