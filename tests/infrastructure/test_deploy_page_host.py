"""docs/deploy.md, part 7, on a host of its own: users, units and files as the page makes them, and Airflow by them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import psycopg
import pytest
import requests
from celery.backends.database.models import Task
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from dev.bench.tls import Certificate
from dev.ports import free_ports
from dev.servers.postgres import RUN_AS, Postgres
from tests.infrastructure.debian_host import Host, why_not
from tests.infrastructure.deploy_page import (
    AIRFLOW,
    AUTHORITIES,
    JOURNAL,
    PAGE,
    block_with,
    environment_files,
    follow,
    part,
)

pytestmark = [pytest.mark.case("TC-INF-04"), pytest.mark.skipif(bool(why_not()), reason=why_not() or "nothing")]

AS_AIRFLOW: Final = block_with(AIRFLOW, "as_airflow()").removesuffix("as_airflow db migrate\n")
DRAWN: Final = {
    "AIRFLOW__CORE__FERNET_KEY": "81HqDtbqAywKSOumSha3BhWNOdQ26slT6K0YaZeZyPs=",
    "AIRFLOW__API__SECRET_KEY": "of-the-api",
    "AIRFLOW__API_AUTH__JWT_SECRET": "of-the-tokens-of-the-execution-api-0123456789abcdef0123456789abcd",
}
AS_PYTHON: Final = AS_AIRFLOW.replace("bin/airflow", "bin/python").replace("as_airflow", "as_python")
# By the library that Airflow's asynchronous routes use, which is not the one of all else.
ASK_ASYNCHRONOUSLY: Final = """as_python - <<'END'
import asyncio
from airflow import settings
from sqlalchemy import text

