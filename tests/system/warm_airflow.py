"""`airflow dags test` in a process that need not import Airflow anew, which takes three quarters of its work.

Python's own fork server imports Airflow once a session, as a library: nothing is configured, connected or started. Each
run is a fork of it that gets an environment of its own and then does what the program `airflow` does.
"""

from __future__ import annotations

import atexit
import importlib
import os
import shutil
import signal
import sys
import tempfile
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

_AS_LIBRARY = "_AIRFLOW__AS_LIBRARY"
# What a run imports beside our own code, which each imports for itself.
_IMPORTED = (
    "airflow.__main__",
    "airflow.settings",
    "airflow.api_fastapi.common.dagbag",
    "airflow.cli.commands.dag_command",
    "airflow.dag_processing.collection",
    "airflow.providers.amazon.aws.sensors.s3",
    "airflow.providers.hashicorp.hooks.vault",
    "airflow.providers.http.hooks.http",
    "airflow.providers.postgres.hooks.postgres",
    "airflow.providers.smtp.hooks.smtp",
    "airflow.providers.standard.operators.hitl",
    "airflow.providers.standard.operators.trigger_dagrun",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.serialization.serialized_objects",
)


class WarmProcess:
    """One run, with the methods of :class:`subprocess.Popen` that a test needs."""

    def __init__(self, process: BaseProcess) -> None:
        assert process.pid is not None
        self.pid = process.pid
        self._process = process

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError(f"{self._process.name} is not over after {timeout} s")
        return self._process.exitcode


def warm(command: list[str], *, env: dict[str, str], log: Path) -> WarmProcess:
    """Run a command of `airflow` with exactly this environment, its output in a file, in the file's directory."""
    process = _context().Process(target=_run, args=(command, env, log), name=f"airflow {' '.join(command)}")
    process.start()
    return WarmProcess(process)


@cache
def _context() -> ForkServerContext:
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    home = tempfile.mkdtemp(prefix="pv-backup-warm-airflow-")
    atexit.register(shutil.rmtree, home)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(_AS_LIBRARY, "1")
        # Airflow keeps the place of its configuration file from its import on.
        environment.setenv("AIRFLOW_HOME", home)
        forkserver.ensure_running()
    return context


def _preload() -> None:
    for name in _IMPORTED:
        importlib.import_module(name)
    from airflow.sdk.execution_time.supervisor import in_process_api_server

    # The API by which a task of `dags test` talks to its run; its routes take seconds to generate.
    in_process_api_server().app._cadwyn_initialize()


def _run(command: list[str], env: dict[str, str], log: Path) -> None:
    from airflow import __main__, settings

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(log.parent)
    os.environ.clear()
    os.environ.update(env)
    sys.argv = ["airflow", *command]
    settings.initialize()
    __main__.main()


if os.environ.get(_AS_LIBRARY):
    _preload()
