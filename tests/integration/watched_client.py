"""A real S3 client whose calls a test is told of, before each is sent and after it was answered."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dev.provisioning.keys import SSE_KEY
from pv_backup.services.object_store import ObjectStore
from tests.integration.backup_world import BackupWorld, s3_client

Hear = Callable[[str], None]


class WatchedClient:
    """Passes every call on.

    :param hear: gets `before NAME` and `after NAME`; what it raises comes out of the call.
    """

    def __init__(self, client: Any, hear: Hear) -> None:
        self._client = client
        self._hear = hear

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._client, name)

        def call(**arguments: Any) -> Any:
            self._hear(f"before {name}")
            answer = method(**arguments)
            self._hear(f"after {name}")
            return answer

        return call


def store_watched(backup: BackupWorld, hear: Hear) -> ObjectStore:
    """The world's bucket through a client that tells."""
    client = WatchedClient(s3_client(backup.stack, backup.stack.s3.endpoint), hear)
    return ObjectStore(client=client, bucket=backup.bucket.name, kms_key_id=SSE_KEY, timeout_s=60)
