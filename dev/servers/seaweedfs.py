"""SeaweedFS, the S3 server: master, volume server, filer and S3 gateway in one process, on loopback.

Its S3 gateway encrypts with SSE-KMS through OpenBao's Transit, and its IAM API (on the S3 port) makes users whose
policies it enforces.
"""

from __future__ import annotations

import json
import shutil
import signal
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import botocore.exceptions
import requests

from dev import guard
from dev.servers.loopback import LoopbackServer

BINARY = Path(sysconfig.get_path("scripts")) / "weed"
_ENVIRONMENT = {
    # Go's collector at its default spends 20 CPU-seconds a stored GB here, at 400 14; memory is not scarce.
    "GOGC": "400",
    # Volumes opened at a time for a bucket that needs one; the default of 7 suits a cluster.
    "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2",
}
REGION = "eu-west-3"
# Named as SeaweedFS names the options.
PORT_NAMES = tuple(f"{part}.{kind}" for part in ("s3", "master", "volume", "filer") for kind in ("port", "port.grpc"))
# SeaweedFS puts a socket for each of these below /tmp, whatever it is told, and leaves it there.
_STRAY_SOCKETS = {
    "s3.port": "seaweedfs-s3-{}.sock",
    "filer.port": "seaweedfs-filer-{}.sock",
    "s3.port.grpc": "seaweedfs-s3-grpc-{}.sock",
    "master.port.grpc": "seaweedfs-master-grpc-{}.sock",
    "volume.port.grpc": "seaweedfs-volume-grpc-{}.sock",
    "filer.port.grpc": "seaweedfs-filer-grpc-{}.sock",
}


@dataclass(frozen=True, kw_only=True)
class AccessKey:
    """One pair of S3 credentials."""

    access_key: str
    secret_key: str


@dataclass(frozen=True, kw_only=True)
class KmsProvider:
    """Where SeaweedFS finds the keys of SSE-KMS: OpenBao's Transit, with a token of its own."""

    address: str
    token: str


class SeaweedFs(LoopbackServer):
    """One SeaweedFS server with one administrator.

    :param home: directory of this server; made when missing.
    :param ports: one port for each of :data:`PORT_NAMES`; SeaweedFS would pick fixed ones for the rest.
    """

    def __init__(self, *, home: Path, ports: dict[str, int], admin: AccessKey, kms: KmsProvider) -> None:
        named = {name: ports[name] for name in PORT_NAMES}
        super().__init__(name="SeaweedFS", home=home, ports=named, answers_within_s=90)
        self.endpoint = f"http://127.0.0.1:{ports['s3.port']}"
        self.admin = admin
        self._kms = kms

    def client(self, key: AccessKey | None = None, *, service: str = "s3") -> Any:
        """A boto3 client of this server (services: s3, iam), as the administrator or with another key."""
        key = key or self.admin
        return boto3.client(
            service,
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=key.access_key,
            aws_secret_access_key=key.secret_key,
            config=botocore.config.Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 0}, connect_timeout=2, read_timeout=60
            ),
        )

    def answers(self) -> bool:
        """Whether buckets can be listed and the master can place a new object (it answers earlier than it can)."""
        try:
            self.client().list_buckets()
            placed = requests.get(f"http://127.0.0.1:{self._ports['master.port']}/dir/assign", timeout=2)
        except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, requests.RequestException):
            return False
        return placed.ok and "fid" in placed.json()

    def stop(self) -> None:
        """End the server and wait until its ports are free again; what it stored stays.

        Its filer waits 15 s for its own S3 gateway to hang up, which it never does, and serves nobody meanwhile. All
        that was acknowledged is with the kernel by then, so we cut that short.
        """
        self._daemon.stop(timeout_s=3)
        self._remove_stray_sockets()

    def kill(self) -> None:
        """End the server as a power cut would."""
        self._daemon.stop(how=signal.SIGKILL)
        self._remove_stray_sockets()

    def _launch(self) -> None:
        for socket in self._stray_sockets():
            guard.watch_path(socket)
        self._daemon.start(self._command(), env=_ENVIRONMENT)

    def _stray_sockets(self) -> list[Path]:
        return [Path("/tmp", name.format(self._ports[port])) for port, name in _STRAY_SOCKETS.items()]

    def _remove_stray_sockets(self) -> None:
        for socket in self._stray_sockets():
            socket.unlink(missing_ok=True)

    def _command(self) -> list[str | Path]:
        data, logs, config = self.home / "data", self.home / "logs", self.home / "s3.json"
        shutil.rmtree(logs, ignore_errors=True)  # it writes new files at each start and never removes one
        for directory in (data, logs):
            directory.mkdir(parents=True, exist_ok=True)
        config.touch(mode=0o600)
        config.write_text(json.dumps(self._config(), indent=1))
        return [
            BINARY,
            f"-logdir={logs}",
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            *(f"-{option}={port}" for option, port in self._ports.items()),
            "-s3",
            f"-s3.config={config}",
            "-s3.iam.readOnly=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            # The only master elects itself; the default of 10 s is paid at every start.
            "-master.electionTimeout=1s",
            # Each bucket has volumes of its own, and tests make many buckets; a volume takes room only when written.
            "-master.volumeSizeLimitMB=1024",
            "-volume.max=2000",
            # There is no cluster that would have to learn of our going first.
            "-volume.preStopSeconds=0",
        ]

    def _config(self) -> dict[str, Any]:
        return {
            "identities": [
                {
                    "name": "dev-admin",
                    "credentials": [{"accessKey": self.admin.access_key, "secretKey": self.admin.secret_key}],
                    "actions": ["Admin", "Read", "Write", "List", "Tagging"],
                }
            ],
            "kms": {
                "default_provider": "openbao",
                "providers": {
                    "openbao": {
                        "type": "openbao",
                        "address": self._kms.address,
                        "token": self._kms.token,
                        "transit_path": "transit",
                    }
                },
            },
        }
