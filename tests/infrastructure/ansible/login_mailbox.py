"""A real mail server that takes mail from whoever logs in, and hears no login without TLS."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult, LoginPassword

from dev.bench.tls import Certificate
from dev.ports import free_ports
from tests.support.mailbox import Mailbox

USER, PASSWORD = "watchdog", 'a "mail\\login of $ours'


@dataclass
class LoginMailbox(Mailbox):
    """What came in after a login.

    :ivar authority: the file of the certificate that it shows.
    :ivar logins: the passwords that were tried.
    :ivar greeting: the name by which the last who tried introduced himself.
    """

    authority: Path = Path()
    logins: list[str] = field(default_factory=list)
    greeting: str = ""

    def authenticate(self, _server: Any, session: Any, _envelope: Any, _mechanism: str, login: Any) -> AuthResult:
        assert isinstance(login, LoginPassword)
        self.greeting = session.host_name
        self.logins.append(login.password.decode())
        return AuthResult(success=(login.login, login.password) == (USER.encode(), PASSWORD.encode()))


@contextmanager
def login_mailbox(home: Path) -> Iterator[LoginMailbox]:
    """Open one on a free port; it is closed at the end."""
    certificate = Certificate.drawn(home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    box = LoginMailbox(free_ports(("mail",))["mail"], authority=certificate.certificate)
    controller = Controller(
        box,
        hostname="127.0.0.1",
        port=box.port,
        tls_context=context,
        authenticator=box.authenticate,
        auth_required=True,
        ready_timeout=60,
    )
    controller.start()
    try:
        yield box
    finally:
        controller.stop()
