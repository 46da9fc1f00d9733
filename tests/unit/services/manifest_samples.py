"""Facts that a manifest must have, shared by the tests that read one."""

from __future__ import annotations

from typing import Any

FACTS: dict[str, Any] = {
    "backup_id": "0b9d2f0e-8f43-4c6c-9c3f-6f1f5e0c8a11",
    "hash_sha3_256": "00" * 32,
    "header_tag": "00" * 16,
    "size_bytes": 1,
    "wrapped_dek": "vault:v1:",
    "k_backup_version": 1,
    "exported_at": "2026-03-29T01:00:00Z",
    "finished_at": "2026-03-29T01:10:00Z",
    "exported_bytes": 1,
    "export_seconds": 1.0,
    "server_version": "15.0",
    "system_identifier": "1",
    "tool_versions": {},
}
"""Of an artefact of whatever type; its type and its key are for the test to say."""
