"""Vault Transit behind an Airflow Vault connection."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.hashicorp.hooks.vault import VaultHook
from hvac.exceptions import VaultError
from requests import Session

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.evidence.signing import EvidenceSigner
from pv_backup.services.key_wrapping import DEFAULT_MOUNT_POINT, TransitKeyWrapper, WrappedKey, ask_vault

if TYPE_CHECKING:
    from hvac import Client

CONNECT_TIMEOUT_S: Final = 3
READ_TIMEOUT_S: Final = 10


class KeysOnDemand:
    """The key service, which is logged in to when a key is needed: what needs none must work while Vault is sealed."""

    def __init__(self, *, hook: VaultTransitHook, transit_key: str) -> None:
        self._hook = hook
        self._transit_key = transit_key

    @cached_property
    def _keys(self) -> TransitKeyWrapper:
        return self._hook.key_wrapper(self._transit_key)

    def wrap(self, dek: bytearray) -> WrappedKey:
        """Wrap a DEK under the newest version of the key."""
        return self._keys.wrap(dek)

    def unwrap(self, wrapped_dek: str) -> bytearray:
        """Give the DEK back, for the caller to wipe."""
        return self._keys.unwrap(wrapped_dek)


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

    def key_wrapper(self, transit_key: str) -> TransitKeyWrapper:
        """Log in, where the connection's auth type asks for it, and give the wrapper of that key.

        :raises FailClosedError: when the login fails; with a token nothing is asked of Vault yet.
        """
        return TransitKeyWrapper(client=self._logged_in(), key_name=transit_key, mount_point=self._mount_point)

    def evidence_signer(self, evidence_key: str) -> EvidenceSigner:
        """Log in likewise, and give the signer of that key.

        :raises FailClosedError: when the login fails; with a token nothing is asked of Vault yet.
        """
        return EvidenceSigner(client=self._logged_in(), key_name=evidence_key, mount_point=self._mount_point)

    @property
    def _mount_point(self) -> str:
        return str(self.connection.extra_dejson.get("transit_mount_point", DEFAULT_MOUNT_POINT))

    def _logged_in(self) -> Client:
        return ask_vault(f"the login of connection {self.connection.conn_id}", lambda: self.vault_client.client)
