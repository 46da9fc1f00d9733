"""Sign the evidence of a drill with a key that never leaves Vault (Transit, ed25519)."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Final

from hvac import Client

from pv_backup.services.errors import FailClosedError, FormatRejected
from pv_backup.services.evidence.document import Evidence
from pv_backup.services.evidence.signed import (
    ALGORITHM,
    SIGNATURE_BYTES,
    Signature,
    document_text,
    signed_bytes,
)
from pv_backup.services.evidence.storable import storable
from pv_backup.services.key_wrapping import DEFAULT_MOUNT_POINT, ask_vault

_CHECK_HOST: Final = "check that the connection's host is a Vault or OpenBao and not a proxy"
_CHECK_KEY: Final = "check that evidence_key names an ed25519 key that is not derived, and its min_encryption_version"


class EvidenceSigner:
    """One signing key of one Transit engine.

    :param client: an `hvac.Client`, logged in, with timeouts short enough to fail in seconds.
    :param key_name: `evidence_key` of the settings.
    :param mount_point: where the engine is mounted.
    """

    def __init__(self, *, client: Client, key_name: str, mount_point: str = DEFAULT_MOUNT_POINT) -> None:
        self._client = client
        self._key_name = key_name
        self._mount_point = mount_point

    def sign(self, evidence: Evidence) -> str:
        """The signed document, to be kept as it is, byte for byte.

        :raises FailClosedError: when Vault does not sign, with the cause.
        :raises EvidenceInvalid: if the evidence holds what canonical JSON can't, such as an integer above 2^53.
        """
        told = storable(evidence.to_json())
        # The version is part of what is signed. The token may not read the key, so a signature of nothing tells it.
        newest, _ = self._signed(b"")
        content = signed_bytes(told, key=self._key_name, key_version=newest)
        version, value = self._signed(content, key_version=newest)
        if version != newest:
            raise FailClosedError(
                f"Vault was to sign with version {newest} of {self._key_name} and did with {version}",
                remedy=_CHECK_HOST,
            )
        signature = Signature(algorithm=ALGORITHM, key=self._key_name, key_version=newest, value=value)
        return document_text(told, signature)

    def _signed(self, content: bytes, *, key_version: int | None = None) -> tuple[int, str]:
        path = f"{self._mount_point}/sign/{self._key_name}"
        answer = ask_vault(
            path,
            lambda: self._client.secrets.transit.sign_data(
                name=self._key_name,
                hash_input=base64.b64encode(content).decode(),
                key_version=key_version,
                mount_point=self._mount_point,
            ),
            on_refusal=lambda told: FailClosedError(f"Vault refused {path}: {told}", remedy=_CHECK_KEY),
        )
        try:
            return _version_and_value(answer)
        except FormatRejected as rejected:
            raise FailClosedError(
                f"Vault's answer to {path} is no ed25519 signature: it {rejected.reason}", remedy=_CHECK_HOST
            ) from None


def _version_and_value(answer: object) -> tuple[int, str]:
    """Take `vault:vN:<base64>` apart."""
    data = answer.get("data") if isinstance(answer, Mapping) else None
    text = data.get("signature") if isinstance(data, Mapping) else None
    scheme, _, rest = text.partition(":v") if isinstance(text, str) else ("", "", "")
    version, _, value = rest.partition(":")
    if scheme != "vault" or not version.isdecimal() or int(version) < 1:
        raise FormatRejected("signature", "is not vault:vN:…, N from 1")
    try:
        length = len(base64.b64decode(value, validate=True))
    except ValueError:
        length = 0
    if length != SIGNATURE_BYTES:
        raise FormatRejected("signature", f"has no {SIGNATURE_BYTES} bytes, so {ALGORITHM} did not make it")
    return int(version), value
