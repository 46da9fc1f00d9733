"""Wait in the triggerer for a day's backup, until it is there or the time is up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from typing import Any, Final

from airflow.providers.amazon.aws.triggers.s3 import S3KeyTrigger
from airflow.triggers.base import TriggerEvent

from pv_backup.triggers.looks import looks_until

#: A look at S3 takes this long at most, whatever S3 does: the alert must not wait for a network that swallows packets.
LOOK_TIMEOUT: Final = timedelta(seconds=10)


class PublishedBackupTrigger(S3KeyTrigger):
    """Look for all the keys until the deadline; an S3 that fails meanwhile is asked again.

    The deadline is an instant and not a duration, so that a restarted triggerer does not begin the wait anew.

    :param bucket_key: all of them must be there.
    :param deadline: RFC 3339; the last look is made then, and one is always made.
    :param poke_interval: seconds between two looks.
    """

    def __init__(
        self,
        *,
        bucket_name: str,
        bucket_key: Sequence[str],
        deadline: str,
        aws_conn_id: str,
        botocore_config: dict[str, Any],
        poke_interval: float,
    ) -> None:
        super().__init__(
            bucket_name=bucket_name,
            bucket_key=list(bucket_key),
            aws_conn_id=aws_conn_id,
            botocore_config=botocore_config,
            poke_interval=poke_interval,
        )
        self.deadline = deadline

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """All that another triggerer needs to go on."""
        kept = ("bucket_name", "bucket_key", "deadline", "aws_conn_id", "botocore_config", "poke_interval")
        return f"{type(self).__module__}.{type(self).__qualname__}", {name: getattr(self, name) for name in kept}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield whether the backup is there, and why the last look could not tell if it could not."""
        async for is_last in looks_until(self.deadline, self.poke_interval):
            present, error = await self._look()
            if present or is_last:
                yield TriggerEvent({"present": present, "error": error})  # type: ignore[no-untyped-call]
                return

    async def _look(self) -> tuple[bool, str | None]:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT.total_seconds()):
                connection = await self.hook.get_async_conn()  # type: ignore[no-untyped-call]
                async with connection as client:
                    return await self.hook.check_key_async(client, self.bucket_name, self.bucket_key, False), None
        except TimeoutError:
            self.log.warning("S3 did not answer within %s s", LOOK_TIMEOUT.total_seconds())
            return False, f"no answer within {LOOK_TIMEOUT.total_seconds():.0f} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, it may be over before the deadline
            self.log.warning("S3 could not be asked: %s", error)
            return False, f"{type(error).__name__}: {error}"
