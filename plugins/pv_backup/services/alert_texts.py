"""How an alert reads in a mail and in a chat: short, and with all that a person needs at 04:10."""

from __future__ import annotations

from dataclasses import asdict
from html import escape
from typing import Any

from pv_backup.services.alerts import Alert


def mail_subject(alert: Alert) -> str:
    """One line from which a person decides whether to get up."""
    return one_line(f"[pv-backup] {alert.level.upper()} {alert.code} {alert.dag_id} {alert.day}")


def mail_html(alert: Alert) -> str:
    """The facts below each other, wide enough for a phone; whatever an error quoted is escaped."""
    facts = {
        "What": alert.cause,
        "Next": alert.next_step,
        "DAG": alert.dag_id,
        "Day": alert.day,
        "Backup": alert.backup_id or "",
        "Incident": alert.incident,
    }
    rows = "".join(f"<p><b>{name}</b><br>{escape(fact)}</p>" for name, fact in facts.items() if fact)
    link = f'<p><a href="{escape(alert.run_url)}">{escape(alert.run_url)}</a></p>' if alert.run_url else ""
    return f"<html><body><h3>{escape(alert.level.upper())} {escape(alert.code)}</h3>{rows}{link}</body></html>"


def message(alert: Alert) -> str:
    """The whole alert as plain text of a few lines."""
    head = one_line(f"{alert.level.upper()} {alert.code} {alert.dag_id} {alert.day}")
    return "\n".join(
        line
        for line in (head, alert.cause, f"Next: {alert.next_step}" if alert.next_step else "", alert.run_url)
        if line
    )


def webhook_json(alert: Alert) -> dict[str, Any]:
    """All fields for a program, and `text` for a person: Slack-compatible endpoints show that and ignore the rest."""
    # Slack reads &, < and > as markup (https://docs.slack.dev/messaging/formatting-message-text/).
    text = message(alert).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return {"text": text, **asdict(alert)}


def one_line(text: str) -> str:
    """A header takes no line break, and nobody reads past a few hundred characters of one."""
    return " ".join(text.split())[:300]
