"""The watchdog's sensor as worker and triggerer run it, each in its turn, on a real bucket."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk._shared.module_loading import import_string
from airflow.sdk.exceptions import TaskDeferred
from airflow.sdk.serde import deserialize, serialize
from airflow.triggers.base import BaseTrigger

from pv_backup.operators.escalation import RELAUNCH, WATCHDOG, WATCHDOG_RUN_ID
from pv_backup.sensors.published_backup import PublishedBackupSensor
from pv_backup.services.artefacts import ArtefactType, manifest_key, object_key_of_day
from pv_backup.services.days import choose_day
from tests.integration.bucket_view import BucketView
from tests.integration.worker import become_worker
from tests.support.servers import Bucket, JournalDatabase, TestStack


@dataclass
class WatchWorld:
    """One run of the watchdog, and its bucket.

    :ivar relaunch_runs: the runs of the relaunch that Airflow has.
    """

    stack: TestStack
    bucket: BucketView
    monkeypatch: pytest.MonkeyPatch
    run_after: datetime = field(default_factory=lambda: datetime.now(UTC))
    relaunch_runs: list[str] = field(default_factory=list)

    @property
    def day(self) -> date:
        return choose_day(self.run_after, "today")

    @property
    def object_key(self) -> str:
        return object_key_of_day(ArtefactType.PG_DUMP, self.day)

    def put_object(self) -> None:
        self.bucket.put(self.object_key, b"an artefact")

    def put_manifest(self) -> None:
        self.bucket.put(manifest_key(self.object_key), b"{}")

    @property
    def context(self) -> Any:
        def count(*, dag_id: str, run_ids: list[str]) -> int:
            assert dag_id == RELAUNCH
            return len(set(run_ids) & set(self.relaunch_runs))

        ti = SimpleNamespace(dag_id=WATCHDOG, get_dr_count=count)
        return {"ti": ti, "params": {"day": "today"}, "dag_run": SimpleNamespace(run_after=self.run_after)}

    def sensor(self) -> PublishedBackupSensor:
        """As each process makes it anew."""
        return PublishedBackupSensor(
            task_id="wait_for_backup", relaunch_dag_id=RELAUNCH, relaunch_run_id=WATCHDOG_RUN_ID, poke_interval=0.5
        )

    def deferred(self, wait_s: int) -> TaskDeferred:
        """The worker's part; it must not see the backup."""
        self.monkeypatch.setenv("PV_BACKUP_WATCHDOG_WAIT_S", str(wait_s))
        with pytest.raises(TaskDeferred) as caught:
            self.sensor().execute(self.context)
        return caught.value

    def watch(self, wait_s: int) -> float:
        """Worker, triggerer, worker; seconds that it took.

        :raises BackupAbsent: as the task does.
        """
        began = time.monotonic()
        deferred = self.deferred(wait_s)
        self.resume(deferred, {"event": fired(another_triggerers(deferred.trigger))})
        return time.monotonic() - began

    def resume(self, deferred: TaskDeferred, kwargs: dict[str, Any]) -> None:
        self.sensor().resume_execution(deferred.method_name, kwargs, self.context)


def another_triggerers(trigger: BaseTrigger) -> BaseTrigger:
    """The trigger as it comes out of the metadata database."""
    path, kwargs = trigger.serialize()
    return import_string(path)(**deserialize(serialize(kwargs)))


def fired(trigger: BaseTrigger) -> Any:
    """What a trigger says in the end."""

    async def first() -> Any:
        return await anext(trigger.run())

    return asyncio.run(first()).payload


def watch_world(
    stack: TestStack, journal_db: JournalDatabase, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, **connection: str
) -> WatchWorld:
    """Give this process the worker's connections and settings, until the test's end.

    :param connection: what differs, such as `s3_endpoint`.
    """
    journal = {"journal_dsn": journal_db.service_dsn} | connection
    become_worker(monkeypatch, stack, bucket=bucket.name, **journal)
    return WatchWorld(stack, BucketView(bucket), monkeypatch)
