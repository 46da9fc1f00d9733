"""House rules over all DAGs, so that each new one is as safe to schedule as the first."""

from __future__ import annotations

import ast
import re
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG
from airflow.sdk.bases.operator import BaseOperator
from airflow.sdk.exceptions import ParamValidationError

from pv_backup.dag_basics import DAY_PATTERN, Tag
from pv_backup.notifiers.incident import IncidentNotifier
from pv_backup.notifiers.lines import SecondLine
from pv_backup.notifiers.mail import MailNotifier
from pv_backup.notifiers.webhook import WebhookNotifier
from pv_backup.operators.retrying import MAX_RETRIES, PATIENT_RETRIES, BackupRetryPolicy, PatientRetryPolicy
from tests.dags.dag_world import DAG_FILES, dag_bag, dags, imports_any

pytestmark = pytest.mark.case("TC-NR-05")

MAX_LINES = 150
LONGEST_STEP = timedelta(hours=24)
LONGEST_QUESTION = timedelta(days=7)
# The DAGs whose next scheduled run, minutes later, is their retry.
RETRIED_BY_THE_NEXT_RUN = {"pv_backup_reconciliation", "pv_backup_wal_shipping"}
RUNS_OF_NO_DAY = {*RETRIED_BY_THE_NEXT_RUN, "pv_backup_deadline", "pv_backup_retention", "pv_backup_compliance"}
# Of no day either, and with a form of their own.
OWN_FORMS = {"pv_backup_incident": {"incident_id"}, "pv_backup_restoration_drill": {"target", "leg", "reason"}}
# One run for each incident that waits for a person.
SEVERAL_AT_ONCE = {"pv_backup_incident"}
# Without them nobody is asked about an incident, and a fresh installation must not start by looking away.
NEVER_PAUSED_AT_FIRST = {"pv_backup_compliance", "pv_backup_incident"}
# The sensor whose wait is its retry.
NEVER_RETRIED = {"pv_backup_watchdog.wait_for_backup"}
# What a drill of many hours has found would be lost with it.
PATIENT = {"pv_backup_restoration_drill.record_the_evidence"}
each_dag = pytest.mark.parametrize("dag", dags(), ids=lambda dag: dag.dag_id)
each_dag_of_a_day = pytest.mark.parametrize(
    "dag", [dag for dag in dags() if dag.dag_id not in {*RUNS_OF_NO_DAY, *OWN_FORMS}], ids=lambda dag: dag.dag_id
)
each_file = pytest.mark.parametrize("dag_file", DAG_FILES, ids=lambda path: path.stem)
each_task = pytest.mark.parametrize(
    "task", [task for dag in dags() for task in dag.tasks], ids=lambda task: f"{task.dag_id}.{task.task_id}"
)


@each_file
def test_a_file_is_one_dag_named_after_it_in_under_150_lines(dag_file: Path):
    in_file = [dag.dag_id for dag in dags() if Path(dag.fileloc).resolve() == dag_file]

    assert in_file == [dag_file.stem]
    assert len(dag_file.read_text().splitlines()) < MAX_LINES


@each_file
def test_a_file_only_wires(dag_file: Path):
    work = ("boto3", "botocore", "psycopg", "sqlalchemy", "subprocess", "cryptography", "hvac", "os", "pv_backup.hooks")

    assert imports_any(dag_file, work) == set()
    code = ast.parse(dag_file.read_text())
    texts = [node.value for node in ast.walk(code) if isinstance(node, ast.Constant) and isinstance(node.value, str)]
    runbook = ast.get_docstring(code, clean=False)
    sql = re.compile(r"\b(SELECT\s.*\sFROM|INSERT\s+INTO|DELETE\s+FROM|UPDATE\s+\w+\s+SET)\b", re.DOTALL)
    assert [text for text in texts if text != runbook and sql.search(text)] == []


@each_dag
def test_a_dag_tells_its_runbook_and_its_tags(dag: DAG):
    assert dag.doc_md
    assert "Paged?" in dag.doc_md
    assert dag.description
    assert Tag.PV_BACKUP in dag.tags
    assert set(dag.tags) <= set(Tag)


@each_dag
def test_the_runbook_names_every_task(dag: DAG):
    assert [task.task_id for task in dag.tasks if f"`{task.task_id}`" not in (dag.doc_md or "")] == []


@each_dag
def test_a_dag_neither_catches_up_nor_overlaps(dag: DAG):
    assert dag.catchup is False
    assert dag.max_active_runs == 1 or (dag.dag_id in SEVERAL_AT_ONCE and dag.schedule is None)
    assert dag.start_date is not None
    assert dag.start_date.tzinfo is UTC or dag.start_date.utcoffset() == timedelta(0)


