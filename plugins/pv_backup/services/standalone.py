"""Reach bucket and key without Airflow, from the environment variables that their own tools use."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pv_backup.services.errors import ConfigurationError
from pv_backup.services.key_wrapping import KeyWrapper, TransitKeyWrapper
from pv_backup.services.object_store import ObjectStore
from pv_backup.services.s3_client import CLIENT_OPTIONS
from pv_backup.services.settings import Settings

if TYPE_CHECKING:
    from hvac import Client

_VAULT_TIMEOUT_S = (3.0, 10.0)


def store_from_environment(settings: Settings) -> ObjectStore:
    """The bucket, through `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_ENDPOINT_URL_S3` and the like."""
    import boto3
    from botocore.config import Config

    return ObjectStore(
        client=boto3.client("s3", config=Config(**CLIENT_OPTIONS)),
        bucket=settings.bucket,
        kms_key_id=settings.kms_key_id,
        timeout_s=settings.timeout_upload_s,
    )


def keys_from_environment(settings: Settings) -> KeyWrapper:
    """The key that wraps the DEKs.

    :raises ConfigurationError: if Vault's variables are missing.
    """
    return TransitKeyWrapper(client=vault_from_environment(), key_name=settings.transit_key)


def vault_from_environment() -> Client:
    """Vault, through `VAULT_ADDR` and `VAULT_TOKEN`.

    :raises ConfigurationError: if one of them is missing.
    """
    import hvac

    missing = [name for name in ("VAULT_ADDR", "VAULT_TOKEN") if not os.environ.get(name)]
    if missing:
        raise ConfigurationError(f"{' and '.join(missing)} not set", remedy="export the address and a token of Vault")
    return hvac.Client(url=os.environ["VAULT_ADDR"], token=os.environ["VAULT_TOKEN"], timeout=_VAULT_TIMEOUT_S)
