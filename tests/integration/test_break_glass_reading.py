"""Break-glass: bucket and key alone say what there is and how far it leads, and show that it is whole."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from uuid import uuid4

import pytest

from pv_backup.services.artefacts import wal_object_key
from tests.integration.backup_world import KEY
from tests.integration.break_glass_world import BASE, DAMAGED, OK, SEGMENTS, Left

pytestmark = [pytest.mark.case("TC-NOM-04")]


def test_airflow_is_not_there(left: Left):
    tried = subprocess.run(
        [sys.executable, "-c", "import airflow"], env=left.command.environment, capture_output=True, check=False
    )
    assert b"No module named 'airflow'" in tried.stderr


def test_the_list_says_all_that_the_journal_knew_of_the_backups(left: Left):
    listed = json.loads(left.command("list", "--json").stdout)

    told = {backup["key"]: backup for backup in listed["backups"]}
    known = {key: event for key, event in left.events.items() if event["type"] != "wal"}
    assert told.keys() == known.keys()
    for key, event in known.items():
        for name in ("backup_id", "type", "hash_sha3_256", "size_bytes", "k_backup_version"):
            assert told[key][name] == (str(event[name]) if name == "backup_id" else event[name])
        assert told[key]["day"] == str(event["day"])


def test_the_list_says_how_far_recovery_can_go(left: Left):
    wal = json.loads(left.command("list", "--json").stdout)["wal"]
    text = left.command("list").stdout.decode()

    (coverage,) = wal["coverage"]
    assert (coverage["base"], coverage["holes"]) == (BASE, [])
    assert coverage["segments"] >= SEGMENTS - 1
    assert wal["files"] == sum(event["type"] == "wal" for event in left.events.values())
    assert datetime.fromisoformat(coverage["from_time"]) < datetime.fromisoformat(coverage["to_time"])
    assert datetime.fromisoformat(coverage["to_time"]) < left.last_entry_at
    assert f"LSN {coverage['to_lsn']}, timeline 1" in text
    assert coverage["to_time"] in text


def test_the_list_names_each_hole_and_where_recovery_ends_in_front_of_it(left: Left):
    names = left.world.shipped()
    hole, behind = names[-3], names[-2]
    with left.without(wal_object_key(hole)):
        text = left.command("list").stdout.decode()
        (coverage,) = json.loads(left.command("list", "--json").stdout)["wal"]["coverage"]

    assert f"MISSING {hole}, before {behind}" in text
    assert coverage["holes"] == [{"first": hole, "last": hole, "before": behind}]


def test_the_list_is_told_without_vault_but_for_the_wal(left: Left, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(left.command.environment, "VAULT_TOKEN")
    listed = left.command("list")

    assert listed.returncode == OK
    assert BASE in listed.stdout.decode()
    assert "how far they lead is not known: CONFIGURATION VAULT_TOKEN not set" in listed.stdout.decode()


def test_everything_is_verified_and_summed_up(left: Left):
    verified = left.command("verify", "--all")

    assert verified.returncode == OK, verified.stderr
    assert f"verified  {KEY}" in verified.stdout.decode()
    assert f"{len(left.events)} artefacts verified" in verified.stdout.decode()
    assert "0 damaged" in verified.stdout.decode()


@pytest.mark.case("TC-NEG-01")
def test_what_is_damaged_is_named_and_does_not_hide_the_rest(left: Left):
    segment = wal_object_key(left.world.shipped()[-2])
    with left.damaged(KEY), left.damaged(segment):
        verified = left.command("verify", "--all")

    told = verified.stdout.decode()
    assert verified.returncode == DAMAGED
    assert f"damaged   {KEY}: " in told
    assert f"damaged   {segment}: " in told
    assert f"{len(left.events) - 2} artefacts verified" in told
    assert "2 artefacts of s3://" in verified.stderr.decode()


def test_a_manifest_that_speaks_for_another_object_is_damage(left: Left):
    key = "2026/03/globals_20260329.enc"
    manifest = left.world.bucket.manifest(key)
    assert manifest is not None
    left.world.bucket.put_manifest(key, manifest | {"backup_id": str(uuid4())})
    try:
        verified = left.command("verify", "--all")
    finally:
        left.world.bucket.put_manifest(key, manifest)

    assert verified.returncode == DAMAGED
    assert f"damaged   {key}" in verified.stdout.decode()
