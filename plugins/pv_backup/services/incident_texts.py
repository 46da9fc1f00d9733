"""How an open incident asks a person for its action plan: in the web UI, and in the message that leads there."""

from __future__ import annotations

from pv_backup.services.alert_texts import one_line
from pv_backup.services.incidents import PLAN_MIN, Incident


def question_subject(incident: Incident) -> str:
    """The headline, from which a person knows which failure it is."""
    return one_line(f"Action plan for {incident.code}: {incident.cause}")


def question_body(incident: Incident) -> str:
    """All that is known of the incident, in Markdown; whatever an error quoted is kept from being read as markup."""
    facts = {
        "Error": incident.code,
        "Check": incident.check or "none: it did not come to one",
        "Open since": f"{incident.opened_at:%Y-%m-%d %H:%M %Z}",
        "Incident": incident.incident_id,
        "Drill": incident.drill_id or "none: there was no drill",
    }
    lines = "\n".join(f"- **{name}:** {_code(fact)}" for name, fact in facts.items())
    return (
        f"{lines}\n\n**What happened**\n\n{_quoted(incident.cause)}\n\n"
        f"**What to do next**\n\n{_quoted(incident.next_step or 'nothing was noted')}\n\n"
        + (
            "The drill's evidence is the row of `restoration_evidence` with that drill.\n\n"
            if incident.drill_id
            else ""
        )
        + f"**Say what will be done, by whom and until when**, in at least {PLAN_MIN} characters. It is kept under "
        "your name, for good, and closes the incident. An answer without a plan closes nothing: you are asked again."
    )


def call_for_plan(incident: Incident) -> str:
    """What the people on call are told when the question waits for them."""
    return f"compliance incident {incident.incident_id} waits for an action plan: {incident.code} {incident.cause}"


def _code(text: str) -> str:
    """One line in which nothing is markup."""
    return f"`{one_line(text).replace('`', chr(39))}`"


def _quoted(text: str) -> str:
    """An indented block, which no text can end."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
