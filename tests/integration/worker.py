"""This process as a worker: with the connections that the DAGs' tasks have, and the way in which it runs one."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dev.airflow_env import backup_settings
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from tests.dags.dag_world import dag_bag
from tests.support.servers import TestStack


def become_worker(
    monkeypatch: pytest.MonkeyPatch,
    stack: TestStack,
    *,
    journal_dsn: str,
    bucket: str,
    source_dsn: str = "postgresql://nobody@127.0.0.1/none",
    s3_endpoint: str = "",
    vault_address: str = "",
    wal_directory: Path | None = None,
) -> None:
    """Give this process the connections and settings of a worker, until the test's end.

    :param s3_endpoint: where it is not the stack's own, likewise ``vault_address``.
    """
    environment = backup_settings(
        source_dsn=source_dsn,
        journal_dsn=journal_dsn,
        vault_address=vault_address or stack.vault.address,
        vault_token=stack.backup_token,
        s3_endpoint=s3_endpoint or stack.s3.endpoint,
        s3_key=stack.backup_user,
        bucket=bucket,
        kms_key_id=SSE_KEY,
        transit_key=TRANSIT_KEY,
        wal_directory=wal_directory,
    )
    for name, value in (environment | {"AIRFLOW_VAR_PV_BACKUP_SETTINGS": "{}"}).items():
        monkeypatch.setenv(name, value)


def context_of(
    task: Any,
    *,
    params: dict[str, str] | None = None,
    run_id: str = "",
    max_tries: int = 0,
    told: dict[str, str] | None = None,
) -> Any:
    """What Airflow hands a task at its first try, as far as ours look.

    :param told: where the callback leaves word of what it told.
    """
    ti = SimpleNamespace(
        dag_id=task.dag_id,
        task_id=task.task_id,
        log_url="",
        try_number=1,
        max_tries=max_tries,
        xcom_push=({} if told is None else told).__setitem__,
    )
    run = SimpleNamespace(run_after=datetime.now(UTC), run_type=SimpleNamespace(value="manual"))
    return {"ti": ti, "task": task, "params": params or {}, "dag_run": run, "run_id": run_id}


def run_task(dag_id: str, task_id: str) -> Exception | None:
    """Run a task of a DAG without a form, and its callbacks if it fails; the error that it failed by."""
    task = dag_bag().dags[dag_id].get_task(task_id)
    told: dict[str, str] = {}
    context = context_of(task, told=told)
    try:
        copy.copy(task).execute(context)
    except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
        for callback in task.on_failure_callback:
            callback(context | {"exception": error})
        assert told, "the task's callback leaves word of what it told"
        return error
    return None
