"""Run the contenders in turn, three times each, and print the medians."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
from rich.console import Console
from rich.table import Table

from dev.airflow_env import standalone_settings
from dev.bench.dataset import build
from dev.bench.measure import Measured, measure_shell
from dev.provisioning import buckets, databases, keys
from dev.stack import Stack
from pv_backup.services.progress import human_bytes

GIBIBYTE = 1024**3
DATABASE, JOURNAL, BUCKET = "bench", "bench_journal", "pv-backup-bench"
DUMP = "/usr/lib/postgresql/15/bin/pg_dump -Fc -Z0"

console = Console()


@dataclass
class Benchmark:
    """The servers, the environment in which the contenders find them, and what is measured."""

    stack: Stack
    env: dict[str, str]
    servers: dict[str, psutil.Process]
    runs: int
    ours: list[dict[str, object]]

    def floor(self, run: int) -> Measured:
        """(a) What any compressed dump costs on this machine."""
        return measure_shell(f"{DUMP} | zstd -q -3 > /dev/null", env=self.env, servers=self.servers)

    def scripted(self, run: int) -> Measured:
        """(b) What a user would script: compress, encrypt with age, upload with the AWS CLI, SSE-KMS as ours."""
        sse = f"--sse aws:kms --sse-kms-key-id {self.env['PV_BACKUP_KMS_KEY_ID']}"
        # Debian's version does not know AWS_ENDPOINT_URL_S3 yet.
        aws = f"{self.env['BENCH_AWS']} --endpoint-url {self.env['AWS_ENDPOINT_URL_S3']}"
        upload = f"{aws} s3 cp --only-show-errors {sse} - s3://{BUCKET}/scripted/{run}"
        pipeline = f"{DUMP} | zstd -q -3 | age -r {self.env['BENCH_AGE_RECIPIENT']} | {upload}"
        return measure_shell(pipeline, env=self.env, servers=self.servers)

    def dump_stage(self, run: int) -> Measured:
        """(c) This project's dump stage; its child process goes on to (d), the verification."""
        answer = subprocess.run(
            [sys.executable, "-m", "dev.bench.stage"],
            env={**self.env, "BENCH_RUN": str(run)},
            stdout=subprocess.PIPE,
            check=True,
        )
        result = json.loads(answer.stdout.splitlines()[-1])
        self.ours.append(result)
        return Measured(**result["stream"])

    def verification(self, run: int) -> Measured:
        """(d) Reading it back."""
        return Measured(**self.ours[run]["verify"])  # type: ignore[arg-type]


def _require(program: str, package: str) -> str:
    found = shutil.which(program)
    if found is None:
        sys.exit(f"the benchmark needs {program}: apt-get install {package}")
    return found


def _prepare(stack: Stack, size: int) -> dict[str, str]:
    stack.start()
    postgres = stack.postgres
    buckets.ensure_bucket(stack.s3, BUCKET)
    databases.ensure_database(postgres, DATABASE)
    databases.ensure_database(postgres, JOURNAL)
    databases.grant_journal(postgres, JOURNAL)

    def dsn(database: str, role: str) -> str:
        return postgres.dsn(database, user=role, password=databases.password_of(stack.credentials, role))

    databases.migrate_journal(dsn(JOURNAL, databases.OWNER))
    console.print(f"building a database of {human_bytes(size)}")
    build(postgres.dsn(DATABASE), size)
    identity = subprocess.run(["age-keygen"], capture_output=True, text=True, check=True).stdout
    recipient = identity.split("public key: ")[1].splitlines()[0]
    source = dsn(DATABASE, databases.DUMP)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        **standalone_settings(
            vault_address=stack.vault.address,
            vault_token=stack.backup_token,
            s3_endpoint=stack.s3.endpoint,
            s3_key=stack.backup_user,
        ),
        "PV_BACKUP_BUCKET": BUCKET,
        "PV_BACKUP_KMS_KEY_ID": keys.SSE_KEY,
        "PV_BACKUP_TRANSIT_KEY": keys.TRANSIT_KEY,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(postgres.port),
        "PGDATABASE": DATABASE,
        "PGUSER": databases.DUMP,
        "PGPASSWORD": databases.password_of(stack.credentials, databases.DUMP),
        "BENCH_SOURCE_DSN": source,
        "BENCH_JOURNAL_DSN": dsn(JOURNAL, databases.SERVICE),
        "BENCH_AGE_RECIPIENT": recipient,
        "BENCH_AWS": _aws(),
    }


