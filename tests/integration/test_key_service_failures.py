"""Every way in which Vault may not answer: ERR-47-02 in seconds, the cause by name, and no secret in it."""

from __future__ import annotations

import base64
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from pv_backup.hooks.vault_transit import READ_TIMEOUT_S
from pv_backup.services.errors import ConfigurationError, FailClosedError
from pv_backup.services.key_wrapping import KeyWrapper, new_dek
from tests.integration.vault_world import (
    KEY,
    Connect,
    Engine,
    address_nobody_listens_at,
    everything_about,
    service_token,
)
from tests.support.servers import TestStack


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that accepts and never answers: what a black-holed Vault looks like."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead_address() -> str:
    return address_nobody_listens_at()


@pytest.mark.case("TC-ERR-02")
def test_a_sealed_vault_fails_closed_at_once(stack: TestStack, connect: Connect) -> None:
    keys = connect(stack.vault.address, token=stack.backup_token).key_wrapper(KEY)
    wrapped = keys.wrap(new_dek()).wrapped_dek
    stack.vault.seal()
    try:
        started = time.monotonic()
        with pytest.raises(FailClosedError, match=r"ERR-47-02.*Vault is sealed.*unseal it"):
            keys.wrap(new_dek())
        with pytest.raises(FailClosedError, match="Vault is sealed"):
            keys.unwrap(wrapped)
        assert time.monotonic() - started < 30
    finally:
        stack.vault.unseal()
    assert len(keys.unwrap(wrapped)) == 32


@pytest.mark.case("TC-ERR-02")
def test_a_closed_port_fails_closed_at_once(connect: Connect, dead_address: str) -> None:
    started = time.monotonic()
    with pytest.raises(FailClosedError, match=r"unreachable .ConnectionError.*transit/encrypt/pv-backup"):
        connect(dead_address).key_wrapper(KEY).wrap(new_dek())
    assert time.monotonic() - started < 30


@pytest.mark.case("TC-ERR-02")
def test_a_black_hole_fails_closed_in_seconds(connect: Connect, silent_address: str) -> None:
    keys = connect(silent_address).key_wrapper(KEY)
    started = time.monotonic()
    with pytest.raises(FailClosedError, match=r"unreachable .ReadTimeout"):
        keys.wrap(new_dek())
    assert time.monotonic() - started < 2 * READ_TIMEOUT_S - 1  # one try


@pytest.mark.case("TC-ERR-02")
def test_a_login_that_fails_fails_closed(connect: Connect, dead_address: str) -> None:
    keys = connect(dead_address, auth_type="userpass").key_wrapper(KEY)
    with pytest.raises(FailClosedError, match=r"unreachable.*login of connection pv_backup_vault"):
        keys.wrap(new_dek())


@pytest.mark.case("TC-ERR-02")
@pytest.mark.parametrize(
    ("status", "content_type", "body", "match"),
    [
        (200, "text/html", b"<html>Please log in</html>", "has no ciphertext"),
        (200, "application/json", b'{"data": {"ciphertext": "no key"}}', "is no wrapped key"),
        (503, "text/html", b"<html>No backend</html>", "not in service"),
        (502, "text/html", b"<html>Bad gateway</html>", "failed on .*BadGateway"),
    ],
)
def test_a_proxy_in_vaults_place_fails_closed(
    connect: Connect, status: int, content_type: str, body: bytes, match: str
) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing on stderr."""

    with HTTPServer(("127.0.0.1", 0), Proxy) as server:
        serving = threading.Thread(target=server.serve_forever, args=(0.05,))
        serving.start()
        try:
            with pytest.raises(FailClosedError, match=match):
                connect(f"127.0.0.1:{server.server_port}").key_wrapper(KEY).wrap(new_dek())
        finally:
            server.shutdown()
            serving.join()


@pytest.mark.case("TC-ERR-02", "TC-INV-03")
def test_what_the_policy_forbids_is_named(stack: TestStack, connect: Connect) -> None:
    other_key = connect(stack.vault.address, token=stack.backup_token).key_wrapper("someone-elses-key")
    with pytest.raises(FailClosedError, match=r"forbids transit/encrypt/someone-elses-key.*policy"):
        other_key.wrap(new_dek())
    revoked = connect(stack.vault.address, token="hvs.revoked").key_wrapper(KEY)
    with pytest.raises(FailClosedError, match="the token has run out or was revoked"):
        revoked.wrap(new_dek())


@pytest.mark.case("TC-ERR-02")
def test_a_missing_key_engine_or_wrong_key_type_is_named(stack: TestStack, engine: Engine, connect: Connect) -> None:
    with pytest.raises(FailClosedError, match=r"has no key for .*decrypt/nobodys"):
        engine.wrapper("nobodys").unwrap("vault:v1:QUJD")
    token = service_token(engine.root, mount="nowhere")
    hook = connect(stack.vault.address, token=token, transit_mount_point="nowhere")
    with pytest.raises(FailClosedError, match=r"knows no nowhere/encrypt/pv-backup.*transit_mount_point"):
        hook.key_wrapper(KEY).wrap(new_dek())
    engine.transit.create_key("signing", key_type="ed25519", mount_point=engine.mount)
    with pytest.raises(FailClosedError, match="not supported for key type"):
        engine.wrapper("signing").wrap(new_dek())


@pytest.mark.case("TC-ERR-02")
def test_a_connection_that_describes_no_vault_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, connect: Connect
) -> None:
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="pv_backup_vault does not describe a Vault"):
        connect("127.0.0.1:1", token="")


@pytest.mark.case("TC-INV-02", "TC-ERR-02")
@pytest.mark.parametrize("situation", ["sealed", "dead", "forbidden", "wrong key type"])
def test_no_error_or_log_line_holds_a_secret(
    situation: str,
    stack: TestStack,
    engine: Engine,
    connect: Connect,
    dead_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = "hvs.canary" + os.urandom(8).hex()
    keys: KeyWrapper
    if situation == "dead":
        keys = connect(dead_address, token=token).key_wrapper(KEY)
    elif situation == "wrong key type":
        engine.transit.create_key("signing", key_type="ed25519", mount_point=engine.mount)
        token = engine.token(key="signing")
        hook = connect(stack.vault.address, token=token, transit_mount_point=engine.mount)
        keys = hook.key_wrapper("signing")
    else:
        keys = connect(stack.vault.address, token=token).key_wrapper(KEY)
    dek = new_dek()
    secrets_in_play = [base64.b64encode(dek).decode(), dek.hex(), repr(bytes(dek)), token]
    caplog.set_level(logging.DEBUG)
    if situation == "sealed":
        stack.vault.seal()
    try:
        with pytest.raises(FailClosedError) as failed:
            keys.wrap(dek)
    finally:
        if situation == "sealed":
            stack.vault.unseal()
    seen = everything_about(failed.value) + caplog.text
    assert KEY in seen or "signing" in seen
    for secret in secrets_in_play:
        assert secret not in seen
    assert failed.value.__context__ is None, "an error of requests would bring the DEK along in its request"
