"""The S3 server with HTTPS beside its plain port: pgBackRest speaks nothing else, so in its company everybody does.

SeaweedFS ends TLS itself. A terminator in front of it would copy every byte once more on the same two cores.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dev.servers.seaweedfs import SeaweedFs


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate for loopback, signed by itself, and its key; PEM files."""

    certificate: Path
    key: Path

    @classmethod
    def drawn(cls, directory: Path) -> Certificate:
        """Make one on P-256: whoever connects anew for each file should not pay for an RSA signature each time."""
        made = cls(certificate=directory / "s3-certificate.pem", key=directory / "s3-key.pem")
        command = ["openssl", "req", "-x509", "-noenc", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
        command += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
        command += ["-keyout", str(made.key), "-out", str(made.certificate)]
        subprocess.run(command, check=True, capture_output=True)
        return made


class TlsSeaweedFs(SeaweedFs):
    """SeaweedFS that serves S3 on two ports, plain and TLS.

    :ivar tls_port: where it speaks TLS.
    """

    def __init__(self, *, tls_port: int, certificate: Certificate, **server: Any) -> None:
        super().__init__(**server)
        self.tls_port = tls_port
        self._certificate = certificate

    def _command(self) -> list[str | Path]:
        return [
            *super()._command(),
            f"-s3.port.https={self.tls_port}",
            f"-s3.cert.file={self._certificate.certificate}",
            f"-s3.key.file={self._certificate.key}",
        ]
