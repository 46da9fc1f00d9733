"""A drill whose worker lacks what a task needs before it can begin: the record names that, and no killed process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pv_backup.services import local_memory
from pv_backup.services.errors import ConfigurationError, FailClosedError, JournalUnavailable
from tests.integration.drill_world import Drill, Scene, become_drill_worker, evidence_of, scene
from tests.support.clusters import ClusterTemplate
from tests.support.people import People
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-ERR-02", "TC-ERR-07")

SETTING, VAULT, JOURNAL = "PV_BACKUP_BUCKET", "AIRFLOW_CONN_PV_BACKUP_VAULT", "AIRFLOW_CONN_PV_BACKUP_JOURNAL"
LEG, RECORD = "restore_the_dump", "record_the_evidence"


@pytest.fixture(scope="module")
def made(stack: TestStack, cluster_template: ClusterTemplate) -> Iterator[Scene]:
    with scene(stack, cluster_template) as made:
        yield made


@pytest.fixture
def worker(made: Scene, people: People, open_path, monkeypatch) -> Scene:
    monkeypatch.setenv("PV_BACKUP_STAGING_DIRECTORY", str(open_path))
    become_drill_worker(monkeypatch, made)
    return made


@pytest.fixture
def begun(worker: Scene) -> Drill:
    """A drill of one leg whose target is settled."""
    run = Drill({"target": "latest", "leg": "logical"}, has_retries=True)
    run.run_task("choose_the_target", None)
    return run


def restore(run: Drill) -> Exception:
    run.run_task(LEG, ("order", "choose_the_target"))
    return run.errors.pop(LEG)


def on_a_new_machine(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    """As on Kubernetes, where each try is a pod with an empty /tmp."""
    monkeypatch.setattr(local_memory, "own_directory", lambda: directory)


def record(run: Drill, made: Scene) -> dict[str, Any]:
    """The incident, which the signed document must name likewise."""
    run.run_task(RECORD, None)
    assert RECORD not in run.errors, run.errors
    incident = made.incidents()[-1]
    assert str(incident["incident_id"]) == run.conclusion["incident_id"]
    (failure,) = evidence_of(made).failures
    assert (failure.code, failure.cause) == (incident["code"], incident["reason"])
    return incident


@pytest.mark.parametrize(("missing", "named"), [(SETTING, SETTING), (VAULT, "pv_backup_vault")])
def test_a_leg_whose_worker_lacks_a_setting_or_a_connection(
    worker: Scene, begun: Drill, people: People, missing: str, named: str
):
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(missing)
        assert isinstance(restore(begun), ConfigurationError)

    incident = record(begun, worker)

    assert incident["code"] == "CONFIGURATION"
    assert f"{named} is" in incident["reason"]
    # By the drill's end, not by its leg.
    begun.run_task("demand_the_proof", ("conclusion", RECORD))
    assert [code for code in people.codes if code != "DRILL-FAILED"] == ["ERR-47-07"]


def test_a_leg_that_begins_when_vault_is_sealed(worker: Scene, begun: Drill):
    """Vault keeps settings and journal: Airflow takes its silence for something that nobody added."""
    with pytest.MonkeyPatch.context() as environment:
        worker.stack.vault.seal()
        for name in (SETTING, JOURNAL):
            environment.delenv(name)
        assert isinstance(restore(begun), FailClosedError)
    worker.stack.vault.unseal()

    incident = record(begun, worker)

    assert incident["code"] == "ERR-47-02"
    assert "Vault is sealed" in incident["reason"]


def test_a_leg_needs_no_journal(worker: Scene, begun: Drill, monkeypatch: pytest.MonkeyPatch):
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(JOURNAL)
        begun.run_task(LEG, ("order", "choose_the_target"))

    begun.run_task(RECORD, None)

    assert begun.errors == {}
    assert begun.conclusion["verdict"] == "PASSED"


def test_a_record_waits_until_vault_is_unsealed_and_people_hear_of_it_at_once(
    worker: Scene, begun: Drill, people: People, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    begun.run_task(LEG, ("order", "choose_the_target"))
    before = worker.documents(), worker.incidents()
    with pytest.MonkeyPatch.context() as environment:
        worker.stack.vault.seal()
        environment.delenv(JOURNAL)
        for number in range(3):
            on_a_new_machine(monkeypatch, tmp_path / f"pod{number}")
            begun.run_task(RECORD, None)
            assert isinstance(begun.errors.pop(RECORD), FailClosedError)
    assert people.codes == ["ERR-47-02"], "told once, and not only by the last try"
    told = people.webhook.received[0]
    assert "Vault is sealed" in told["cause"]
    assert "again every 15 min until 20" in told["next_step"]
    assert (worker.documents(), worker.incidents()) == before
    worker.stack.vault.unseal()

    begun.run_task(RECORD, None)

    assert begun.errors == {}
    assert begun.conclusion["verdict"] == "PASSED"
    assert evidence_of(worker).drill_id == begun.conclusion["drill_id"]


def test_a_channel_that_was_down_is_told_by_a_later_try_and_the_other_not_again(
    begun: Drill, people: People, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    begun.run_task(LEG, ("order", "choose_the_target"))
    with pytest.MonkeyPatch.context() as environment:
        environment.delenv(JOURNAL)
        on_a_new_machine(monkeypatch, tmp_path / "pod0")
        with pytest.MonkeyPatch.context() as outage:
            outage.setenv("AIRFLOW_CONN_PV_BACKUP_WEBHOOK", "http://127.0.0.1:1/")
            begun.run_task(RECORD, None)
        assert (len(people.mail.subjects), people.webhook.codes) == (1, [])

        for number in (1, 2):
            on_a_new_machine(monkeypatch, tmp_path / f"pod{number}")
            begun.run_task(RECORD, None)

    assert people.codes == ["CONFIGURATION"]


def test_so_it_waits_for_its_journal_and_is_not_told_of_a_moment_without(
    worker: Scene, begun: Drill, people: People, monkeypatch: pytest.MonkeyPatch
):
    begun.run_task(LEG, ("order", "choose_the_target"))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(JOURNAL, "postgresql://nobody@127.0.0.1:1/none")
        begun.run_task(RECORD, None)
    assert isinstance(begun.errors.pop(RECORD), JournalUnavailable)
    assert people.codes == [], "a try that comes a second later"

    begun.run_task(RECORD, None)

    assert begun.conclusion["verdict"] == "PASSED"
