"""The rules ask for nothing that no task sends; that all of docs/metrics.md is sent, an integration test proves."""

from __future__ import annotations

import pytest

from tests.support.documented_metrics import DOCS, asked_for, documented, in_prometheus, rules

pytestmark = pytest.mark.case("TC-NOM-01", "TC-NOM-02", "TC-NOM-03")


def test_the_documented_figures_are_those_that_the_issue_wants():
    backups = {
        f"pv_backup.{flow}.{figure}"
        for flow in ("pg_dump", "globals", "basebackup", "wal")
        for figure in ("last_success", "age_s", "size_bytes", "duration_s", "rate")
    }

    wal = {f"pv_backup.wal.{figure}" for figure in ("backlog", "oldest_s", "shipped")}
    drills = {f"pv_backup.drill.{figure}" for figure in ("last_success", "rto_s", "rpo_s", "open_incidents")}

    assert documented() == backups | wal | drills


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_asks_for_figures_that_are_sent_and_fires_when_they_never_were(rule):
    asked = asked_for(rule["expr"])

    assert asked
    assert asked <= {in_prometheus(name) for name in documented()}
    assert "absent(" in rule["expr"]
    assert "age_s" not in rule["expr"]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["summary"]
    assert rule["annotations"]["description"]


def test_the_check_notices_a_name_that_nobody_sends():
    (name,) = asked_for('time() - max(pv_backup_last_succes{flow="pg_dump"}) > 0')

    assert name not in {in_prometheus(sent) for sent in documented()}
    with pytest.raises(AssertionError):
        asked_for("max(pv_backup_last_success) > 0")


def test_the_five_rules_are_explained():
    assert len(rules()) == 5
    assert [rule["alert"] for rule in rules() if f"`{rule['alert']}`" not in (DOCS / "metrics.md").read_text()] == []


def test_an_incident_that_nobody_answers_for_a_week_is_told_without_airflow():
    (rule,) = [rule for rule in rules() if rule["alert"] == "PvBackupIncidentOpen"]

    assert rule["for"] == "7d"
    assert asked_for(rule["expr"]) == {("pv_backup_open_incidents", "drill")}
    assert 'max(pv_backup_open_incidents{flow="drill"}) > 0' in rule["expr"]
