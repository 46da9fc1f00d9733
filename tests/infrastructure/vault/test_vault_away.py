"""Vault keeps source, journal and settings, and is sealed or away: people hear that, and not that nobody added them."""

from __future__ import annotations

import pytest

from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.kept_in_vault import settings_of_step
from pv_backup.operators.workbench import journal_sessions, source_server
from pv_backup.services.errors import ConfigurationError, FailClosedError
from pv_backup.services.settings import Settings
from tests.infrastructure.vault.conftest import Worker
from tests.infrastructure.vault.vault_page import RECEIVER, SERVICE, AppRoleHalves, VaultOfThePage
from tests.integration.worker import become_worker, run_task
from tests.support.people import on_call
from tests.support.servers import Bucket, TestStack

pytestmark = pytest.mark.case("TC-INF-02", "TC-ERR-02")

IDS = ConnectionIds()
IN_VAULT = ("AIRFLOW_CONN_PV_BACKUP_SOURCE", "AIRFLOW_CONN_PV_BACKUP_JOURNAL", "AIRFLOW_VAR_PV_BACKUP_SETTINGS")


@pytest.fixture(autouse=True)
def _environment(stack: TestStack, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a worker, less what the page keeps in Vault."""
    become_worker(monkeypatch, stack, journal_dsn="", bucket=bucket.name)
    for name in IN_VAULT:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(("fate", "cause"), [("seal", "Vault is sealed"), ("stop", "Vault is unreachable")])
def test_a_vault_that_gives_nothing_is_told_from_a_connection_that_nobody_added(
    stack: TestStack, worker: Worker, fate: str, cause: str
):
    worker()
    settings = Settings.load()
    getattr(stack.vault, fate)()

    with pytest.raises(FailClosedError, match=rf"{cause}.*; the Airflow connection pv_backup_source is nowhere else"):
        source_server(IDS, settings)
    with pytest.raises(FailClosedError, match=rf"{cause}.*; the Airflow connection pv_backup_journal is nowhere else"):
        journal_sessions(IDS)


def test_so_is_a_vault_that_does_not_let_the_worker_in(vault: VaultOfThePage, worker: Worker):
    right = vault.draw(SERVICE)
    worker(halves=AppRoleHalves(role_id=right.role_id, secret_id="ran-out"))

    with pytest.raises(FailClosedError, match=r"refused the login .*; the Airflow connection pv_backup_journal"):
        journal_sessions(IDS)


def test_settings_that_vault_keeps_are_likewise_told_from_missing_ones(
    stack: TestStack, worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    worker()
    monkeypatch.delenv("PV_BACKUP_BUCKET")
    assert settings_of_step(IDS).bucket == "from-vault"

    stack.vault.seal()
    with pytest.raises(FailClosedError, match=r"Vault is sealed.*; PV_BACKUP_BUCKET is missing"):
        settings_of_step(IDS)


def test_a_vault_that_is_well_and_shows_nothing_leaves_it_to_who_configured_it(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
):
    worker(RECEIVER)

    with pytest.raises(
        ConfigurationError, match=r"journal is not defined, or Vault does not show it\. .*docs/vault\.md"
    ):
        journal_sessions(IDS)
    monkeypatch.delenv("PV_BACKUP_BUCKET")
    with pytest.raises(ConfigurationError, match="PV_BACKUP_BUCKET is missing"):
        settings_of_step(IDS)


@pytest.mark.parametrize(
    ("dag_id", "task_id"),
    [
        ("pv_backup_wal_shipping", "ship_wal"),
        ("pv_backup_daily_dump", "open_the_day"),
        ("pv_backup_reconciliation", "settle_what_is_left"),
        ("pv_backup_retention", "follow_the_backups"),
    ],
)
def test_a_task_fails_closed_and_people_hear_of_vault(
    stack: TestStack, worker: Worker, monkeypatch: pytest.MonkeyPatch, dag_id: str, task_id: str
):
    worker()
    stack.vault.seal()

    with on_call() as people:
        for name, value in people.environment.items():
            monkeypatch.setenv(name, value)
        error = run_task(dag_id, task_id)

        assert isinstance(error, FailClosedError)
        assert people.codes == ["ERR-47-02"]


def test_the_watchdog_needs_no_vault(stack: TestStack, worker: Worker, monkeypatch: pytest.MonkeyPatch):
    worker()
    monkeypatch.setenv("PV_BACKUP_WATCHDOG_WAIT_S", "0")
    stack.vault.seal()

    assert getattr(run_task("pv_backup_watchdog", "wait_for_backup"), "code", "") == "WATCHDOG-ABSENT"
