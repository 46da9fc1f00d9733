"""ERR-47-04 by the real DAG: one stored byte is flipped after the upload and before it is read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.system.airflow_world import AirflowWorld, DagRun, manifest_key, mark_key, object_key, wait_for

# The row learns its hash right after the upload is complete: holding that update holds the run at that moment.
HOLD = 4747
HOLD_THE_RUN = f"""
CREATE FUNCTION public.hold() RETURNS trigger LANGUAGE plpgsql AS
  $$BEGIN PERFORM pg_advisory_xact_lock_shared({HOLD}); RETURN NEW; END$$;
CREATE TRIGGER hold BEFORE UPDATE OF hash_sha3_256 ON pv_backup.backup_executions FOR EACH ROW
  WHEN (NEW.type = 'pg_dump' AND NEW.hash_sha3_256 IS NOT NULL) EXECUTE FUNCTION public.hold();
"""


@contextmanager
def held_after_the_upload(world: AirflowWorld) -> Iterator[DagRun]:
    """A run that has uploaded its object and goes on when the block ends."""
    with psycopg.connect(world.journal.superuser_dsn, autocommit=True) as connection:
        connection.execute(HOLD_THE_RUN.encode())
        connection.execute(f"SELECT pg_advisory_lock({HOLD})".encode())
        run = world.start()
        waiting = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND objid = %s"
        wait_for(lambda: world.sql(waiting, HOLD), run=run, meaning="the object was uploaded")
        yield run


def flip_one_stored_byte(world: AirflowWorld, key: str) -> None:
    there = world.bucket.admin.get_object(Bucket=world.bucket.name, Key=key)
    body = bytearray(there["Body"].read())
    body[len(body) // 2] ^= 0x01
    world.bucket.admin.put_object(Bucket=world.bucket.name, Key=key, Body=bytes(body), Metadata=there["Metadata"])


@pytest.mark.case("TC-ERR-04", "TC-INV-04", "TC-NEG-01")
def test_a_flipped_byte_ends_in_err_47_04_marked_and_unpublished(world: AirflowWorld):
    world.fill_source(megabytes=3)
    with held_after_the_upload(world) as run:
        day, backup_id = world.row()["day"], str(world.row()["backup_id"])
        flip_one_stored_byte(world, object_key(day))
    ended = run.wait()

    assert ended.exit_code == 1
    assert world.tasks()["stream_dump"] == ("success", 1)
    assert world.tasks()["verify_upload"] == ("failed", 1)
    row = world.row()
    assert (row["status"], row["error_code"]) == ("FAILED", "ERR-47-04")
    assert world.outcomes() == [(backup_id, "FAILED")]
    mark = json.loads(world.read(mark_key(day)))
    assert (mark["backup_id"], mark["header_tag"]) == (backup_id, row["auth_tag"])
    assert mark["reason"]
    assert manifest_key(day) not in world.versions()
    (alert,) = world.alerts()
    assert (alert["level"], alert["code"]) == ("critical", "ERR-47-04")
