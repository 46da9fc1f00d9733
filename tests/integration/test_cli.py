"""The command line, with nothing left but the bucket and the key: what it says, writes and exits with."""

from __future__ import annotations

import signal
import socket
import subprocess

import pytest

from tests.integration.backup_world import DAY, KEY, backup_world
from tests.integration.command_line import CommandLine

pytestmark = pytest.mark.case("TC-NOM-01")

OK, FAILED, DAMAGED, INTERRUPTED = 0, 1, 2, 130


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


@pytest.mark.case("TC-NEG-05")
@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        *(
            (option, blank, option)
            for option in ("--target-time", "--target-lsn", "--target-name")
            for blank in ("", "  ")
        ),
        ("--target-name", "ä" * 32, "longer than 63 bytes (64)"),
        ("--target-time", "2026-11-22T03:15:00", "no time with a zone"),
        ("--target-lsn", "16", "16"),
    ],
)
def test_a_target_that_says_nothing_is_never_the_end_of_the_wal(command, tmp_path, option, value, told):
    refused = command("restore", tmp_path / "data", f"{option}={value}")

    assert refused.returncode == FAILED
    assert "error: FAILED_FORMAT" in refused.stderr.decode()
    assert told in refused.stderr.decode()
    assert not (tmp_path / "data").exists()


def test_what_nobody_foresaw_is_told_in_one_line_and_its_traceback_to_who_asks(command):
    command.environment["AWS_ENDPOINT_URL_S3"] = "nonsense"
    told = command("list")
    command.environment["PV_BACKUP_TRACEBACK"] = "1"
    asked = command("list")

    (line,) = told.stderr.decode().splitlines()
    assert told.returncode == asked.returncode == FAILED
    assert line.startswith("error: ValueError: Invalid endpoint: nonsense. Next: ")
    assert "PV_BACKUP_TRACEBACK=1" in line
    assert asked.stderr.startswith(b"Traceback")
    assert asked.stderr.decode().splitlines()[-1] == line


def test_a_package_that_is_not_installed_is_named(command, tmp_path):
    command.without(tmp_path, {"sqlalchemy"})
    command.environment["PV_BACKUP_JOURNAL_DSN"] = "postgresql://nobody@127.0.0.1/journal"
    told = command("rebuild-journal")

    assert told.returncode == FAILED
    (line,) = told.stderr.decode().splitlines()
    assert "'sqlalchemy'" in line
    assert "docs/disaster.md" in line


def test_an_interruption_ends_at_once_and_without_a_traceback(command):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        command.environment["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
        process = command.start("list", stderr=subprocess.PIPE)
        silent.settimeout(60)
        asked, _ = silent.accept()
        with asked:
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)

    assert process.returncode == INTERRUPTED
    assert said == b"interrupted; the bucket is as it was\n"


def test_somebody_before_a_terminal_sees_how_far_it_is_and_a_pipe_gets_only_data(world, command):
    world.back_up()

    seen, fetched = command.before_a_terminal("fetch", KEY)
    plain = command("fetch", KEY)

    assert "reading back" in seen
    assert "writing" in seen
    assert "100%" in seen
    assert fetched == plain.stdout
    assert plain.stderr == b""