async def ask():
    async with settings.AsyncSession() as session:
        shown = await session.execute(text("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
        print("over TLS:", shown.scalar_one())

asyncio.run(ask())
END"""
# Homes of Airflow, and whose they are.
LOGGERS: Final = {"airflow": "airflow", "airflow-worker-default": "pv_backup"}
PATIENCE_S: Final = 300


@pytest.fixture(scope="module")
def certificate(server: Postgres) -> Certificate:
    """Of the server, signed by nobody that this machine knows."""
    drawn = Certificate.drawn(server.home)
    if RUN_AS:
        for file in (drawn.certificate, drawn.key):
            shutil.chown(file, RUN_AS)
    with psycopg.connect(server.dsn("postgres"), autocommit=True) as connection:
        connection.execute(f"ALTER SYSTEM SET ssl_cert_file = '{drawn.certificate}'")
        connection.execute(f"ALTER SYSTEM SET ssl_key_file = '{drawn.key}'")
        connection.execute("ALTER SYSTEM SET ssl = on")
        connection.execute("SELECT pg_reload_conf()")
    return drawn


@pytest.fixture(scope="module")
def host(server: Postgres, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    """The Airflow host, followed to the end of part 7 but for packages, Redis and nginx."""
    (password,) = follow(server, JOURNAL, show="AIRFLOW_PASSWORD")
    made = Host.made(tmp_path_factory.mktemp("host") / "home")
    try:
        part_7_is_followed(made, server, certificate, password)
        yield made
    finally:
        made.end()


def part_7_is_followed(made: Host, server: Postgres, certificate: Certificate, password: str) -> None:
    made.run(block_with(AIRFLOW, "deploy/systemd/"))
    made.run(block_with(AIRFLOW, "useradd"))
    for name, text in environment_files().items():
        where = f"airflow:{password}@127.0.0.1:{server.port}/"
        filled = text.replace("airflow:…@journal.example:5432/", where)
        for variable, value in DRAWN.items():
            filled = filled.replace(f"{variable}=…", f"{variable}={value}")
        file = made.at(f"/etc/pv-backup/{name}")
        file.write_text(filled)
        file.chmod(0o600)
    made.run(block_with(AIRFLOW, "passwords.json"))
    with made.at(AUTHORITIES).open("a") as authorities:
        authorities.write(certificate.certificate.read_text())
    made.run(block_with(AIRFLOW, "as_airflow()"))


def test_a_machine_that_runs_all_this_already_has_a_new_host_too(tmp_path: Path):
    one = Host.made(tmp_path / "one")
    one.run(block_with(AIRFLOW, "useradd"))
    another = Host.made(tmp_path / "another", etc=one.home / "etc")
    another.run(block_with(AIRFLOW, "useradd"))

    for host in (one, another):
        host.end()
    assert list(tmp_path.iterdir()) == []


def test_airflows_database_is_migrated_over_tls_by_its_own_user(host: Host, server: Postgres):
    with psycopg.connect(server.dsn("airflow")) as connection:
        owners = connection.execute("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'").fetchall()
    assert owners == [("airflow",)]

    left = host.at("/var/lib/airflow")
    assert {host.run(f"stat --format=%U /var/lib/airflow/{path.name}").stdout for path in left.iterdir()} == {
        "airflow\n"
    }


def test_airflows_second_library_reaches_it_over_tls_too(host: Host):
    assert "over TLS: True" in host.run(f"{AS_PYTHON}\n{ASK_ASYNCHRONOUSLY}").stdout


def test_a_server_that_no_known_authority_speaks_for_is_given_no_password(host: Host):
    known = host.at(AUTHORITIES)
    before = known.read_text()
    known.write_text(before.rpartition("-----BEGIN CERTIFICATE-----")[0])
    try:
        ways = (f"{AS_AIRFLOW}\nas_airflow db check", f"{AS_PYTHON}\n{ASK_ASYNCHRONOUSLY}")
        refused = [host.run(script, check=False) for script in ways]
    finally:
        known.write_text(before)

    for done in refused:
        assert done.returncode != 0
        assert "certificate verify failed" in done.stdout


def test_the_calendar_removes_old_runs_and_keeps_young_ones(host: Host, server: Postgres):
    (clean,) = re.findall(r"`(as_airflow db clean [^`]+)`", part("10. In the calendar"))
    with psycopg.connect(server.dsn("airflow")) as connection:
        connection.execute(
            "INSERT INTO dag_run (dag_id, run_id, run_type, state, start_date, run_after, clear_number)"
            " SELECT 'of_the_test', 'days-' || days, 'manual', 'success', now() - days * interval '1 day', now(), 0"
            " FROM unnest(ARRAY[1, 80, 100, 400]) AS days"
        )
        # As a worker's first result makes it.
        connection.execute(str(CreateTable(Task.__table__).compile(dialect=postgresql.dialect())))
        connection.execute("ALTER TABLE celery_taskmeta OWNER TO airflow")
        connection.execute(
            "INSERT INTO celery_taskmeta (id, task_id, date_done)"
            " SELECT days, 'days-' || days, now() - days * interval '1 day' FROM unnest(ARRAY[1, 80, 100, 400]) AS days"
        )

    host.run(f"{AS_AIRFLOW}\n{clean}")

    with psycopg.connect(server.dsn("airflow")) as connection:
        left = connection.execute("SELECT run_id FROM dag_run WHERE dag_id = 'of_the_test' ORDER BY 1").fetchall()
        results = connection.execute("SELECT task_id FROM celery_taskmeta ORDER BY 1").fetchall()
        archived = connection.execute(
            "SELECT tablename FROM pg_tables WHERE tablename LIKE '\\_airflow\\_deleted%'"
        ).fetchall()
    assert left == results == [("days-1",), ("days-80",)]
    assert archived == []


def logs(host: Host) -> list[Path]:
    return [path for home in LOGGERS for path in host.at(f"/var/lib/{home}").glob("logs/dag_id=*/*.log")]


def test_only_logs_of_more_than_30_days_are_removed(host: Host):
    for home, user in LOGGERS.items():
        host.run(
            f"install -d -o {user} -m 0700 /var/lib/{home} && cd /var/lib/{home}\n"
            f"runuser -u {user} -- sh -ec 'mkdir -p logs/dag_id=x && touch other && echo log > logs/dag_id=x/1.log'"
        )
    rules = "/etc/tmpfiles.d/pv-backup-logs.conf"
    host.run(f"systemd-tmpfiles --clean {rules}")
    assert len(logs(host)) == 2

    # Nobody can make a file 30 days old: its birth and its last change are told too.
    host.run(f"sed 's/ 30d$/ 1s/' {rules} > /etc/a-second.conf")
    deadline = time.monotonic() + PATIENCE_S
    while logs(host):
        assert time.monotonic() < deadline
        time.sleep(0.5)
        host.run("systemd-tmpfiles --clean /etc/a-second.conf")
    assert all(host.at(f"/var/lib/{home}/other").exists() for home in LOGGERS)


def of_unit(host: Host, unit: str, name: str) -> list[str]:
    """A setting of an installed unit, as systemd merges the drop-ins of an instance into it: empty takes back."""
    template, _, instance = unit.partition("@")
    files = [host.at(f"/etc/systemd/system/{template}@.service")]
    files += sorted(host.at(f"/etc/systemd/system/{unit}.service.d").glob("*.conf"))
    found: list[str] = []
    for file in files:
        for value in re.findall(rf"^{name}=(.*)$", file.read_text(), re.MULTILINE):
            found = [*found, value.replace("%i", instance)] if value else []
    return found


@contextmanager
def started(host: Host, unit: str, log: Path, **environment: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the program of a unit with its user, files and variables; this machine's systemd is left alone."""
    (user,), (program,) = of_unit(host, unit, "User"), of_unit(host, unit, "ExecStart")
    files = [f". {file.removeprefix('-')}" for file in of_unit(host, unit, "EnvironmentFile")]
    variables = [*of_unit(host, unit, "Environment"), *[f"{name}={value}" for name, value in environment.items()]]
    home = f"HOME=$(getent passwd {user} | cut -d: -f6)"
    become = f"/usr/bin/setpriv --reuid={user} --regid=$(id --group {user}) --init-groups"
    process = host.start("\n".join(["set -a", *files, *variables, home, f"exec {become} {program}"]), log)
    try:
        yield process
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE_S)


def until_it_answers(address: str, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        assert time.monotonic() < deadline, log.read_text()[-4000:]
        try:
            return requests.get(address, timeout=10).raise_for_status()
        except requests.RequestException:
            time.sleep(0.5)


def test_behind_nginx_the_servers_cookies_are_for_tls_alone(host: Host, tmp_path: Path):
    port, log = free_ports(["api"])["api"], tmp_path / "api-server.log"
    with started(host, "airflow@api-server", log, AIRFLOW__API__PORT=str(port), AIRFLOW__API__WORKERS="1") as process:
        address = f"http://127.0.0.1:{port}"
        until_it_answers(f"{address}/api/v2/version", log)
        (user,) = re.findall(r"^Uid:\t(\d+)", Path(f"/proc/{process.pid}/status").read_text(), re.MULTILINE)
        (header,) = re.findall(r"proxy_set_header (\S+) https;", PAGE.read_text())
        password = json.loads(host.at("/var/lib/airflow/passwords.json").read_text())["admin"]
        login = requests.post(
            f"{address}/auth/token", json={"username": "admin", "password": password}, timeout=PATIENCE_S
        )
        logout = requests.get(
            f"{address}/api/v2/auth/logout",
            headers={header: "https"},
            cookies={"_token": login.json()["access_token"]},
            allow_redirects=False,
            timeout=PATIENCE_S,
        )

    assert user == host.run("id --user airflow").stdout.strip(), "what is ended is the server itself"
    assert login.status_code == 201, login.text
    assert "; Secure" in logout.headers["Set-Cookie"]


def test_the_uis_password_is_drawn_and_for_airflow_alone(host: Host):
    file = host.at("/var/lib/airflow/passwords.json")

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert re.fullmatch(r"[0-9a-f]{32}", json.loads(file.read_text())["admin"])


def test_systemd_finds_nothing_in_its_units(host: Host):
    (enabled,) = re.findall(r"^    systemctl enable --now (airflow@.*)$", part(AIRFLOW), re.MULTILINE)
    units = [f"/etc/systemd/system/{unit}.service" for unit in shlex.split(enabled)]

    assert host.run(f"systemd-analyze verify {shlex.join(units)}").stdout == ""
