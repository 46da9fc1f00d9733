"""A real HTTP endpoint that alerts are posted to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import serving

#: The path is what makes a Slack-compatible URL a secret.
SECRET_PATH = "services/T0000/B0000/aXq7secretPathOfTheWebhook"


@dataclass
class Endpoint:
    """What was posted, oldest first.

    :ivar status: what it answers; its text quotes the path, as many servers' error pages do.
    """

    port: int = 0
    received: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200

    @property
    def connection(self) -> str:
        """The Airflow connection that leads here, as JSON for `AIRFLOW_CONN_…`."""
        fields = {"conn_type": "http", "schema": "http", "host": "127.0.0.1", "port": self.port}
        return json.dumps(fields | {"password": SECRET_PATH})

    @property
    def environment(self) -> dict[str, str]:
        """What makes an Airflow post its alerts here."""
        return {"AIRFLOW_CONN_PV_BACKUP_WEBHOOK": self.connection}

    @property
    def codes(self) -> list[str]:
        return [message["code"] for message in self.received]


@contextmanager
def endpoint() -> Iterator[Endpoint]:
    """Listen on a free port until the end."""
    here = Endpoint()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            right = self.path == f"/{SECRET_PATH}" and self.headers["Content-Type"] == "application/json"
            status = here.status if right else 404
            if status == 200:
                here.received.append(content)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(f"{status} POST {self.path}".encode())

    with serving(Handler) as here.port:
        yield here
