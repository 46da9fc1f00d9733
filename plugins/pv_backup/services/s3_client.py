"""How boto3 is set up for artefacts, wherever the credentials come from."""

from __future__ import annotations

from typing import Any, Final

FIXED_OPTIONS: Final[dict[str, Any]] = {
    # Retrying is decided by the upload, which knows whether anything still makes progress.
    "retries": {"mode": "standard", "total_max_attempts": 1},
    "connect_timeout": 5,
    "read_timeout": 60,
    "tcp_keepalive": True,
    # As many as wal_parallelism allows.
    "max_pool_connections": 32,
    # The body's own SHA-256 and CRC would be computed on both ends for every byte, and neither is trusted
    # for anything here: PVB1 authenticates each segment, TLS protects the transport, and every object is
    # read back and hashed. Without them the upload costs a seventh of the client's CPU (docs/measured.md).
    "response_checksum_validation": "when_required",
    "s3": {"payload_signing_enabled": False, "addressing_style": "path"},
}
CLIENT_OPTIONS: Final[dict[str, Any]] = FIXED_OPTIONS | {
    # A connection may ask for them: a bucket with Object Lock takes no upload without a checksum.
    "request_checksum_calculation": "when_required",
}
