"""The bucket behind an Airflow AWS connection, as the services' object store."""

from __future__ import annotations

from typing import Any

from airflow.providers.amazon.aws.hooks.s3 import S3Hook
from botocore.config import Config

from pv_backup.services.object_store import ObjectStore
from pv_backup.services.s3_client import CLIENT_OPTIONS, FIXED_OPTIONS
from pv_backup.services.settings import Settings


class BackupStoreHook(S3Hook):
    """Gives the object store of the backup bucket, with the dedicated backup user's credentials.

    :param aws_conn_id: the connection of the IAM user `backup_user`; its `config_kwargs` extra still
        applies where the artefact stream does not depend on the option.
    """

    default_conn_name = "pv_backup_s3"

    def __init__(self, aws_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(aws_conn_id=aws_conn_id, **kwargs)

    def object_store(self, settings: Settings) -> ObjectStore:
        """Build the store; nothing is asked of S3 yet."""
        config = Config(**CLIENT_OPTIONS).merge(self.config).merge(Config(**FIXED_OPTIONS))
        client = self.get_client_type(config=config)
        return ObjectStore(
            client=client,
            bucket=settings.bucket,
            kms_key_id=settings.kms_key_id,
            timeout_s=settings.timeout_upload_s,
        )
