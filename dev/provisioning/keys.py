"""Vault: the Transit keys, and tokens that may use one key each."""

from __future__ import annotations

from pathlib import Path

import hvac
import hvac.exceptions
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from dev.credentials import Credentials
from dev.servers.openbao import MAX_LEASE, OpenBao

ROOT = Path(__file__).parents[2]
TRANSIT_KEY = "pv-backup"
SSE_KEY = "pv-backup-sse"
# Production's own policy for the backup, so that whatever runs here runs with the rights that it will have there.
POLICY_FILES = {
    TRANSIT_KEY: ROOT / "include" / "vault" / "pv-backup.hcl",
    SSE_KEY: ROOT / "dev" / "policies" / "pv-backup-sse.hcl",
}
EVIDENCE_KEY = "pv-backup-evidence"
_NEW_MOUNT_S = 30


def ensure_keys_and_tokens(vault: OpenBao, credentials: Credentials) -> None:
    """Mount Transit, make the backup's keys and the S3 server's, and a token limited to those of each."""
    client = vault.client()
    if "transit/" not in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.enable_secrets_engine("transit")
    # Creating a key that is there is a no-op in Transit: it keeps its versions.
    client.secrets.transit.create_key(EVIDENCE_KEY, key_type="ed25519")
    for name, token in (
        (TRANSIT_KEY, credentials.get("vault_backup_token")),
        (SSE_KEY, credentials.get("vault_sse_token")),
    ):
        client.secrets.transit.create_key(name, key_type="aes256-gcm96")
        client.sys.create_or_update_policy(name, POLICY_FILES[name].read_text())
        _ensure_token(client, token, policy=name)


def ensure_kv(client: hvac.Client, mount: str) -> None:
    """Mount a KV of version 2, and wait until it serves: a new one refuses everything for a moment."""
    if f"{mount}/" not in client.sys.list_mounted_secrets_engines()["data"]:
        client.sys.enable_secrets_engine("kv", path=mount, options={"version": "2"})
    refused = retry_if_exception_type(hvac.exceptions.InvalidRequest)
    patiently = Retrying(retry=refused, wait=wait_fixed(0.05), stop=stop_after_delay(_NEW_MOUNT_S), reraise=True)
    patiently(client.secrets.kv.v2.read_configuration, mount_point=mount)


def _ensure_token(client: hvac.Client, token: str, *, policy: str) -> None:
    try:
        if client.auth.token.lookup(token)["data"]["policies"] == [policy]:
            return
        client.auth.token.revoke(token)
    except hvac.exceptions.Forbidden:
        # Unknown or expired.
        pass
    # We choose its id, so that what ``.dev/env`` says stays true.
    client.auth.token.create(
        id=token, policies=[policy], no_default_policy=True, period=MAX_LEASE, no_parent=True, display_name=policy
    )
