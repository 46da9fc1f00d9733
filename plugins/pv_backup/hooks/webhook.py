"""The HTTP endpoint behind an Airflow connection, whose path is a secret."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from airflow.providers.http.hooks.http import HttpHook
from airflow.sdk.exceptions import AirflowException, AirflowNotFoundException
from requests import RequestException

from pv_backup.services.errors import AlertUndelivered, ChannelNotConfigured

TIMEOUT_S: Final = 8.0


class WebhookHook(HttpHook):
    """Posts JSON to the path that the connection keeps as its password, and never quotes it.

    :param http_conn_id: the connection.
    """

    default_conn_name = "pv_backup_webhook"

    def __init__(self, http_conn_id: str = default_conn_name, **kwargs: Any) -> None:
        super().__init__(method="POST", http_conn_id=http_conn_id, **kwargs)

    def post(self, content: Mapping[str, Any]) -> None:
        """Post it once; who knows whether an endpoint that answered late has taken it.

        :raises ChannelNotConfigured: if the connection is not defined.
        :raises AlertUndelivered: if the endpoint does not answer with a status of 2xx.
        """
        try:
            connection = self.get_connection(self.http_conn_id)
        except AirflowNotFoundException:
            raise ChannelNotConfigured("webhook", self.http_conn_id) from None
        options = {
            "timeout": float(connection.extra_dejson.get("timeout", TIMEOUT_S)),
            "allow_redirects": False,
            # The provider's own check would log the answer, which may quote the path.
            "check_response": False,
        }
        path = "/" + (connection.password or "").lstrip("/")
        try:
            answer = self.run(endpoint=path, json=dict(content), extra_options=options)
        except (RequestException, AirflowException, ValueError, OSError) as error:
            # The text of requests' errors quotes the URL.
            raise self._undelivered(connection.host, type(error).__name__) from None
        if not 200 <= answer.status_code < 300:
            raise self._undelivered(connection.host, f"HTTP status {answer.status_code}")

    def _undelivered(self, host: str | None, why: str) -> AlertUndelivered:
        return AlertUndelivered(
            f"the webhook at {host}, connection {self.http_conn_id}, did not take it ({why})",
            remedy="check the endpoint, and the connection's schema, host, port and password (the path)",
        )
