"""When the incidents of a day are over: with its last artefact, and not with the first that is well."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from dev.airflow_env import postgres_connection
from pv_backup.operators.alerting import alarm
from pv_backup.operators.configuration import ConnectionIds
from pv_backup.operators.day_incidents import settle_day
from pv_backup.services.alerts import Alert
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.errors import ExportFailed
from tests.integration.journal_world import DAY, ERROR, JournalWorld, opened

pytestmark = pytest.mark.case("TC-ERR-01")

IDS = ConnectionIds()
DAILY = "pv_backup_daily_dump"
CONTEXT: Any = {"ti": SimpleNamespace(dag_id=DAILY)}
ALERT = Alert.from_error(ExportFailed("pg_dumpall was killed"), dag_id=DAILY, day=DAY.isoformat())


@pytest.fixture
def journal(journal_db, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_JOURNAL", json.dumps(postgres_connection(journal_db.service_dsn)))
    with opened(journal_db) as world:
        yield world


def open_roles(journal: JournalWorld, run_id: str) -> str:
    opened = journal.machine.open_day(
        artefact_type=ArtefactType.GLOBALS, day=DAY, run_id=run_id, lease_s=60, max_replanification_cycles=3
    )
    return opened.backup_id


def well(artefact_type: ArtefactType) -> None:
    settle_day(CONTEXT, connections=IDS, artefact_type=artefact_type, day=DAY)


def test_a_dump_that_is_well_settles_nothing_while_the_roles_are_missing(journal: JournalWorld, phone):
    journal.machine.fail(open_roles(journal, "run 1"), **ERROR)
    alarm(IDS).tell(ALERT)
    journal.published()

    well(ArtefactType.PG_DUMP)
    alarm(IDS).tell(ALERT)
    assert phone.codes == ["ERR-47-01"]

    open_roles(journal, "run 2")
    well(ArtefactType.GLOBALS)
    alarm(IDS).tell(ALERT)
    assert phone.codes == ["ERR-47-01"] * 2


def test_a_base_backup_is_no_part_of_it(journal: JournalWorld, phone):
    journal.machine.fail(open_roles(journal, "run 1"), **ERROR)
    weekly = Alert.from_error(ExportFailed("killed"), dag_id="pv_backup_weekly_basebackup", day=DAY.isoformat())
    alarm(IDS).tell(weekly)

    well(ArtefactType.BASEBACKUP)
    alarm(IDS).tell(weekly)

    assert phone.codes == ["ERR-47-01"] * 2
