"""Wrap and unwrap DEKs with Vault Transit, or stop: there is no other scheme (INV-47-02, INV-47-03, ERR-47-02).

What goes wrong here must be understood at 04:10 without a second look, so each cause has its own sentence.
No exception from below is chained to ours: hvac's carry answer bodies, and requests' the request with the DEK.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

from hvac import Client
from hvac import exceptions as vault
from requests.exceptions import RequestException, SSLError

from pv_backup.services.envelope_header import DEK_BYTES, key_version_of
from pv_backup.services.errors import FailClosedError, FormatRejected, IntegrityError, PvBackupError

DEFAULT_MOUNT_POINT: Final = "transit"
Answer = TypeVar("Answer")


class WrappedKeyRefused(IntegrityError):
    """Vault is well, and says that this wrapped DEK is not one that its key made."""


class VaultForbids(FailClosedError):
    """The token's policy does not allow it, or the token is dead: Vault answers both alike.

    :ivar path: what was asked for.
    """

    def __init__(self, path: str) -> None:
        super().__init__(
            f"Vault forbids {path}: the token's policy does not allow it, or the token has run out or was revoked",
            remedy="compare the policy with include/vault; if that is right, get a new token (docs/vault.md)",
        )
        self.path = path


@dataclass(frozen=True, kw_only=True)
class WrappedKey:
    """A DEK as it may be stored; of use only to who may call `transit/decrypt`.

    :ivar wrapped_dek: `vault:vN:…`, as Vault returned it.
    :ivar k_backup_version: the N.
    """

    wrapped_dek: str
    k_backup_version: int


class KeyWrapper(Protocol):
    """The key service, as the rest of the services see it."""

    def wrap(self, dek: bytearray) -> WrappedKey:
        """Wrap a DEK under the newest version of the key."""
        ...

    def unwrap(self, wrapped_dek: str) -> bytearray:
        """Give the DEK back, for the caller to wipe."""
        ...


def new_dek() -> bytearray:
    """Draw an artefact's DEK, 32 random bytes, in a buffer that :func:`wiped` can zero (INV-47-02)."""
    return bytearray(secrets.token_bytes(DEK_BYTES))


@contextmanager
def wiped(buffer: bytearray) -> Iterator[bytearray]:
    """Zero a key at the end of its use, however that comes.

    Only this buffer: what Python's base64, HTTP and OpenSSL copied is listed in docs/security.md.
    """
    try:
        yield buffer
    finally:
        buffer[:] = bytes(len(buffer))


class TransitKeyWrapper:
    """One key of one Transit engine.

    :param client: an `hvac.Client`, logged in, with timeouts short enough to fail in seconds.
    :param key_name: the key's name in Transit, `transit_key` of the settings.
    :param mount_point: where the engine is mounted.
    """

    def __init__(self, *, client: Client, key_name: str, mount_point: str = DEFAULT_MOUNT_POINT) -> None:
        self._client = client
        self._key_name = key_name
        self._mount_point = mount_point

    def wrap(self, dek: bytearray) -> WrappedKey:
        """Wrap a DEK under the key's newest version.

        A token that may create keys makes Vault create a misspelt one; the service's policy must grant
        `update` on `encrypt/<key>` only.

        :raises FailClosedError: when Vault does not, with the cause.
        """
        path = f"{self._mount_point}/encrypt/{self._key_name}"
        answer = ask_vault(
            path,
            lambda: self._client.secrets.transit.encrypt_data(
                name=self._key_name, plaintext=base64.b64encode(dek).decode(), mount_point=self._mount_point
            ),
        )
        wrapped_dek = _field(answer, "ciphertext", path)
        try:
            return WrappedKey(wrapped_dek=wrapped_dek, k_backup_version=key_version_of(wrapped_dek))
        except FormatRejected as rejected:
            raise FailClosedError(
                f"Vault's answer to {path} is no wrapped key: it {rejected.reason}", remedy=_CHECK_HOST
            ) from None

    def unwrap(self, wrapped_dek: str) -> bytearray:
        """Give the DEK back; the caller wipes it (:func:`wiped`).

        :raises FailClosedError: when Vault does not answer, is sealed, or forbids it.
        :raises WrappedKeyRefused: when Vault has the key and this is not its ciphertext, or of a version
            that it does not have.
        """
        try:
            version = key_version_of(wrapped_dek)
        except FormatRejected as rejected:
            raise WrappedKeyRefused(f"wrapped_dek {rejected.reason}", remedy=_FROM_HEADER) from None
        path = f"{self._mount_point}/decrypt/{self._key_name}"
        answer = ask_vault(
            path,
            lambda: self._client.secrets.transit.decrypt_data(
                name=self._key_name, ciphertext=wrapped_dek, mount_point=self._mount_point
            ),
            on_refusal=lambda told: _refused(told, path, version),
        )
        dek = _decoded(_field(answer, "plaintext", path))
        if len(dek) != DEK_BYTES:
            raise WrappedKeyRefused(
                f"{path} gave a key of {len(dek)} bytes, a DEK has {DEK_BYTES}", remedy=_FROM_HEADER
            )
        return dek


