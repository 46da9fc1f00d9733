"""Tell what nobody defined from what Vault keeps and does not give, because it is sealed or away (ERR-47-02).

Apart from the configuration, which the watchdog reads too: that one must know no way to a key (INV-47-06).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowNotFoundException

from pv_backup.operators.configuration import load_settings
from pv_backup.services.errors import ConfigurationError, FailClosedError

if TYPE_CHECKING:
    from hvac import Client

    from pv_backup.operators.configuration import ConnectionIds
    from pv_backup.services.settings import Settings


def settings_of_step(ids: ConnectionIds) -> Settings:
    """The settings, for a step that works with Vault anyway.

    :raises ConfigurationError: naming every setting that is missing or out of bounds.
    :raises FailClosedError: ERR-47-02, if one is, and Vault, which may keep it, is sealed or away.
    """
    try:
        return load_settings()
    except ConfigurationError as error:
        _demand_vault(ids.vault, missing=error.what)
        raise


@contextmanager
def named_connection(conn_id: str, *, vault: str = "") -> Iterator[None]:
    """Say which connection is missing and how to add it, or that the Vault that may keep it is away.

    :param vault: the connection of that Vault; none for what is never kept there and so must not need it.
    :raises ConfigurationError: if the connection is missing.
    :raises FailClosedError: ERR-47-02, if it is, and Vault is sealed or away.
    """
    try:
        yield
    except AirflowNotFoundException as error:
        if vault:
            _demand_vault(vault, missing=f"the Airflow connection {conn_id} is nowhere else")
        raise ConfigurationError(
            f"the Airflow connection {conn_id} is not defined" + (", or Vault does not show it" if vault else ""),
            remedy=("if Vault keeps it, compare path and policy with docs/vault.md; " if vault else "")
            + f"to add it: `airflow connections add {conn_id} …` (README, Settings)",
        ) from error


def _demand_vault(conn_id: str, *, missing: str) -> None:
    """Airflow takes a Vault that is sealed or away for one that has nothing; nobody should then add what is there.

    :raises FailClosedError: ERR-47-02, with Vault's own reason, if it does not answer or let this worker in.
    """
    from pv_backup.hooks.vault_transit import VaultTransitHook
    from pv_backup.services.key_wrapping import VaultForbids, ask_vault

    def is_answered(client: Client) -> None:
        with suppress(VaultForbids):  # an answer, and the one that a token without the default policy gets
            ask_vault("auth/token/lookup-self", client.auth.token.lookup_self)

    try:
        hook = VaultTransitHook(vault_conn_id=conn_id)
    except AirflowNotFoundException:
        return
    try:
        hook.ask(is_answered)
    except FailClosedError as away:
        raise FailClosedError(f"{away.what}; {missing}", remedy=away.remedy) from None
