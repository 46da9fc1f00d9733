"""The mail server behind an Airflow SMTP connection, with little patience."""

from __future__ import annotations

import smtplib
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from airflow.providers.smtp.hooks.smtp import SmtpHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException

from pv_backup.services.errors import AlertUndelivered, ChannelNotConfigured

TIMEOUT_S: Final = 8


class MailServerHook(SmtpHook):
    """Delivers one mail to the recipients that the connection names.

    A failed task waits for this, so it tries once unless the connection says otherwise; the next occurrence of
    the incident is the retry.

    :param smtp_conn_id: the connection; its extra has `to`, `from_email` and the provider's options.
    """

    default_conn_name = "pv_backup_smtp"

    def __init__(self, smtp_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(smtp_conn_id=smtp_conn_id, **kwargs)

    @property
    def smtp_retry_limit(self) -> int:
        """Tries after the first one."""
        return int(self.conn.extra_dejson.get("retry_limit", 0))

    @property
    def timeout(self) -> int:
        """Seconds for each of connecting, greeting, handing over."""
        return int(self.conn.extra_dejson.get("timeout", TIMEOUT_S))

    def deliver(self, *, subject: str, html: str, files: Mapping[str, str] | None = None) -> None:
        """Hand the mail to the server.

        :param files: texts to attach, by file name.
        :raises ChannelNotConfigured: if the connection is not defined, or names nobody.
        :raises AlertUndelivered: if the server does not take it.
        """
        try:
            to = self.get_connection(self.smtp_conn_id).extra_dejson.get("to")
        except AirflowNotFoundException:
            raise ChannelNotConfigured("mail", self.smtp_conn_id) from None
        if not to:
            raise ChannelNotConfigured("mail", self.smtp_conn_id, field="extra's to")
        try:
            # The provider attaches what it finds on the disk.
            with TemporaryDirectory(prefix="pv-backup-mail-") as directory, self as server:
                paths = [Path(directory, name) for name in files or {}]
                for path, text in zip(paths, (files or {}).values(), strict=True):
                    path.write_bytes(text.encode())
                server.send_email_smtp(to=to, subject=subject, html_content=html, files=[str(path) for path in paths])
        except (OSError, smtplib.SMTPException, AirflowException) as error:
            # Of an authentication that fails, the server's words may quote what was sent.
            why = "" if isinstance(error, smtplib.SMTPAuthenticationError) else f": {error}"
            raise AlertUndelivered(
                f"the mail server of connection {self.smtp_conn_id} did not take it ({type(error).__name__}{why})",
                remedy="check the server and the connection's fields: TLS, port, login, from_email",
            ) from None