_FROM_HEADER: Final = "take wrapped_dek from the object's own header, and check that transit_key names the right key"
_CHECK_HOST: Final = "check that the connection's host is a Vault or OpenBao and not a proxy"
_NO_KEY: Final = "encryption key not found"
_UNKNOWN_VERSION: Final = ("version is too new", "disallowed by policy")


def ask_vault(
    path: str,
    call: Callable[[], Answer],
    *,
    on_refusal: Callable[[str], PvBackupError] | None = None,
) -> Answer:
    """Turn whatever keeps Vault from answering into ERR-47-02 with the cause, and nothing of the request.

    :param path: what is asked for, as an operator would look it up in Vault's policy.
    :param on_refusal: says what a 400 means here, from Vault's own sentences.
    :raises FailClosedError: for every error of hvac and requests.
    """
    failure: PvBackupError
    try:
        return call()
    except vault.VaultError as error:
        if on_refusal and isinstance(error, vault.InvalidRequest):
            failure = on_refusal(_told(error))
        else:
            failure = _failed(error, path)
    except SSLError:
        failure = FailClosedError(
            f"Vault's certificate was not accepted on the way to {path}",
            remedy="check the CA bundle (client_kwargs.verify of the connection) and the certificate's expiry",
        )
    except RequestException as error:
        failure = FailClosedError(
            f"Vault is unreachable ({type(error).__name__}) on the way to {path}",
            remedy="check that Vault runs and that host and port of the connection are right; then run again",
        )
    # Raised out here: inside a handler, even with `from None`, Python keeps the handled error as __context__.
    raise failure


def _failed(error: vault.VaultError, path: str) -> FailClosedError:
    match error:
        case vault.VaultDown() | vault.VaultNotInitialized():
            what = f"Vault is not in service ({_told(error)}), it refused {path}"
            remedy = "if it is sealed, unseal it (`bao operator unseal`); then run again"
        case vault.Forbidden() | vault.Unauthorized():
            return VaultForbids(path)
        case vault.InvalidPath():
            what = f"Vault knows no {path}: no Transit engine is mounted there"
            remedy = "check transit_mount_point in the connection's extra, and `bao secrets list`"
        case vault.InvalidRequest():
            what = f"Vault refused {path}: {_told(error)}"
            remedy = "check that transit_key names an aes256-gcm96 key, neither derived nor convergent"
        case vault.RateLimitExceeded():
            what = f"Vault limits the rate of {path}"
            remedy = "look who else asks that much of Vault; then run again"
        case _:
            what = f"Vault failed on {path} ({type(error).__name__})"
            remedy = "read Vault's own log for that request; then run again"
    return FailClosedError(what, remedy=remedy)


def _refused(told: str, path: str, version: int) -> PvBackupError:
    if _NO_KEY in told:
        return FailClosedError(
            f"Vault has no key for {path}", remedy="check transit_key, and whether the key was deleted"
        )
    if any(sign in told for sign in _UNKNOWN_VERSION):
        return WrappedKeyRefused(
            f"{path}: version {version} of the key is not available ({told})",
            remedy="check `bao read` of the key: latest_version too low means another or a restored key,"
            " min_decryption_version too high means that the version was retired",
        )
    return WrappedKeyRefused(f"{path} refused the wrapped DEK of key version {version} ({told})", remedy=_FROM_HEADER)


def _told(error: vault.VaultError) -> str:
    # Vault's own sentences about a ciphertext or key type; they repeat nothing of what was sent.
    return "; ".join(str(sentence).strip() for sentence in error.errors or ["no reason given"])


def _field(answer: object, name: str, path: str) -> str:
    data = answer.get("data") if isinstance(answer, Mapping) else None
    value = data.get(name) if isinstance(data, Mapping) else None
    if not isinstance(value, str):
        raise FailClosedError(f"Vault's answer to {path} has no {name}", remedy=_CHECK_HOST)
    return value


def _decoded(text: str) -> bytearray:
    try:
        return bytearray(base64.b64decode(text, validate=True))
    except ValueError:
        raise WrappedKeyRefused("Vault's plaintext is not base64", remedy=_FROM_HEADER) from None
