"""TLS before a real server that speaks plain HTTP, as production's Vault speaks TLS and the stack's does not."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

import requests

from dev.bench.tls import Certificate
from tests.support.http_server import serving


@contextmanager
def tls_front(certificate: Certificate, address: str) -> Iterator[str]:
    """Pass on each request to that address until the end; yields the address of its own."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)

    class Handler(BaseHTTPRequestHandler):
        def _pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            answer = requests.request(self.command, address + self.path, headers=dict(self.headers), data=body)
            self.send_response(answer.status_code)
            self.end_headers()
            self.wfile.write(answer.content)

        do_GET = do_POST = _pass_on  # noqa: N815 - the library's names

    with serving(Handler, tls=context) as port:
        yield f"https://127.0.0.1:{port}"
