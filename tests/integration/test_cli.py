"""The command line, with nothing left but the bucket and the key: what it says, writes and exits with."""

from __future__ import annotations

import pytest

from tests.integration.backup_world import DAY, KEY, backup_world
from tests.integration.command_line import CommandLine

pytestmark = pytest.mark.case("TC-NOM-01")

OK, FAILED, DAMAGED = 0, 1, 2


@pytest.fixture
def world(stack, source_db, journal_db, bucket):
    with backup_world(stack, source_db, journal_db, bucket) as world:
        yield world


@pytest.fixture
def command(world):
    return CommandLine(world)


def test_info_and_verify_tell_of_a_published_backup(world, command):
    attempt = world.back_up()
    manifest = world.bucket.manifest(KEY)
    told = command("info", "--day", str(DAY))
    assert told.returncode == OK
    assert attempt.backup_id in told.stdout.decode()
    verified = command("verify", KEY)
    assert verified.returncode == OK, verified.stderr
    assert manifest["hash_sha3_256"] in verified.stdout.decode().replace("\n", "")


def test_info_of_a_day_without_a_backup_says_so(command):
    told = command("info", "--day", "2026-03-28")
    assert told.returncode == OK
    assert told.stdout.decode().count("not published") == 3


def test_fetch_writes_to_standard_output_what_pg_restore_reads(world, command):
    world.back_up()
    fetched = command("fetch", KEY)
    assert fetched.returncode == OK, fetched.stderr
    assert fetched.stdout.startswith(b"PGDMP")


def test_fetch_never_overwrites_a_file(world, command, tmp_path):
    world.back_up()
    output = tmp_path / "kept"
    output.write_text("somebody's only copy")
    refused = command("fetch", KEY, "--output", output)
    assert refused.returncode == FAILED
    assert b"kept" in refused.stderr
    assert b"Traceback" not in refused.stderr
    assert output.read_text() == "somebody's only copy"


@pytest.mark.case("TC-INV-08", "TC-NEG-01")
def test_not_a_byte_of_a_damaged_artefact_is_written(world, command, tmp_path):
    world.back_up()
    body = world.bucket.body(KEY)
    world.bucket.overwrite(KEY, body[:-1] + bytes([body[-1] ^ 1]))
    for arguments in (["fetch", KEY], ["fetch", KEY, "--output", tmp_path / "out"], ["verify", KEY]):
        refused = command(*arguments)
        assert refused.returncode == DAMAGED
        assert refused.stdout == b""
        assert b"damaged: ERR-47-04" in refused.stderr
        assert b"Traceback" not in refused.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.case("TC-INV-08")
def test_an_unpublished_object_is_not_fetched(world, command):
    world.exported()
    refused = command("fetch", KEY)
    assert (refused.returncode, refused.stdout) != (OK, b"")
    assert refused.returncode in (FAILED, DAMAGED)
    assert f"{KEY} is not a published backup".encode() in refused.stderr


@pytest.mark.case("TC-ERR-02")
def test_a_missing_or_wrong_vault_token_is_named_and_not_shown(world, command):
    world.back_up()
    command.environment["VAULT_TOKEN"] = "canary-of-the-token"
    refused = command("verify", KEY)
    assert refused.returncode == FAILED
    assert b"ERR-47-02" in refused.stderr
    assert b"canary" not in refused.stdout + refused.stderr
    del command.environment["VAULT_TOKEN"]
    refused = command("verify", KEY)
    assert refused.returncode == FAILED
    assert b"VAULT_TOKEN not set" in refused.stderr


@pytest.mark.case("TC-NEG-05")
def test_missing_settings_are_named(command):
    del command.environment["PV_BACKUP_BUCKET"]
    refused = command("info")
    assert refused.returncode == FAILED
    assert b"PV_BACKUP_BUCKET is missing" in refused.stderr
    assert b"Traceback" not in refused.stderr


def test_somebody_before_a_terminal_sees_how_far_it_is_and_a_pipe_gets_only_data(world, command):
    world.back_up()

    seen, fetched = command.before_a_terminal("fetch", KEY)
    plain = command("fetch", KEY)

    assert "reading back" in seen
    assert "writing" in seen
    assert "100%" in seen
    assert fetched == plain.stdout
    assert plain.stderr == b""
