"""The people on call: a mailbox and an endpoint that alerts really reach."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.support.mailbox import Mailbox, mailbox
from tests.support.webhook import Endpoint, endpoint


@dataclass(frozen=True)
class People:
    """Who got what."""

    mail: Mailbox
    webhook: Endpoint

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow alert them."""
        return self.mail.environment | self.webhook.environment

    @property
    def codes(self) -> list[str]:
        """The code of each alert, which must have come by both ways, oldest first."""
        assert sorted(self._mailed) == sorted(self.webhook.codes)
        return self.webhook.codes

    def know(self, code: str) -> bool:
        """Whether such an alert has come by both ways."""
        return code in self.webhook.codes and code in self._mailed

    @property
    def _mailed(self) -> list[str]:
        return [subject.split()[2] for subject in self.mail.subjects]


@contextmanager
def on_call() -> Iterator[People]:
    """Let both listen until the end."""
    with mailbox() as mail, endpoint() as webhook:
        yield People(mail, webhook)
