"""Whatever backs up, restores or verifies in this suite has production's rights; root is for set-up and faults."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Final

import pytest

from dev.airflow_env import ROOT
from dev.provisioning.keys import SSE_KEY, TRANSIT_KEY
from tests.integration.backup_world import backup_world
from tests.integration.command_line import CommandLine
from tests.integration.worker import become_worker
from tests.support.servers import TestStack

pytestmark = pytest.mark.case("TC-INF-02", "TC-INV-03")

ROOT_IS_FOR: Final = {
    "dev/servers/openbao.py": "initialising the server",
    "dev/provisioning/keys.py": "making keys, policies and tokens",
    "dev/environment.py": "the administrator's part of .dev/env, which docs/disaster.md uses",
    "tests/integration/conftest.py": "mounting an engine for one test, with tokens for it",
    "tests/integration/test_evidence_signing.py": "making an auditor's token",
    "tests/integration/test_stack.py": "looking at how a key was made",
    "tests/integration/test_drill.py": "a fault: retiring a version of the key",
    "tests/system/test_disaster.py": "taking the snapshot",
}

# Production's own, and the one of the development server for S3.
FILES: Final = {TRANSIT_KEY: "include/vault/pv-backup.hcl", SSE_KEY: "dev/policies/pv-backup-sse.hcl"}


@pytest.fixture
def environments(
    stack, airflow_env, source_db, journal_db, bucket, monkeypatch
) -> Iterator[dict[str, Mapping[str, str]]]:
    """Of an Airflow, of this process as a worker, and of the command line."""
    become_worker(monkeypatch, stack, journal_dsn=journal_db.service_dsn, bucket=bucket.name)
    with backup_world(stack, source_db, journal_db, bucket) as world:
        command = CommandLine(world).environment
        yield {"Airflow": airflow_env, "a worker": dict(os.environ), "the command line": command}


def test_tasks_and_commands_hold_the_limited_token_alone(stack: TestStack, environments: dict[str, Mapping[str, str]]):
    assert [who for who, told in environments.items() if stack.vault.root_token in json.dumps(dict(told))] == []
    held = {
        json.loads(environments["Airflow"]["AIRFLOW_CONN_PV_BACKUP_VAULT"])["password"],
        json.loads(environments["a worker"]["AIRFLOW_CONN_PV_BACKUP_VAULT"])["password"],
        environments["the command line"]["VAULT_TOKEN"],
    }
    assert held == {stack.backup_token}


@pytest.mark.parametrize("name", [TRANSIT_KEY, SSE_KEY])
def test_the_suites_tokens_have_the_policy_of_their_file_and_no_other(stack: TestStack, name: str):
    root = stack.vault.client()
    token = {TRANSIT_KEY: stack.backup_token, SSE_KEY: stack.credentials.get("vault_sse_token")}[name]

    assert root.auth.token.lookup(token)["data"]["policies"] == [name]
    assert root.sys.read_policy(name)["data"]["rules"] == (ROOT / FILES[name]).read_text()


def test_root_is_taken_where_there_is_a_reason_and_nowhere_else():
    """Below tests/infrastructure other systems are set up by their own tests, which are left out here."""
    folders = ["dev", *(f"tests/{name}" for name in ("integration", "system", "dags", "unit", "support"))]
    as_root = re.compile(r"root_token|vault\.client\(\)")
    found = {
        str(path.relative_to(ROOT))
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
        if as_root.search(path.read_text())
    }
    assert found == set(ROOT_IS_FOR), "use stack.backup_token, or say here what root is for"
