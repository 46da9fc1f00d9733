"""Vault Transit behind an Airflow Vault connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from airflow.providers.hashicorp.hooks.vault import VaultHook
from hvac.exceptions import VaultError
from requests import Session

from pv_backup.services.errors import ConfigurationError, FailClosedError
from pv_backup.services.evidence.signing import EvidenceSigner
from pv_backup.services.key_wrapping import (
    DEFAULT_MOUNT_POINT,
    TransitKeyWrapper,
    VaultForbids,
    WrappedKey,
    ask_vault,
)

if TYPE_CHECKING:
    from hvac import Client

    from pv_backup.services.evidence.document import Evidence

CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 10
Answer = TypeVar("Answer")


class KeysOnDemand:
    """The key service, which is logged in to when a key is needed: what needs none must work while Vault is sealed."""

    def __init__(self, *, hook: VaultTransitHook, transit_key: str) -> None:
        self._hook = hook
        self._transit_key = transit_key

    def wrap(self, dek: bytearray) -> WrappedKey:
        """Wrap a DEK under the newest version of the key."""
        return self._hook.ask(lambda client: self._keys(client).wrap(dek))

    def unwrap(self, wrapped_dek: str) -> bytearray:
        """Give the DEK back, for the caller to wipe."""
        return self._hook.ask(lambda client: self._keys(client).unwrap(wrapped_dek))

    def _keys(self, client: Client) -> TransitKeyWrapper:
        return TransitKeyWrapper(client=client, key_name=self._transit_key, mount_point=self._hook.mount_point)


class SignerOnDemand:
    """The signing key of drills, likewise."""

    def __init__(self, *, hook: VaultTransitHook, evidence_key: str) -> None:
        self._hook = hook
        self._evidence_key = evidence_key

    def sign(self, evidence: Evidence) -> str:
        """The signed document, to be kept as it is, byte for byte."""
        return self._hook.ask(lambda client: self._signer(client).sign(evidence))

    def _signer(self, client: Client) -> EvidenceSigner:
        return EvidenceSigner(client=client, key_name=self._evidence_key, mount_point=self._hook.mount_point)


class VaultTransitHook(VaultHook):
    """Gives the key service, with time limits that make a black-holed Vault ERR-47-02 in seconds.

    Import it inside a task: the provider and hvac take longer to import than a DAG file may.

    :param vault_conn_id: a connection of type `vault`; its extra `transit_mount_point` (default `transit`)
        says where the engine is mounted, all other extras are the provider's.
    """

    default_conn_name = "pv_backup_vault"

    def __init__(self, vault_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        options = {
            "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
            # The provider's own session tries four times and so would wait four times as long.
            "session": Session(),
        }
        try:
            super().__init__(vault_conn_id=vault_conn_id, **{**options, **kwargs})
        except VaultError as error:
            # Raised before any request, about the connection's fields and never their values.
            raise ConfigurationError(
                f"the connection {vault_conn_id} does not describe a Vault: {error.args[0]}",
                remedy="correct the connection; the Apache Airflow hashicorp provider documents its fields",
            ) from None

    def key_wrapper(self, transit_key: str) -> KeysOnDemand:
        """The wrapper of that key; nothing is asked of Vault yet."""
        return KeysOnDemand(hook=self, transit_key=transit_key)

    def evidence_signer(self, evidence_key: str) -> SignerOnDemand:
        """The signer of that key; nothing is asked of Vault yet."""
        return SignerOnDemand(hook=self, evidence_key=evidence_key)

    def ask(self, question: Callable[[Client], Answer]) -> Answer:
        """Ask by the login at hand, and by a new one when Vault forbids it: a task may outlive its login by hours.

        :raises FailClosedError: when a login fails, and whatever the question raises.
        """
        client = self._login(lambda: self.vault_client.client)
        try:
            return question(client)
        except VaultForbids:
            if self.vault_client.auth_type == "token":
                raise
        # Vault says of a dead token what it says of a forbidden path: only a second refusal tells them apart.
        client = self._login(self.get_conn)
        try:
            return question(client)
        except VaultForbids as forbidden:
            path = forbidden.path
        raise FailClosedError(
            f"Vault forbids {path}, although connection {self.connection.conn_id} has just logged in: its role's policy"
            " does not allow it, or token_bound_cidrs excludes this machine",
            remedy="compare `bao policy read` and `bao read` of the role with docs/vault.md; then run again",
        )

    @property
    def mount_point(self) -> str:
        """Where the Transit engine is mounted."""
        return str(self.connection.extra_dejson.get("transit_mount_point", DEFAULT_MOUNT_POINT))

    def _login(self, log_in: Callable[[], Client]) -> Client:
        login = f"the login of connection {self.connection.conn_id}"
        try:
            return ask_vault(login, log_in, on_refusal=lambda told: _login_refused(login, told))
        except VaultForbids:
            method = self.vault_client.auth_mount_point or self.vault_client.auth_type
        raise FailClosedError(
            f"Vault forbids {login}: no auth method is enabled at auth/{method}",
            remedy="check auth_type and auth_mount_point in the connection's extra, and `bao auth list`",
        )


def _login_refused(login: str, told: str) -> FailClosedError:
    return FailClosedError(
        f"Vault refused {login}: {told}",
        remedy="with AppRole the connection's login is the role_id and its password the secret_id, which may have run"
        " out, been used up or destroyed: draw a new one (docs/vault.md)",
    )
