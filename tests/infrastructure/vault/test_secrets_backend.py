"""Airflow's VaultBackend with the service's AppRole: what it serves, and what it hides when Vault says no."""

from __future__ import annotations

import json
import socket
import time
from pathlib import Path

import pytest
from airflow.sdk import Connection, Variable
from airflow.sdk.exceptions import AirflowNotFoundException

from tests.infrastructure.vault.conftest import Worker
from tests.infrastructure.vault.vault_page import RECEIVER, SERVICE, SOURCE, VaultOfThePage
from tests.support.servers import TestStack
from tests.system.airflow_world import opened

pytestmark = pytest.mark.case("TC-INF-02")

ALARM = {"conn_type": "smtp", "host": "mail.example"}


@pytest.fixture(autouse=True)
def _alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_SMTP", json.dumps(ALARM))


def alarm_is_there() -> bool:
    return Connection.get("pv_backup_smtp").host == ALARM["host"]


def test_it_serves_source_journal_and_settings(worker: Worker):
    worker()

    source = Connection.get("pv_backup_source")
    assert (source.host, source.login, source.password) == (SOURCE["host"], SOURCE["login"], SOURCE["password"])
    assert Connection.get("pv_backup_journal").host == "journal.example"
    assert json.loads(Variable.get("pv_backup_settings")) == {"bucket": "from-vault"}
    assert alarm_is_there()


def nothing_of_vault_is_there() -> None:
    with pytest.raises(AirflowNotFoundException):
        Connection.get("pv_backup_source")
    assert Variable.get("pv_backup_settings", default=None) is None


@pytest.mark.case("TC-ERR-02")
def test_a_policy_that_forbids_it_hides_nothing_of_the_environment(worker: Worker):
    worker(RECEIVER)

    nothing_of_vault_is_there()
    assert alarm_is_there()


@pytest.mark.case("TC-ERR-02")
def test_a_sealed_vault_hides_nothing_of_the_environment(stack: TestStack, worker: Worker):
    worker()
    stack.vault.seal()

    nothing_of_vault_is_there()
    assert alarm_is_there()


@pytest.mark.case("TC-ERR-02")
@pytest.mark.parametrize("silence", ["accepts and says nothing", "takes no more callers"])
def test_a_silent_vault_lets_an_alert_find_its_channel_in_time(worker: Worker, silence: str):
    """Mail and webhook together must be found within a few seconds: an alert has 15 in all."""
    with socket.create_server(("127.0.0.1", 0), backlog=0 if silence.startswith("takes") else 5) as listener:
        callers = [socket.create_connection(listener.getsockname())] if silence.startswith("takes") else []
        worker(url=f"http://127.0.0.1:{listener.getsockname()[1]}")
        begun = time.monotonic()
        assert alarm_is_there()
        took = time.monotonic() - begun
        for caller in callers:
            caller.close()
    assert 0.9 < took < 12


@pytest.mark.case("TC-NOM-01")
def test_a_daily_dump_runs_on_what_vault_serves(stack: TestStack, vault: VaultOfThePage, tmp_path: Path):
    """By the real DAG, logged in by AppRole; source, journal and settings are nowhere but in Vault."""
    with opened(stack, tmp_path) as world:
        world.fill_source()
        settings = {
            name: world.env.pop(f"PV_BACKUP_{name.upper()}") for name in ("bucket", "kms_key_id", "transit_key")
        }
        held = {
            "airflow/connections/pv_backup_source": json.loads(world.env.pop("AIRFLOW_CONN_PV_BACKUP_SOURCE")),
            "airflow/connections/pv_backup_journal": json.loads(world.env.pop("AIRFLOW_CONN_PV_BACKUP_JOURNAL")),
            "airflow/variables/pv_backup_settings": {"value": json.dumps(settings)},
        }
        halves = vault.draw(SERVICE)
        world.env |= vault.of_a_worker(halves)
        with vault.holding(held):
            ended = world.run()

        assert ended.exit_code == 0, ended.log
        assert world.row()["status"] == "SUCCESS"
        assert [outcome for _, outcome in world.outcomes("globals")] == ["SUCCESS"]
        assert halves.secret_id not in ended.log
        assert held["airflow/connections/pv_backup_source"]["password"] not in ended.log
