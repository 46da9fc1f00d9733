"""Key wrapping against a real OpenBao: round trips, rotation, and every way in which Vault may not answer."""

from __future__ import annotations

import base64
import json
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from uuid import uuid4

import hvac
import pytest

from pv_backup.hooks.vault_transit import VaultTransitHook
from pv_backup.services.errors import ConfigurationError, FailClosedError, IntegrityError
from pv_backup.services.key_wrapping import (
    KeyWrapper,
    TransitKeyWrapper,
    WrappedKeyRefused,
    new_dek,
    wiped,
)

KEY = "pv-backup"


class Engine:
    """A Transit engine of one test's own, so that rotation and retirement disturb nobody."""

    def __init__(self, root: hvac.Client) -> None:
        self.root = root
        self.mount = f"transit-{uuid4()}"
        root.sys.enable_secrets_engine("transit", path=self.mount)
        self.transit = root.secrets.transit
        self.transit.create_key(KEY, mount_point=self.mount)

    def rotate(self) -> None:
        self.transit.rotate_key(KEY, mount_point=self.mount)

    def retire_below(self, version: int) -> None:
        self.transit.update_key_configuration(KEY, min_decryption_version=version, mount_point=self.mount)

    def wrapper(self, key: str = KEY, *, token: str | None = None) -> TransitKeyWrapper:
        client = hvac.Client(url=self.root.url, token=token or self.root.token)
        return TransitKeyWrapper(client=client, key_name=key, mount_point=self.mount)


@pytest.fixture
def engine(stack: Any) -> Iterator[Engine]:
    engine = Engine(stack.vault.client())
    yield engine
    engine.root.sys.disable_secrets_engine(engine.mount)


@pytest.fixture
def connect(monkeypatch: pytest.MonkeyPatch) -> Callable[..., VaultTransitHook]:
    """Make the hook of an Airflow connection that points at an address."""

    def connect(address: str, *, token: str = "hvs.canary-token", **extra: str) -> VaultTransitHook:
        host, port = address.removeprefix("http://").split(":")
        connection = {"conn_type": "vault", "host": host, "port": int(port), "password": token, "extra": extra}
        monkeypatch.setenv("AIRFLOW_CONN_PV_BACKUP_VAULT", json.dumps(connection))
        return VaultTransitHook()

    return connect


@pytest.fixture
def silent_address() -> Iterator[str]:
    """A server that accepts and never answers: what a black-holed Vault looks like."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def dead_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return f"127.0.0.1:{port}"


@pytest.mark.case("TC-INV-02", "TC-INV-03")
def test_a_dek_comes_back_from_its_wrapped_form_alone(stack: Any, connect: Callable[..., VaultTransitHook]) -> None:
    """As the service does it: the provider's hook, and a token that may do nothing but encrypt and decrypt."""
    keys = connect(stack.vault.address, token=stack.backup_token).key_wrapper(KEY)
    dek = new_dek()
    wrapped = keys.wrap(dek)
    assert wrapped.wrapped_dek.startswith(f"vault:v{wrapped.k_backup_version}:")
    assert base64.b64encode(dek).decode() not in wrapped.wrapped_dek
    assert keys.unwrap(wrapped.wrapped_dek) == dek


@pytest.mark.case("TC-INV-02")
def test_each_artefact_has_a_dek_of_its_own_and_unwrapped_ones_are_wiped(engine: Engine) -> None:
    keys = engine.wrapper()
    deks = [new_dek() for _ in range(5)]
    wrapped = [keys.wrap(dek).wrapped_dek for dek in deks]
    assert len({bytes(dek) for dek in deks}) == len(set(wrapped)) == 5
    for dek, text in zip(deks, wrapped, strict=True):
        with wiped(keys.unwrap(text)) as unwrapped:
            assert unwrapped == dek
        assert unwrapped == bytearray(32)


@pytest.mark.case("TC-NEG-03", "TC-NR-05")
def test_old_artefacts_open_after_a_rotation(engine: Engine) -> None:
    keys, dek = engine.wrapper(), new_dek()
    before = keys.wrap(dek)
    engine.rotate()
    after = keys.wrap(dek)
    assert (before.k_backup_version, after.k_backup_version) == (1, 2)
    assert keys.unwrap(before.wrapped_dek) == keys.unwrap(after.wrapped_dek) == dek


