"""Alerts and evidence by mail."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pv_backup.notifiers.channel import ChannelNotifier

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert
    from pv_backup.services.evidence.document import Evidence


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

    def send_evidence(self, evidence: Evidence, *, document: str, page: str) -> None:
        """Hand over the page as the mail's body, and page and document as files.

        :raises ChannelNotConfigured: if the connection is not defined.
        :raises AlertUndelivered: if the server does not take it.
        """
        from pv_backup.hooks.mail_server import MailServerHook
        from pv_backup.services.evidence.publishing import evidence_name
        from pv_backup.services.evidence.texts import mail_subject

        name = evidence_name(evidence)
        MailServerHook(smtp_conn_id=self.smtp_conn_id).deliver(
            subject=mail_subject(evidence), html=page, files={f"{name}.json": document, f"{name}.html": page}
        )
