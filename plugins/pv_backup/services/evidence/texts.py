"""How the evidence of a drill reads in a mail's subject and in a chat."""

from __future__ import annotations

from html import escape
from typing import Any

from pv_backup.services.alert_texts import one_line
from pv_backup.services.evidence.document import Evidence


def code(evidence: Evidence) -> str:
    """What filters of mail and chat go by."""
    return f"DRILL-{evidence.verdict}"


def mail_subject(evidence: Evidence) -> str:
    """The verdict, and of what."""
    return one_line(f"[pv-backup] EVIDENCE {code(evidence)} {evidence.started_at[:10]} target {evidence.target}")


def message(evidence: Evidence) -> str:
    """The drill as plain text of a few lines."""
    lines = [
        f"EVIDENCE {code(evidence)} {evidence.started_at[:10]}",
        f"Drill {evidence.drill_id} restored {evidence.target} from {evidence.bucket}",
        f"Restored in {span(evidence.rto_s)} (RTO), data age {span(evidence.rpo_s)} (RPO)",
        *(f"{failure.code} {failure.cause}" for failure in evidence.failures),
    ]
    return "\n".join(one_line(line) for line in lines)


def webhook_json(evidence: Evidence, document: str) -> dict[str, Any]:
    """`text` for a person, as alerts have it, and the document as a string, whose bytes no JSON library rewrites."""
    return {
        "text": escape(message(evidence), quote=False),
        "code": code(evidence),
        "drill_id": evidence.drill_id,
        "verdict": str(evidence.verdict),
        "evidence": document,
    }


def span(seconds: float | None) -> str:
    """Seconds as a person says them: `35 ms`, `4.2 s`, `12 s`, `3 min 20 s`, `1 h 5 min`, `2 d 3 h`."""
    if seconds is None:
        return "not measured"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    for size, name, smaller_size, smaller in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            rest = whole % size // smaller_size
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