@pytest.mark.case("TC-NEG-03")
def test_a_wrong_key_version_is_refused(engine: Engine) -> None:
    keys = engine.wrapper()
    wrapped = keys.wrap(new_dek()).wrapped_dek
    with pytest.raises(WrappedKeyRefused, match=r"version 7 of the key is not available.*too new"):
        keys.unwrap(wrapped.replace("vault:v1:", "vault:v7:"))
    engine.rotate()
    with pytest.raises(WrappedKeyRefused, match="refused the wrapped DEK of key version 2"):
        keys.unwrap(wrapped.replace("vault:v1:", "vault:v2:"))
    engine.retire_below(2)
    with pytest.raises(WrappedKeyRefused, match=r"version 1 of the key is not available.*too old"):
        keys.unwrap(wrapped)


@pytest.mark.case("TC-NEG-03", "TC-NEG-04")
def test_version_zero_is_refused_although_vault_takes_it_for_one(engine: Engine) -> None:
    keys, dek = engine.wrapper(), new_dek()
    forged = keys.wrap(dek).wrapped_dek.replace("vault:v1:", "vault:v0:")
    as_vault_reads_it = engine.transit.decrypt_data(KEY, ciphertext=forged, mount_point=engine.mount)
    assert base64.b64decode(as_vault_reads_it["data"]["plaintext"]) == dek
    with pytest.raises(WrappedKeyRefused, match="N from 1"):
        keys.unwrap(forged)


@pytest.mark.case("TC-NEG-04")
def test_a_changed_wrapped_dek_is_an_integrity_error(engine: Engine) -> None:
    keys = engine.wrapper()
    prefix, _, text = keys.wrap(new_dek()).wrapped_dek.rpartition(":")
    forged = bytearray(base64.b64decode(text))
    forged[-1] ^= 1
    with pytest.raises(IntegrityError, match=r"refused the wrapped DEK.*authentication failed"):
        keys.unwrap(f"{prefix}:{base64.b64encode(forged).decode()}")
    with pytest.raises(IntegrityError, match=r"refused the wrapped DEK.*length"):
        keys.unwrap("vault:v1:QUJD")


@pytest.mark.case("TC-NEG-04")
def test_a_wrapped_secret_that_is_no_dek_is_refused(engine: Engine) -> None:
    keys = engine.wrapper()
    with pytest.raises(WrappedKeyRefused, match="a key of 16 bytes, a DEK has 32"):
        keys.unwrap(keys.wrap(bytearray(16)).wrapped_dek)


@pytest.mark.case("TC-ERR-02")
def test_a_sealed_vault_fails_closed_at_once(stack: Any, connect: Callable[..., VaultTransitHook]) -> None:
    keys = connect(stack.vault.address, token=stack.backup_token).key_wrapper(KEY)
    wrapped = keys.wrap(new_dek()).wrapped_dek
    stack.vault.seal()
    try:
        started = time.monotonic()
        with pytest.raises(FailClosedError, match=r"ERR-47-02.*Vault is sealed.*unseal it"):
            keys.wrap(new_dek())
        with pytest.raises(FailClosedError, match="Vault is sealed"):
            keys.unwrap(wrapped)
        assert time.monotonic() - started < 5
    finally:
        stack.vault.unseal()
    assert len(keys.unwrap(wrapped)) == 32


@pytest.mark.case("TC-ERR-02")
def test_a_closed_port_fails_closed_at_once(connect: Callable[..., VaultTransitHook], dead_address: str) -> None:
    started = time.monotonic()
    with pytest.raises(FailClosedError, match=r"unreachable .ConnectionError.*transit/encrypt/pv-backup"):
        connect(dead_address).key_wrapper(KEY).wrap(new_dek())
    assert time.monotonic() - started < 5


