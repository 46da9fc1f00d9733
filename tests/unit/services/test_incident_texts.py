"""How an incident asks for its plan: all that is known is there, and nothing that an error quoted is markup."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from pv_backup.services.incident_texts import call_for_plan, question_body, question_subject
from pv_backup.services.incidents import PLAN_MIN, Incident

pytestmark = pytest.mark.case("TC-ERR-07")

UGLY = "first `line` ```\n</code> **bold** [a](javascript:x)\n\n# head | cell"


def incident(**changed: object) -> Incident:
    known = {
        "incident_id": "5f1b2c3d-0000-4000-8000-000000000001",
        "drill_id": "5f1b2c3d-0000-4000-8000-000000000002",
        "code": "CONTRACT",
        "check": "contract/orders (shop)",
        "cause": "orders has 3 rows without a customer",
        "next_step": "run the check on the source",
        "opened_at": datetime(2026, 11, 23, 4, 10, tzinfo=UTC),
    }
    return Incident(**known | changed)


def test_it_says_all_that_a_person_needs():
    body = question_body(incident())

    for fact in (
        "`CONTRACT`",
        "`contract/orders (shop)`",
        "`2026-11-23 04:10 UTC`",
        "`5f1b2c3d-0000-4000-8000-000000000001`",
        "`5f1b2c3d-0000-4000-8000-000000000002`",
        "\n    orders has 3 rows without a customer\n",
        "\n    run the check on the source\n",
        f"at least {PLAN_MIN} characters",
        "restoration_evidence",
    ):
        assert fact in body


def test_an_incident_without_a_drill_promises_no_evidence():
    body = question_body(incident(drill_id=None, check=None, next_step=""))

    assert "restoration_evidence" not in body
    assert "there was no drill" in body
    assert "nothing was noted" in body


def test_whatever_an_error_quotes_stays_inside_its_block():
    body = question_body(incident(cause=UGLY, next_step=UGLY, check=UGLY))

    quoted = [line for line in body.splitlines() if any(part in line for part in ("</code>", "# head", "```"))]
    assert len(quoted) == 7
    for line in quoted:
        in_a_block = line.startswith("    ")
        as_code = line.startswith("- **Check:** `") and line.count("`") == 2 and line.endswith("`")
        assert in_a_block or as_code, line


def test_the_headline_is_one_line():
    subject = question_subject(incident(cause=UGLY + "x" * 1000))

    assert "\n" not in subject
    assert len(subject) <= 300
    assert subject.startswith("Action plan for CONTRACT: first")


def test_the_message_names_the_incident_and_its_cause():
    said = call_for_plan(incident())

    assert "5f1b2c3d-0000-4000-8000-000000000001" in said
    assert "CONTRACT orders has 3 rows without a customer" in said
