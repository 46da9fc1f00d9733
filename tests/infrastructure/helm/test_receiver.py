"""deploy/helm/pg-receivewal.yaml: against the API, against Compose, and its environment on real servers."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from dev.bench.tls import Certificate
from dev.ports import free_ports
from dev.servers.postgres import BIN_DIR, RUN_AS, Postgres
from pv_backup.services.wal_receiver import SLOT
from tests.infrastructure.compose import composition
from tests.infrastructure.helm.objects import problems
from tests.infrastructure.helm.worker_pods import HELM
from tests.support.clusters import open_directory

pytestmark = pytest.mark.case("TC-INF-04")

ROOT = HELM.parents[1]
RECEIVER: dict[str, Any] = yaml.safe_load((HELM / "pg-receivewal.yaml").read_text())
CONTAINER: dict[str, Any] = RECEIVER["spec"]["template"]["spec"]["containers"][0]
PASSWORD = "of-the-superuser"
# What checkov asks of every manifest, and why this one does otherwise.
_EXCEPTIONS = {
    "CKV_K8S_8": "pg_receivewal connects anew by itself; restarting it would not bring the source back",
    "CKV_K8S_11": "without a limit of CPU it catches up as fast as the node allows; the request keeps others safe",
    "CKV_K8S_15": "the tag is pinned, and a registry that is away must not keep WAL from being received",
    "CKV_K8S_21": "the namespace is the one of kubectl's command",
    "CKV_K8S_35": "libpq reads these from the environment, and nothing else runs in the container",
    "CKV_K8S_43": "the image is yours, and its digest is not known here",
    "CKV2_K8S_6": "which addresses may be reached is the cluster's to say",
}


@contextmanager
def started(home: Path, **settings: str) -> Iterator[Postgres]:
    postgres = Postgres(
        home=home, port=free_ports(["source"])["source"], password=PASSWORD, durable=False, settings=settings
    )
    postgres.start()
    try:
        yield postgres
    finally:
        postgres.remove()


@pytest.fixture(scope="module")
def certificate(_guarded: None) -> Certificate:
    """A server's own, which nobody signed."""
    drawn = Certificate.drawn(open_directory())
    if RUN_AS:
        shutil.chown(drawn.key, RUN_AS)
    return drawn


@pytest.fixture(scope="module")
def source(certificate: Certificate) -> Iterator[Postgres]:
    settings = {"ssl_cert_file": str(certificate.certificate), "ssl_key_file": str(certificate.key)}
    with started(certificate.key.parent, ssl="on", **settings) as postgres:
        yield postgres


def ask(source: Postgres, **other: str) -> subprocess.CompletedProcess[str]:
    """The program that the receiver begins with, in the environment of its container."""
    given = {variable["name"]: variable["value"] for variable in CONTAINER["env"]}
    secret = {"PGHOST": "127.0.0.1", "PGPORT": str(source.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
    environment = {"PATH": f"{BIN_DIR}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"} | secret | given | other
    command = ["psql", "-AXqtw", "--command=IDENTIFY_SYSTEM", "replication=true"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.usefixtures("_guarded")
def test_a_source_without_tls_gets_no_password() -> None:
    with started(open_directory()) as plain:
        assert "server does not support SSL, but SSL was required" in ask(plain).stderr


def test_a_source_that_no_authority_vouches_for_gets_none(source: Postgres) -> None:
    assert "certificate verify failed" in ask(source).stderr


def test_the_name_must_be_that_of_the_certificate(source: Postgres, certificate: Certificate, tmp_path: Path) -> None:
    trusted = {"PGSSLROOTCERT": str(shutil.copy(certificate.certificate, tmp_path))}

    assert "does not match host name" in ask(source, **trusted, PGHOST="source.example", PGHOSTADDR="127.0.0.1").stderr
    assert ask(source, **trusted).returncode == 0


def test_the_receiver_is_what_kubernetes_knows() -> None:
    assert problems(RECEIVER, "V1StatefulSet") == []
    template = RECEIVER["spec"]["template"]["metadata"]["labels"]
    assert RECEIVER["spec"]["selector"]["matchLabels"] == template
    assert RECEIVER["spec"]["replicas"] == 1, "a slot has one receiver"


def test_the_receiver_does_what_composes_does() -> None:
    """The same program, on a directory of its own; Compose's source, a trial's, has no TLS."""
    compose = composition.services()["receivewal"]
    airflow = yaml.safe_load((HELM / "values.yaml").read_text())["env"]
    (directory,) = [variable["value"] for variable in airflow if variable["name"].endswith("WAL_DIRECTORY")]
    assert CONTAINER["args"][-1].splitlines()[-1].removeprefix("exec ") == shlex.join(compose["command"])
    assert ["CMD", *CONTAINER["readinessProbe"]["exec"]["command"]] == compose["healthcheck"]["test"]
    assert {variable["name"]: variable["value"] for variable in CONTAINER["env"]} == {
        "PGAPPNAME": SLOT,
        "SLOT": SLOT,
        "WAL_DIRECTORY": directory,
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/ssl/certs/ca-certificates.crt",
    }


def test_checkov_finds_nothing_but_what_is_meant() -> None:
    checkov = [ROOT / ".venv-tools/bin/checkov", "--file", HELM / "pg-receivewal.yaml", "--framework", "kubernetes"]
    command = [*checkov, "--skip-download", "--output", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    results = json.loads(done.stdout)["results"]
    assert results["passed_checks"]
    assert {check["check_id"] for check in results["failed_checks"]} == set(_EXCEPTIONS)
