"""A failure, what Airflow hands its callbacks and the alert that it makes, and the journal that remembers alerts."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from dev.airflow_env import postgres_connection
from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.notifiers.mail import MailNotifier
from pv_backup.notifiers.webhook import WebhookNotifier
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.services.alerts import Alert
from pv_backup.services.errors import FailClosedError
from tests.integration.journal_world import JournalWorld, opened
from tests.support.servers import JournalDatabase

DAG_ID = "pv_backup_daily_dump"
BACKUP_ID = "11111111-2222-4333-8444-555555555555"
IDS = ConnectionIds()
ERROR = FailClosedError("Vault is sealed <at vault:8200>", remedy="unseal it, then trigger again")
ALERT = Alert.from_error(
    ERROR, dag_id=DAG_ID, day="2026-11-22", backup_id=BACKUP_ID, run_url="http://af/dags/pv_backup_daily_dump/runs/x"
)


def context_of(error: Exception, **more: Any) -> Any:
    """What Airflow hands to a failed task's callback."""
    ti = SimpleNamespace(dag_id=DAG_ID, task_id="stream_dump", log_url=ALERT.run_url, xcom_push=lambda *_: None)
    run = SimpleNamespace(run_after=datetime(2026, 11, 22, 2, tzinfo=UTC))
    return {"ti": ti, "params": {"day": "today"}, "dag_run": run, "exception": error, **more}


@contextmanager
def connected_journal(journal_db: JournalDatabase, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalWorld]:
    """A journal, and this process's connection to it."""
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", json.dumps(postgres_connection(journal_db.service_dsn)))
    with opened(journal_db) as world:
        yield world


def recorded(world: JournalWorld) -> list[tuple[str, str | None]]:
    """(event, channel), oldest first."""
    events = world.sql("SELECT event_type, details FROM pv_backup.backup_audit_events ORDER BY id")
    return [(event["event_type"], event["details"].get("channel")) for event in events]


def notify_all(context: Any) -> None:
    """Call each notifier as Airflow does, which logs what one raises."""
    for notifier in (MailNotifier(), WebhookNotifier(), IncidentNotifier()):
        try:
            notifier(context)
        except Exception:
            logging.getLogger("airflow").exception("Failed to run task callback")