@pytest.mark.case("TC-ERR-02")
def test_a_black_hole_fails_closed_in_seconds(connect: Callable[..., VaultTransitHook], silent_address: str) -> None:
    keys = connect(silent_address).key_wrapper(KEY)
    started = time.monotonic()
    with pytest.raises(FailClosedError, match=r"unreachable .ReadTimeout"):
        keys.wrap(new_dek())
    assert time.monotonic() - started < 15


@pytest.mark.case("TC-ERR-02")
def test_a_login_that_fails_fails_closed(connect: Callable[..., VaultTransitHook], dead_address: str) -> None:
    hook = connect(dead_address, auth_type="userpass")
    with pytest.raises(FailClosedError, match=r"unreachable.*login of connection pv_backup_vault"):
        hook.key_wrapper(KEY)


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
    connect: Callable[..., VaultTransitHook], status: int, content_type: str, body: bytes, match: str
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
def test_what_the_policy_forbids_is_named(stack: Any, connect: Callable[..., VaultTransitHook]) -> None:
    other_key = connect(stack.vault.address, token=stack.backup_token).key_wrapper("someone-elses-key")
    with pytest.raises(FailClosedError, match=r"forbids transit/encrypt/someone-elses-key.*policy"):
        other_key.wrap(new_dek())
    revoked = connect(stack.vault.address, token="hvs.revoked").key_wrapper(KEY)
    with pytest.raises(FailClosedError, match="the token has expired"):
        revoked.wrap(new_dek())


@pytest.mark.case("TC-ERR-02")
def test_a_missing_key_engine_or_wrong_key_type_is_named(
    stack: Any, engine: Engine, connect: Callable[..., VaultTransitHook]
) -> None:
    with pytest.raises(FailClosedError, match=r"has no key for .*decrypt/nobodys"):
        engine.wrapper("nobodys").unwrap("vault:v1:QUJD")
    hook = connect(stack.vault.address, token=stack.vault.root_token, transit_mount_point="nowhere")
    with pytest.raises(FailClosedError, match=r"knows no nowhere/encrypt/pv-backup.*transit_mount_point"):
        hook.key_wrapper(KEY).wrap(new_dek())
    engine.transit.create_key("signing", key_type="ed25519", mount_point=engine.mount)
    with pytest.raises(FailClosedError, match="not supported for key type"):
        engine.wrapper("signing").wrap(new_dek())


@pytest.mark.case("TC-INV-03")
def test_the_mount_point_comes_from_the_connection(
    stack: Any, engine: Engine, connect: Callable[..., VaultTransitHook]
) -> None:
    hook = connect(stack.vault.address, token=stack.vault.root_token, transit_mount_point=engine.mount)
    dek = new_dek()
    wrapped = hook.key_wrapper(KEY).wrap(dek).wrapped_dek
    assert engine.wrapper().unwrap(wrapped) == dek


@pytest.mark.case("TC-ERR-02")
def test_a_connection_that_describes_no_vault_is_a_configuration_error(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[..., VaultTransitHook]
) -> None:
    monkeypatch.delenv("VAULT_TOKEN", raising=False)
    with pytest.raises(ConfigurationError, match="pv_backup_vault does not describe a Vault"):
        connect("127.0.0.1:1", token="")


def everything_about(error: BaseException) -> str:
    """What a log, an error tracker that walks the chain, or repr could show of an error."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(link)
        link = link.__cause__ or link.__context__
    shown = [f"{link!r} {vars(link)} {vars(getattr(link, 'request', None) or object)}" for link in chain]
    return "\n".join([*shown, *traceback.format_exception(error)])


@pytest.mark.case("TC-INV-02", "TC-ERR-02")
@pytest.mark.parametrize("situation", ["sealed", "dead", "forbidden", "wrong key type"])
def test_no_error_or_log_line_holds_a_secret(
    situation: str,
    stack: Any,
    engine: Engine,
    connect: Callable[..., VaultTransitHook],
    dead_address: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    token = "hvs.canary" + os.urandom(8).hex()
    keys: KeyWrapper
    if situation == "dead":
        keys = connect(dead_address, token=token).key_wrapper(KEY)
    elif situation == "wrong key type":
        engine.transit.create_key("signing", key_type="ed25519", mount_point=engine.mount)
        token, keys = engine.root.token, engine.wrapper("signing")
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
