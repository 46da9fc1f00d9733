"""A channel for tests of what is told when, where nobody need listen."""

from __future__ import annotations

from dataclasses import dataclass, field

from pv_backup.services.alerts import Alert


@dataclass
class Recorder:
    """Keeps the incidents that it was given, unless it is down."""

    name: str = "mail"
    sent: list[str] = field(default_factory=list)
    down: bool = False

    def send(self, alert: Alert) -> None:
        if self.down:
            raise ConnectionError("no mail server")
        self.sent.append(alert.incident)
