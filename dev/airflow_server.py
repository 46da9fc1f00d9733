"""The whole Airflow on the development stack, in the foreground."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil

from dev import airflow_env, environment


def run() -> None:
    """Run API server with UI, scheduler, dag processor and triggerer until Ctrl-C; then end every one of them."""
    stack = environment.development_stack()
    # Not the administrator's: what Airflow may do here is what it may do in production.
    variables = {name: value for name, value in environment.environment_of(stack).items() if not _is_ours(name)}
    print(f"Airflow: {variables['AIRFLOW__API__BASE_URL']} (ready in about half a minute; Ctrl-C ends it)")
    print(f"  user {airflow_env.UI_USER}, password {stack.credentials.get('airflow_ui_password')}", flush=True)
    # Before the start: a background job of a script ignores SIGINT, and the child would inherit that.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ending, signal.default_int_handler)
    # A group of its own: Ctrl-C reaches us alone, and we end the group in order.
    airflow = subprocess.Popen(
        [sys.executable, "-m", "airflow", "standalone"],
        # It starts its four components as plain `airflow`.
        env={**os.environ, **variables, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        cwd=environment.HOME,
        start_new_session=True,
    )
    try:
        airflow.wait()
    except KeyboardInterrupt:
        print("Stopping Airflow …", flush=True)
    end(airflow)


def _is_ours(name: str) -> bool:
    return name.startswith("DEV_") or name == "PV_BACKUP_JOURNAL_OWNER_DSN"


def end(airflow: subprocess.Popen[bytes]) -> None:
    """Ask politely, once, then make certain: a scheduler that lives on would go on starting backups."""
    processes = [psutil.Process(airflow.pid)] if airflow.poll() is None else []
    processes += [child for parent in processes for child in parent.children(recursive=True)]
    if processes:
        airflow.send_signal(signal.SIGINT)
    _, still_there = psutil.wait_procs(processes, timeout=20)
    for process in still_there:
        process.kill()
    psutil.wait_procs(still_there, timeout=10)