def _aws() -> str:
    """Debian's AWS CLI, as a user of this machine would install it."""
    return "/usr/bin/aws" if Path("/usr/bin/aws").exists() else _require("aws", "awscli")


def _server_processes(stack: Stack) -> dict[str, psutil.Process]:
    listening = {
        connection.laddr.port: connection.pid
        for connection in psutil.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.pid
    }
    ports = {"postgres": stack.ports["postgres"], "s3": stack.ports["s3.port"]}
    return {name: psutil.Process(listening[port]) for name, port in ports.items()}


def _median(runs: list[Measured], value: Callable[[Measured], float]) -> float:
    return statistics.median(value(run) for run in runs)


def _report(benchmark: Benchmark, results: dict[str, list[Measured]]) -> None:
    names = sorted({name for runs in results.values() for name in runs[0].cpu_s})
    table = Table(title=f"Median of {benchmark.runs}", title_justify="left")
    for column in ("contender", "wall s", *(f"CPU s {name}" for name in names), "peak memory"):
        table.add_column(column, justify="right" if column != "contender" else "left")
    for title, runs in results.items():
        cpu = [f"{_median(runs, lambda run, name=name: run.cpu_s.get(name, 0.0)):.1f}" for name in names]
        table.add_row(
            title,
            f"{_median(runs, lambda run: run.wall_s):.2f}",
            *cpu,
            human_bytes(_median(runs, lambda run: run.peak_rss)),
        )
    console.print(table)
    walls = {title[1]: _median(runs, lambda run: run.wall_s) for title, runs in results.items()}
    console.print(f"c/a = {walls['c'] / walls['a']:.2f}   c/b = {walls['c'] / walls['b']:.2f}", highlight=False)
    ours = benchmark.ours
    added = [run["stream"]["peak_rss"] - run["idle_rss"] for run in ours]  # type: ignore[index,operator]
    console.print(
        f"stored {human_bytes(float(ours[0]['size_bytes']))}; a task's process was ready after "  # type: ignore[arg-type]
        f"{statistics.median(run['ready_s'] for run in ours):.1f} s with "  # type: ignore[type-var]
        f"{human_bytes(statistics.median(run['idle_rss'] for run in ours))}; "  # type: ignore[type-var,arg-type]
        f"the stream and its pg_dump added {human_bytes(statistics.median(added))} at most",
        highlight=False,
    )


def main() -> None:
    """Measure on servers of its own, which are gone afterwards."""
    for program in ("age", "zstd"):
        _require(program, program)
    size = int(float(os.environ.get("SIZE_GB", "1")) * GIBIBYTE)
    runs = int(os.environ.get("RUNS", "3"))
    with tempfile.TemporaryDirectory(prefix="pv-backup-bench-") as home:
        Path(home).chmod(0o711)
        stack = Stack(home=Path(home) / "stack", bucket_pattern=BUCKET, durable=True)
        try:
            env = _prepare(stack, size)
            servers = _server_processes(stack)
            env["BENCH_SERVERS"] = json.dumps({name: process.pid for name, process in servers.items()})
            benchmark = Benchmark(stack, env, servers, runs, [])
            contenders: dict[str, Callable[[int], Measured]] = {
                "(a) pg_dump | zstd -3 > /dev/null": benchmark.floor,
                "(b) … | age | aws s3 cp": benchmark.scripted,
                "(c) this project's dump stage": benchmark.dump_stage,
                "(d) its verification": benchmark.verification,
            }
            benchmark.floor(0)
            results: dict[str, list[Measured]] = {title: [] for title in contenders}
            for run in range(runs):
                for title, contender in contenders.items():
                    measured = contender(run)
                    results[title].append(measured)
                    console.print(f"run {run + 1} {title}: {measured.wall_s:.2f} s", highlight=False)
            _report(benchmark, results)
        finally:
            stack.stop()
            stack.postgres.remove()


if __name__ == "__main__":
    main()
