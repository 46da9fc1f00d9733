"""Alerts by webhook: JSON to an HTTP endpoint, Slack's kind included."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pv_backup.notifiers.channel import ChannelNotifier

if TYPE_CHECKING:
    from pv_backup.services.alerts import Alert


class WebhookNotifier(ChannelNotifier):
    """Posts an alert where a chat, a pager or a script listens.

    :param http_conn_id: a connection of type `http`: schema, host and port; the password is the path after the host,
        which is the secret of Slack-compatible endpoints; the extra may hold `timeout`, in seconds.
    """

    name: ClassVar[str] = "webhook"

    def __init__(self, *, http_conn_id: str = "pv_backup_webhook") -> None:
        super().__init__()
        self.http_conn_id = http_conn_id

    def send(self, alert: Alert) -> None:
        """Post it.

        :raises ChannelNotConfigured: if the connection is not defined.
        :raises AlertUndelivered: if the endpoint does not answer with a status of 2xx.
        """
        from pv_backup.hooks.webhook import WebhookHook
        from pv_backup.services.alert_texts import webhook_json

        WebhookHook(http_conn_id=self.http_conn_id).post(webhook_json(alert))
