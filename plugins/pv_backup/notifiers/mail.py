"""Alerts by mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pv_backup.notifiers.channel import ChannelNotifier

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert


class MailNotifier(ChannelNotifier):
    """Sends a mail whose subject says enough to decide whether to get up.

    :param smtp_conn_id: a connection of type `smtp`; its extra has `to` (addresses, comma-separated), `from_email`,
        and the provider's own options.
    """

    name: ClassVar[str] = "mail"

    def __init__(self, *, smtp_conn_id: str = "pv_backup_smtp") -> None:
        super().__init__()
        self.smtp_conn_id = smtp_conn_id

    def send(self, alert: Alert) -> None:
        """Hand it to the mail server.

        :raises ChannelNotConfigured: if the connection is not defined.
        :raises AlertUndelivered: if the server does not take it.
        """
        from pv_backup.hooks.mail_server import MailServerHook
        from pv_backup.services.alert_texts import mail_html, mail_subject

        MailServerHook(smtp_conn_id=self.smtp_conn_id).deliver(subject=mail_subject(alert), html=mail_html(alert))
