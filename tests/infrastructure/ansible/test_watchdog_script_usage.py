"""When the cron watchdog looks, what it wants to be told, and how it explains itself (CC-47-16)."""

from __future__ import annotations

import re
import shutil
import subprocess
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tests.infrastructure.ansible.watchdog_world import PROGRAM, watchdog_world

pytestmark = pytest.mark.case("TC-INF-03")

ABSENT, MISUSED = 1, 4
PARTS = sorted(PROGRAM.with_name("watchdog").glob("*.bash"))


@pytest.fixture
def host(stack, bucket, tmp_path):
    with watchdog_world(stack, bucket, tmp_path) as host:
        yield host


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-01-15T02:59:59Z", None),
        ("2026-01-15T03:00:00Z", "2026-01-15"),
        ("2026-03-29T01:59:59Z", None),
        ("2026-03-29T02:00:00Z", "2026-03-29"),
        ("2026-07-01T21:59:59Z", "2026-07-01"),
        ("2026-07-01T22:00:00Z", None),
        ("2026-10-25T02:59:59Z", None),
        ("2026-10-25T03:00:00Z", "2026-10-25"),
    ],
)
def test_it_is_quiet_till_four_in_paris_in_summer_in_winter_and_when_clocks_change(host, at, day):
    run = host.run("--no-alert", at=at)
    if day is None:
        assert (run.status, run.out, run.err) == (0, "", "")
    else:
        assert run.status == ABSENT, run.err
        assert f"no published backup of {day}," in run.err


def test_without_a_time_it_takes_the_clocks_and_paris_day(host):
    host.settings["NOT_BEFORE"] = "00:00"
    days = [_today_in_paris()]
    run = host.run(at=None, TZ="Pacific/Kiritimati")
    days.append(_today_in_paris())
    assert run.status == ABSENT, run.err
    assert any(f"no published backup of {day}," in run.err for day in days)


def test_a_day_that_is_asked_for_is_looked_for_at_any_hour(host):
    run = host.run("--day", "2026-03-28", "--no-alert", at="2026-03-29T01:00+01:00")
    assert run.status == ABSENT, run.err
    assert "no published backup of 2026-03-28," in run.err


def test_s3_is_asked_by_the_aws_cli_where_curl_cannot_sign(host):
    tools = host.home / "tools"
    tools.mkdir()
    old = tools / "curl"  # Debian 11's is older than the option
    old.write_text('#!/bin/sh\n[ "$1" = --help ] || exec /usr/bin/curl "$@"\n')
    old.chmod(0o755)
    none = tools / "aws"
    none.write_text('#!/bin/sh\necho "An error occurred (FromTheCli)" >&2; exit 255\n')
    none.chmod(0o755)
    assert "FromTheCli" in host.run(using=None, path=f"{tools}:").err
    assert host.run(using=None).status == ABSENT


def test_every_fault_of_the_settings_is_named_and_no_value_repeated(host):
    host.settings |= {"BUCKET": None, "VAULT_ADDR": "http://vault.example.com", "NOT_BEFORE": "4:00", "BUKET": "typo"}
    host.settings |= {"SMTP_URL": "smtp://user:canary-of-the-mail@mail.example.com", "ZONE": "Europe/Pariss"}
    run = host.run("--check-config")
    assert run.status == MISUSED, run.err
    for named in (
        "BUCKET is missing",
        "VAULT_ADDR is not",
        "NOT_BEFORE is not",
        "SMTP_URL is not",
        "ZONE is not known",
        "is no setting",
    ):
        assert named in run.err
    assert "canary" not in run.err
    assert "REGION" not in run.err


def test_good_settings_pass_the_check_without_vault_and_bucket(host):
    host.stack.vault.seal()
    host.settings["S3_ENDPOINT"] = "http://127.0.0.1:1"
    run = host.run("--check-config")
    assert (run.status, run.out, run.err) == (0, "", "")


def test_a_faulty_setting_is_mailed_as_long_as_it_is_known_to_whom(host):
    host.settings["BUCKET"] = "No Bucket"
    for _ in range(2):
        run = host.run()
        assert run.status == MISUSED, run.err
        assert "BUCKET is not what it must be" in run.err
    (mail,) = host.people.mail.messages
    assert " CONFIGURATION " in mail["Subject"]
    host.settings["MAIL_TO"] = None
    assert host.run().status == MISUSED
    assert len(host.people.mail.messages) == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--config", "/nowhere.conf"], "cannot be read from /nowhere.conf"),
        (["--config"], "--config wants a value"),
        (["--using", "wget"], "--using takes curl or aws"),
        (["--at", "tea time"], "--at takes a time"),
        (["--day", "2026-02-30"], "--day takes a date"),
        (["--day", "yesterday"], "--day takes a date"),
        (["--dya"], "there is no option --dya"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_option_that_is_wrong_is_named(options, said):
    run = subprocess.run([PROGRAM, *options], capture_output=True, text=True)
    assert (run.returncode, run.stdout) == (MISUSED, "")
    assert said in run.stderr


def test_the_help_has_every_setting_every_option_and_every_way_to_end():
    shown = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True, check=True).stdout
    code = "".join(path.read_text() for path in [PROGRAM, *PARTS])
    settings = re.findall(r"^([A-Z0-9_]+) \S+ \^", code, re.MULTILINE)
    assert len(settings) > 10
    assert settings == re.findall(r"^    ([A-Z][A-Z0-9_]+) ", shown, re.MULTILINE)
    for option in set(re.findall(r"^ +(--[a-z-]+)\)", code, re.MULTILINE)) - {"--help"}:
        assert option in shown
    ends = {"0", *re.findall(r"conclude (\d)", code), *re.findall(r"^ +exit (\d)", code, re.MULTILINE)}
    assert ends == set(re.findall(r"^    (\d)  ", shown, re.MULTILINE))


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_nothing_to_say():
    found = subprocess.run(["shellcheck", "--external-sources", PROGRAM, *PARTS], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (0, "")


def _today_in_paris() -> str:
    return f"{datetime.now(ZoneInfo('Europe/Paris')):%F}"
