"""An incident under the whole Airflow, answered as the web UI answers: it closes by a plan and by nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from dev.airflow_env import UI_USER
from pv_backup.services.compliance import Compliance
from pv_backup.services.database import sessions_for
from pv_backup.services.evidence.document import Failure, Leg, Verdict
from tests.support.people import People, on_call
from tests.support.servers import TestStack
from tests.system.airflow_world import AirflowWorld, opened
from tests.system.whole_airflow import WholeAirflow, running, until

pytestmark = pytest.mark.case("TC-ERR-07")

COMPLIANCE, INCIDENT = "pv_backup_compliance", "pv_backup_incident"
ASK, CLOSE = "ask_for_the_action_plan", "close_the_incident"
OVER = {"success", "failed"}
PLAN = "Ann restores the segment from the second server by Friday, and drills again."
CAUSE = "000000010000000000000042 is not in the bucket: **no** `recovery` <b>past</b> it {{ run_id }}"
FAILURE = Failure(code="WAL-GAP", cause=CAUSE, remedy="look in pg_wal of the source", check="wal_complete")


@dataclass
class Story:
    """What happened, as the API, the database and the people on call tell it.

    :ivar incident: of a drill that failed.
    :ivar killed_drill: that began two days ago and left nothing.
    :ivar asked: the question, first as it was asked and then as it was asked anew.
    :ivar open_after: act → whether the incident was open; ``runs_after``: act → run_id → state of the runs that ask.
    :ivar tasks: run_id → task_id → state, at the end.
    :ivar told_when_asked: the alerts until the first question was there.
    """

    world: AirflowWorld
    people: People
    incident: str
    killed_drill: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    open_after: dict[str, bool] = field(default_factory=dict)
    runs_after: dict[str, dict[str, str]] = field(default_factory=dict)
    tasks: dict[str, dict[str, str]] = field(default_factory=dict)
    told_when_asked: list[dict[str, Any]] = field(default_factory=list)


class Desk:
    """The person before the UI."""

    def __init__(self, airflow: WholeAirflow, world: AirflowWorld) -> None:
        self._airflow = airflow
        self._log = world.folder / "standalone.log"
        self._answers: Counter[str] = Counter()

    def wait(self, holds: Callable[[], bool], meaning: str) -> None:
        until(holds, meaning=meaning, log=self._log)

    def pause(self, dag_id: str, *, paused: bool) -> None:
        self.wait(lambda: self._airflow.knows(dag_id), f"{dag_id} is known")
        self._airflow.call("PATCH", f"dags/{dag_id}", json={"is_paused": paused})

    def is_paused(self, dag_id: str) -> bool:
        self.wait(lambda: self._airflow.knows(dag_id), f"{dag_id} is known")
        return bool(self._airflow.call("GET", f"dags/{dag_id}")["is_paused"])

    def runs(self, dag_id: str) -> dict[str, str]:
        listed = self._airflow.call("GET", f"dags/{dag_id}/dagRuns")["dag_runs"]
        return {run["dag_run_id"]: run["state"] for run in listed}

    def tasks(self, run_id: str, dag_id: str = INCIDENT) -> dict[str, str]:
        listed = self._airflow.call("GET", f"dags/{dag_id}/dagRuns/{run_id}/taskInstances")["task_instances"]
        return {task["task_id"]: task["state"] for task in listed}

    def look(self, *, ends: str = "success") -> dict[str, str]:
        """Have the open incidents looked after; the tasks of that run, once it is over."""
        form = {"logical_date": None, "dag_run_id": f"look-{uuid4()}"}
        run_id = self._airflow.call("POST", f"dags/{COMPLIANCE}/dagRuns", json=form)["dag_run_id"]
        self.wait(lambda: self.runs(COMPLIANCE)[run_id] in OVER, "the look is over")
        assert self.runs(COMPLIANCE)[run_id] == ends
        return self.tasks(run_id, COMPLIANCE)

    def question(self, run_id: str) -> dict[str, Any]:
        """What the UI shows, once it waits for an answer, and the scheduler has noted that it does.

        An answer within that second makes the scheduler (3.3.2) take the task for dead; it would then be asked again.
        """
        self.wait(lambda: self.tasks(run_id).get(ASK) == "awaiting_input", f"{run_id} asks")
        noted = f"TaskInstance Finished: dag_id={INCIDENT}, task_id={ASK}, run_id={run_id},"
        self.wait(
            lambda: self._log.read_text(errors="replace").count(noted) > self._answers[run_id],
            f"it is noted that {run_id} asks",
        )
        asked: dict[str, Any] = self._airflow.call("GET", self._path(run_id))
        assert not asked["response_received"]
        return asked

    def answer(self, run_id: str, form: dict[str, str]) -> None:
        question = self.question(run_id)
        content = {"chosen_options": question["options"], "params_input": form}
        self._airflow.call("PATCH", self._path(run_id), json=content)
        self._answers[run_id] += 1

    def mark(self, run_id: str, state: str) -> None:
        """As the button does."""
        path = f"dags/{INCIDENT}/dagRuns/{run_id}/taskInstances/{ASK}"
        self._airflow.call("PATCH", path, json={"new_state": state})

    def wait_for_the_end(self, run_id: str) -> None:
        self.wait(lambda: self.runs(INCIDENT)[run_id] in OVER, f"{run_id} is over")

    def refused_answers(self, world: AirflowWorld, count: int) -> None:
        self.wait(lambda: len(world.audit("plan_refused")) == count, f"{count} answers are refused")

    def _path(self, run_id: str) -> str:
        return f"dags/{INCIDENT}/dagRuns/{run_id}/taskInstances/{ASK}/-1/hitlDetails"


@pytest.fixture(scope="module")
def story(stack: TestStack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with opened(stack, tmp_path_factory.mktemp("incident")) as world, on_call() as people:
        world.env |= people.environment
        sessions = sessions_for(world.journal.service_dsn)
        compliance = Compliance(sessions)
        incident = compliance.record(
            drill_id=str(uuid4()),
            verdict=Verdict.FAILED,
            document="{}",
            rto_s=None,
            rpo_s=None,
            failures=[FAILURE],
        ).incident_id
        assert incident is not None
        told = Story(world, people, incident, killed_drill(world, compliance))
        runs = [f"{incident}__{number}" for number in (1, 2)]
        with running(world) as airflow:
            tell(told, Desk(airflow, world), compliance, runs)
        yield told
        sessions.kw["bind"].dispose()


def killed_drill(world: AirflowWorld, compliance: Compliance) -> str:
    """One that began two days ago, for which the guard against dating records is put aside."""
    drill_id = str(uuid4())
    compliance.begin(drill_id=drill_id, run_id="pv_backup_restoration_drill/killed", target="latest", legs=list(Leg))
    world.sql("ALTER TABLE pv_backup.backup_audit_events DISABLE TRIGGER append_only")
    world.sql(
        "UPDATE pv_backup.backup_audit_events SET occurred_at = occurred_at - interval '2 days'"
        " WHERE event_type = 'drill_started'"
    )
    world.sql("ALTER TABLE pv_backup.backup_audit_events ENABLE ALWAYS TRIGGER append_only")
    return drill_id


def tell(story: Story, desk: Desk, compliance: Compliance, runs: list[str]) -> None:
    """Ask; be answered with nothing, with blanks; be marked as done; be asked anew each time; be told."""
    first, second = runs

    def note(act: str) -> None:
        story.open_after[act] = compliance.incident(story.incident).is_open
        story.runs_after[act] = {
            run_id: state for run_id, state in desk.runs(INCIDENT).items() if run_id.startswith(story.incident)
        }

    assert [dag_id for dag_id in (COMPLIANCE, INCIDENT) if desk.is_paused(dag_id)] == []
    desk.wait(lambda: set(desk.runs(COMPLIANCE).values()) == {"success"}, "the day's own look is over")
    story.asked.append(desk.question(first))
    story.told_when_asked = list(story.people.webhook.received)
    desk.look()
    note("a second look while it is asked")

    for number, form in enumerate(({}, {"action_plan": " \n\t \u200b"}), 1):
        desk.answer(first, form)
        desk.refused_answers(story.world, number)
        desk.question(first)
        note(f"answer {form}")

    desk.mark(first, "success")
    desk.wait_for_the_end(first)
    note("marked success")
    desk.look()
    story.asked.append(desk.question(second))
    note("a look after it was marked success")

    desk.answer(second, {"action_plan": PLAN})
    desk.wait_for_the_end(second)
    note("a plan")
    last = desk.look()
    story.tasks = {run_id: desk.tasks(run_id) for run_id in runs} | {"last look": last}
    note("a look at the end")

    (other,) = compliance.open_incidents()
    desk.question(f"{other.incident_id}__1")
    story.tasks["of the killed drill"] = desk.tasks(f"{other.incident_id}__1")
    desk.pause(INCIDENT, paused=True)
    desk.look(ends="failed")


def test_it_stays_open_until_there_is_a_plan(story: Story):
    closed = {act for act, is_open in story.open_after.items() if not is_open}

    assert closed == {"a plan", "a look at the end"}
    assert len(story.open_after) == 7


def test_it_closes_under_the_name_of_who_answered(story: Story):
    (row,) = story.world.sql("SELECT * FROM pv_backup.compliance_incidents WHERE closed_at IS NOT NULL")

    assert (row["action_plan"], row["closed_by"]) == (PLAN, UI_USER)
    (closing,) = story.world.audit("incident_closed")
    assert closing["details"] == {"incident_id": story.incident, "action_plan": PLAN, "closed_by": UI_USER}


def test_the_question_says_all_that_is_known_and_nothing_of_it_is_markup(story: Story):
    for question in story.asked:
        assert question["subject"] == f"Action plan for WAL-GAP: {CAUSE}"
        body = question["body"]
        assert f"\n    {CAUSE}\n" in body
        assert "\n    look in pg_wal of the source\n" in body
        for known in (story.incident, "wal_complete", "WAL-GAP"):
            assert f"`{known}`" in body
        assert question["defaults"] is None
        assert list(question["params"]) == ["action_plan"]


def test_who_looks_away_is_asked_anew_and_nobody_is_asked_twice(story: Story):
    first, second = (f"{story.incident}__{number}" for number in (1, 2))

    assert story.runs_after["a second look while it is asked"] == {first: "running"}
    assert story.runs_after["marked success"] == {first: "failed"}
    assert story.runs_after["a look after it was marked success"] == {first: "failed", second: "running"}
    assert story.runs_after["a look at the end"] == {first: "failed", second: "success"}
    assert story.tasks[first] == {ASK: "success", CLOSE: "failed"}
    assert story.tasks["last look"] == {"look_for_incidents": "success", "ask_about_each": "skipped"}


def test_answers_without_a_plan_are_on_record_with_their_names(story: Story):
    refused = [event["details"] for event in story.world.audit("plan_refused")]

    assert {(answer["incident_id"], answer["said_by"]) for answer in refused} == {(story.incident, UI_USER)}
    assert [answer["action_plan"] for answer in refused] == ["", " \n\t \u200b"]


def test_people_are_told_once_when_they_are_asked_with_the_way_to_the_question(story: Story):
    (told,) = [alert for alert in story.told_when_asked if alert["code"] == "WAL-GAP"]
    assert (told["level"], told["code"], told["dag_id"]) == ("warning", "WAL-GAP", INCIDENT)
    assert f"/dags/{INCIDENT}/runs/{story.incident}__1/tasks/{ASK}/required_actions" in told["run_url"]
    assert CAUSE in told["cause"]

    asked = [alert for alert in story.people.webhook.received if alert["code"] == "WAL-GAP"]
    assert len(asked) == 2
    assert len({alert["run_url"] for alert in asked}) == 2


def test_looking_away_is_told_too(story: Story):
    (looked_away,) = [alert for alert in story.people.webhook.received if alert["code"] == "REFUSED"]

    assert f"incident {story.incident} stays open" in looked_away["cause"]
    assert COMPLIANCE in looked_away["next_step"]
    assert looked_away["level"] == "critical"


def test_the_alerts_are_over_when_the_incident_is(story: Story):
    settled = {event["details"]["incident"] for event in story.world.audit("alert_settled")}

    runs = [f"{story.incident}__{number}" for number in (1, 2)]
    assert {f"{INCIDENT}/asked {story.incident} {run_id}" for run_id in runs} <= settled


@pytest.mark.case("TC-INV-09")
def test_a_killed_drill_is_found_told_and_asked_about(story: Story):
    (row,) = story.world.sql(
        "SELECT * FROM pv_backup.compliance_incidents WHERE drill_id::text = %s", story.killed_drill
    )
    assert (row["code"], row["closed_at"]) == ("DRILL-UNPROVEN", None)
    assert story.tasks["of the killed drill"][ASK] == "awaiting_input"
    told = [
        (alert["level"], alert["dag_id"])
        for alert in story.people.webhook.received
        if alert["code"] == "DRILL-UNPROVEN"
    ]
    assert sorted(told) == [("critical", COMPLIANCE), ("warning", INCIDENT)]


def test_a_paused_dag_that_would_leave_people_unasked_is_told(story: Story):
    (paused,) = [alert for alert in story.people.webhook.received if alert["code"] == "CONFIGURATION"]

    assert f"{INCIDENT} is paused, and 1 incidents wait" in paused["cause"]
