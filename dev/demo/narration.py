"""Runs real DAGs and tells what happens: of all that Airflow says, the lines that tell the story."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from rich.console import Console
from rich.markup import escape

from dev.airflow_env import ROOT
from dev.demo.airflow_process import ENDED

console = Console(soft_wrap=True, highlight=False)

# Airflow's console log: time, level, message, logger, source line.
_TASK_STARTS = re.compile(r"running task <TaskInstance: \w+\.(?P<name>\w+) ")
_OUR_LINE = re.compile(
    r"\S+T(?P<time>[\d:]{8})\S+ \[\w+\s*\] (?P<said>.*) \[(?:airflow\.task\.operators\.)?pv_backup\."
)


class DagFailedError(RuntimeError):
    """A DAG of the demonstration did not succeed; the message names the log."""


class NarratedAirflow:
    """An Airflow for several runs, a context that ends it.

    :param log: gets everything that it says.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._process = subprocess.Popen(
            [sys.executable, "-m", "dev.demo.airflow_process"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._lines = log.open("w")

    def run(self, dag_id: str) -> None:
        """Run a DAG, its tasks' own lines on the screen.

        :raises DagFailedError: when it does not succeed.
        """
        console.print(f"\nrunning the DAG [bold]{dag_id}[/bold]")
        asked, said = self._pipes
        # One that died already says why in its last lines.
        with contextlib.suppress(BrokenPipeError):
            print(dag_id, file=asked, flush=True)
        for line in map(str.rstrip, said):
            print(line, file=self._lines, flush=True)
            if line.startswith(ENDED):
                if line == f"{ENDED} 0":
                    return
                break
            if story := _for_the_screen(line):
                console.print(story)
        raise DagFailedError(f"the DAG {dag_id} failed: read {self._log.relative_to(ROOT)}")

    @property
    def _pipes(self) -> tuple[IO[str], IO[str]]:
        asked, said = self._process.stdin, self._process.stdout
        assert asked is not None
        assert said is not None
        return asked, said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._process.communicate()
        self._lines.close()


def _for_the_screen(line: str) -> str | None:
    """A task that starts, and what this system's code says."""
    if task := _TASK_STARTS.search(line):
        return f"[bold]{task['name']}[/bold]"
    if ours := _OUR_LINE.match(line):
        return f"  {ours['time']}  {escape(ours['said'])}"
    return None
