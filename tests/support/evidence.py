"""The evidence of a drill such as real ones leave, and a key to sign it with where Vault is not what is tested."""

from __future__ import annotations

import base64
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pv_backup.services.evidence.document import Evidence
from pv_backup.services.evidence.public_keys import PublicKey
from pv_backup.services.evidence.signed import Signature, document_text, signed_bytes

KEY = "pv-backup-evidence"
DRILL_ID = "7d0f7a56-2f35-4a2e-9f0c-0e3a6b1f4c11"

_CHECKS = (
    ("pg_verifybackup", 1.9, "976 files"),
    ("contract/constraints_valid (evidence)", 0.412, "38 constraints"),
    ("contract/extensions_present (evidence)", 0.011, ""),
    ("contract/indexes_valid (evidence)", 0.018, ""),
    ("contract/relations_there (evidence)", 0.02, ""),
    ("contract/sequences_ahead (evidence)", 0.035, "12 sequences"),
    ("row_counts (evidence)", 0.8, "1204411 rows in 23 tables, as at dump time"),
    ("pg_amcheck", 7.31, "23 tables, 41 indexes"),
)


def _leg(name: str, *, skip: int = 0, **more: Any) -> dict[str, Any]:
    checks = [{"name": n, "result": "PASSED", "seconds": s, "detail": d} for n, s, d in _CHECKS[skip:]]
    return {
        "leg": name,
        "verdict": "PASSED",
        "started_at": "2026-11-22T09:00:03.120981Z",
        "finished_at": "2026-11-22T09:03:41.000210Z",
        "system_identifier": "7561293405918273645",
        "checks": checks,
        "row_counts": {"public.proof": 1204000, "public.client": 411},
        **more,
    }


def _artefact(stem: str, backup_id: str, size_bytes: int, exported_at: str) -> dict[str, Any]:
    return {
        "key": f"2026/11/{stem}_20261122.enc",
        "backup_id": backup_id,
        "hash_sha3_256": (backup_id.replace("-", "") * 2),
        "size_bytes": size_bytes,
        "k_backup_version": 2,
        "exported_at": exported_at,
    }


PASSED: dict[str, Any] = {
    "format_version": 1,
    "drill_id": DRILL_ID,
    "run_id": "pv_backup_restoration_drill/scheduled__2026-11-22T09:00:00+00:00",
    "target": "2026-11-22T08:30:00.000000Z",
    "bucket": "pv-backup-production",
    "started_at": "2026-11-22T09:00:00.051232Z",
    "finished_at": "2026-11-22T09:04:01.402001Z",
    "verdict": "PASSED",
    "rto_s": 83.412,
    "rpo_s": 23398.7,
    "legs": [
        _leg(
            "logical",
            skip=1,
            artefacts=[
                _artefact("globals", "3b6f1c2e-90ab-4f6d-8c1d-5a7e9b3c2d10", 5120, "2026-11-22T02:00:04.000000Z"),
                _artefact("backup", "c1d52a7e-6b9c-4e3f-a2b4-0f8e7d6c5b4a", 734003200, "2026-11-22T02:00:01.300000Z"),
            ],
            reached_at="2026-11-22T02:00:01.300000Z",
            rto_s=83.412,
            rpo_s=23398.7,
            versions={"postgres": "15.14", "pg_restore": "15.14", "pg_amcheck": "15.14"},
        ),
        _leg(
            "physical",
            artefacts=[
                _artefact(
                    "basebackup", "aa31d0c4-5e6f-4b7a-9c8d-1e2f3a4b5c6d", 1503238553, "2026-11-22T01:00:02.100000Z"
                )
            ],
            wal_files=412,
            reached_at="2026-11-22T08:29:59.871114Z",
            reached_lsn="2E/7A000188",
            timeline=3,
            rto_s=61.02,
            rpo_s=0.128886,
            versions={"postgres": "15.14", "pg_verifybackup": "15.14", "pg_amcheck": "15.14"},
        ),
    ],
    "checks": [
        {"name": "same system identifier", "result": "PASSED", "seconds": 0.0, "detail": "7561293405918273645"},
        {
            "name": "same row counts",
            "result": "SKIPPED",
            "seconds": 0.0,
            "detail": "the source committed between the dump's snapshot and the target",
        },
    ],
    "failures": [],
}


def passed(**changes: Any) -> Evidence:
    """The evidence of a drill that passed, with some fields otherwise."""
    return Evidence.model_validate(PASSED | changes)


def failed(
    cause: str = "contract/sequences_ahead (evidence): public.proof_id_seq is at 1203 and the column at 1204",
) -> Evidence:
    """The evidence of a drill of which one check failed, the base backup's leg before it came to any."""
    legs = [dict(leg) for leg in PASSED["legs"]]
    failure = {
        "code": "CONTRACT",
        "cause": cause,
        "remedy": "find out whether the source has it too (run the check there); then drill again",
        "check": "contract/sequences_ahead (evidence)",
    }
    broken = {"name": failure["check"], "result": "FAILED", "seconds": 0.035, "detail": cause.partition(": ")[2]}
    legs[0] |= {
        "verdict": "FAILED",
        "failure": failure,
        "checks": [broken if check["name"] == failure["check"] else check for check in legs[0]["checks"]],
    }
    gap = {
        "code": "WAL-GAP",
        "cause": "000000030000002E00000071 is missing between 2026/11/basebackup_20261122.enc and the target",
        "remedy": "look in pg_wal of the source; else take a base backup now",
    }
    times = {name: legs[1][name] for name in ("leg", "started_at", "finished_at")}
    legs[1] = {**times, "verdict": "FAILED", "failure": gap}
    return passed(verdict="FAILED", legs=legs, failures=[failure, gap], checks=[], rto_s=None, rpo_s=None)


class LocalKey:
    """A key pair in memory, which signs as Vault does."""

    def __init__(self, *, name: str = KEY, version: int = 1) -> None:
        self._private = Ed25519PrivateKey.generate()
        self.public = PublicKey(key=self._private.public_key(), name=name, version=version)

    def sign(self, evidence: dict[str, Any], *, key: str = KEY, key_version: int = 1) -> str:
        """A document whose signature holds, whatever it says."""
        value = base64.b64encode(self._private.sign(signed_bytes(evidence, key=key, key_version=key_version))).decode()
        return document_text(evidence, Signature(algorithm="ed25519", key=key, key_version=key_version, value=value))
