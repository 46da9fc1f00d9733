"""This project's export stage and its verification as a contender."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from typing import Any

from dev.bench.contest import Heat, console
from dev.bench.measure import Measured
from dev.bench.world import World
from pv_backup.services.artefacts import ArtefactType
from pv_backup.services.progress import human_bytes


class Ours:
    """Runs :mod:`dev.bench.stage` as a child, whose start-up is told apart from the work.

    :param titles: of the export's row and of the verification's.
    """

    def __init__(self, world: World, *, artefact_type: ArtefactType, tls: bool, titles: tuple[str, str]) -> None:
        self._world = world
        self._type = artefact_type
        self._tls = tls
        self._titles = titles
        self._answers: list[dict[str, Any]] = []

    def run(self, heat: Heat) -> dict[str, Measured]:
        """Export and verify once."""
        env = self._world.environment(heat.bucket, tls=self._tls)
        answer = run_stage("dev.bench.stage", env | {"BENCH_RUN": str(heat.number), "BENCH_TYPE": self._type.value})
        self._answers.append(answer)
        export, verification = self._titles
        return {export: Measured(**answer["export"]), verification: Measured(**answer["verification"])}

    def print_start(self) -> None:
        """Print what the process cost before it began, and what the work added to its memory."""
        print_start(self._answers, [answer["export"]["peak_rss"] for answer in self._answers])


def run_stage(module: str, env: dict[str, str]) -> dict[str, Any]:
    """Run one of our stages as a process; the JSON line that it prints last."""
    env = env | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-m", module], env=env, stdout=subprocess.PIPE, check=True)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def print_start(answers: list[dict[str, Any]], peaks: list[int]) -> None:
    """One line about the process in which our work runs."""
    added = [peak - answer["idle_rss"] for peak, answer in zip(peaks, answers, strict=True)]
    console.print(
        f"a task's process was ready after {statistics.median(answer['ready_s'] for answer in answers):.1f} s with "
        f"{human_bytes(statistics.median(answer['idle_rss'] for answer in answers))}; "
        f"the work and the programs that it starts added at most {human_bytes(max(added))}",
        highlight=False,
    )
