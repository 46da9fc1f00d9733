"""A real mail server, for whoever must see what was really sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from aiosmtpd.controller import Controller

from dev.ports import free_ports

TO = ("on-call@example.com", "head-of-it@example.com")


@dataclass
class Mailbox:
    """What came in, oldest first.

    :ivar refusing: the server's answer to every mail, such as `451 come back later`; empty: it takes them.
    """

    port: int
    messages: list[EmailMessage] = field(default_factory=list)
    refusing: str = ""

    @property
    def connection(self) -> str:
        """The Airflow connection that leads here, as JSON for `AIRFLOW_CONN_…`."""
        extra = {"to": ", ".join(TO), "from_email": "pv-backup@example.com", "disable_ssl": True, "disable_tls": True}
        return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": self.port, "extra": extra})

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow send its alerts here."""
        return {"AIRFLOW_CONN_PV_BACKUP_SMTP": self.connection}

    @property
    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for message in self.messages]

    def text_of(self, number: int = 0) -> str:
        """The HTML of a mail."""
        (part,) = [part for part in self.messages[number].walk() if part.get_content_type() == "text/html"]
        return str(part.get_content())

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        if self.refusing:
            return self.refusing
        message = message_from_bytes(envelope.content, policy=policy.default)
        assert isinstance(message, EmailMessage)
        assert tuple(envelope.rcpt_tos) == TO
        self.messages.append(message)
        return "250 taken"


@contextmanager
def mailbox() -> Iterator[Mailbox]:
    """Open one on a free port; it is closed at the end."""
    box = Mailbox(free_ports(("mail",))["mail"])
    controller = Controller(box, hostname="127.0.0.1", port=box.port, ready_timeout=60)
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