@pytest.mark.parametrize("dag_id", sorted(NEVER_PAUSED_AT_FIRST))
def test_who_asks_about_incidents_runs_from_the_first_day(dag_id: str):
    assert dag_bag().dags[dag_id].is_paused_upon_creation is False


@each_dag_of_a_day
def test_the_form_takes_nothing_but_a_day_and_a_reason(dag: DAG):
    assert set(dag.params) == {"day", "reason"}
    day = dag.params.get_param("day").schema
    assert day["pattern"] == DAY_PATTERN
    assert day["examples"] == ["today", "yesterday"]
    assert dag.params.get_param("reason").schema["maxLength"] == 500
    assert dag.params.validate() == {"day": "today", "reason": ""}


@each_dag_of_a_day
@pytest.mark.parametrize("day", ["tomorrow", "2026-1-1", "today; DROP TABLE", "", "TODAY", "2026-01-01x", 7])
def test_the_form_refuses_what_is_no_day(dag: DAG, day: object):
    with pytest.raises(ParamValidationError):
        dag.params.get_param("day").resolve(value=day)


@pytest.mark.parametrize("dag_id", sorted(RUNS_OF_NO_DAY))
def test_a_run_of_no_day_asks_nothing_and_runs_where_its_files_are(dag_id: str):
    dag = dag_bag().dags[dag_id]

    assert set(dag.params) == set()
    queue = "pv_backup_wal" if dag_id == "pv_backup_wal_shipping" else "default"
    assert {task.queue for task in dag.tasks} == {queue}


@pytest.mark.parametrize("dag_id", sorted(OWN_FORMS))
def test_a_form_of_its_own_takes_nothing_else(dag_id: str):
    dag = dag_bag().dags[dag_id]

    assert set(dag.params) == OWN_FORMS[dag_id]
    assert {task.queue for task in dag.tasks} == {"default"}


@pytest.mark.parametrize("incident", ["", "x", "; DROP TABLE", "C3B7A5E2-0000-4000-8000-000000000000", None, 7])
def test_the_form_refuses_what_names_no_incident(incident: object):
    with pytest.raises(ParamValidationError):
        dag_bag().dags["pv_backup_incident"].params.get_param("incident_id").resolve(value=incident)


@each_task
def test_a_task_has_an_owner_a_deadline_and_the_retry_policy(task: BaseOperator):
    assert task.owner == "pv-backup"
    name = f"{task.dag_id}.{task.task_id}"
    never = task.dag_id in RETRIED_BY_THE_NEXT_RUN or name in NEVER_RETRIED
    assert task.retries == (0 if never else PATIENT_RETRIES if name in PATIENT else MAX_RETRIES)
    assert type(task.retry_policy) is (PatientRetryPolicy if name in PATIENT else BackupRetryPolicy)
    # Of a task that was killed, before its lease runs out: then nothing is settled, and nobody paged.
    assert task.retry_delay < timedelta(seconds=15)
    if isinstance(task, HITLOperator):
        # It waits on no worker, and its execution_timeout would end the wait: by an answer that nobody gave.
        assert task.execution_timeout is None
        assert task.defaults is None
        # Airflow checks the form when the task starts, before anybody has filled it in.
        task.params.validate()
        assert timedelta(days=1) < task.response_timeout <= LONGEST_QUESTION
    else:
        assert task.execution_timeout is not None
        assert timedelta(0) < task.execution_timeout <= LONGEST_STEP
    assert task.depends_on_past is False


@each_task
def test_a_failed_task_is_told_by_the_dags_own_notifier(task: BaseOperator):
    assert [type(callback) for callback in task.on_failure_callback] == first_line(task.dag_id)


@each_dag
def test_a_task_that_was_killed_is_told_by_its_run(dag: DAG):
    callbacks = dag.on_failure_callback
    second = callbacks if isinstance(callbacks, list) else [callbacks]

    assert {type(line) for line in second} == {SecondLine}
    assert [type(line.first) for line in second] == first_line(dag.dag_id)


def first_line(dag_id: str) -> list[type]:
    """The watchdog may read no table, so its notifiers remember nothing."""
    return [WebhookNotifier, MailNotifier] if dag_id == "pv_backup_watchdog" else [IncidentNotifier]


def test_the_specification_grants_three_retries():
    assert MAX_RETRIES == 3


@each_dag_of_a_day
def test_tasks_of_a_day_run_on_any_worker(dag: DAG):
    assert {task.queue for task in dag.tasks} == {"default"}
