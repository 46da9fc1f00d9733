"""Let contenders take turns, so that a busy minute of the machine meets all of them, and print the medians."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from dev.bench.measure import Measured
from dev.bench.world import World
from pv_backup.services.progress import human_bytes

# A table that goes to a file has no terminal whose width it could take.
_TABLE_WIDTH = 140

console = Console(width=max(Console().width, _TABLE_WIDTH))


@dataclass(frozen=True)
class Heat:
    """One run of one contender: its number, from 0, and a bucket of its own."""

    number: int
    bucket: str


# What a contender measured, by the title of its row; the first row is the one that stored something.
Contender = Callable[[Heat], dict[str, Measured]]
Results = dict[str, list[Measured]]


def alternate(world: World, contenders: Sequence[Contender], *, runs: int) -> Results:
    """Run each contender in turn, `runs` times over."""
    results: Results = {}
    for number in range(runs):
        for contender in contenders:
            with world.bucket() as bucket:
                rows = contender(Heat(number, bucket))
                storing = next(iter(rows))
                rows[storing] = replace(rows[storing], stored_bytes=world.stored_bytes(bucket))
            for title, measured in rows.items():
                results.setdefault(title, []).append(measured)
                console.print(f"run {number + 1} {title}: {measured.wall_s:.2f} s", highlight=False)
    return results


def median(runs: Sequence[Measured], value: Callable[[Measured], float]) -> float:
    """The median of one figure over the runs of one contender."""
    return statistics.median(value(run) for run in runs)


def median_wall(results: Results, letter: str) -> float:
    """Median seconds of the contender whose title begins with this letter in brackets."""
    (runs,) = (runs for title, runs in results.items() if title.startswith(f"({letter})"))
    return median(runs, lambda run: run.wall_s)


def print_table(title: str, results: Results, *, segments: int | None = None) -> None:
    """Print the medians; with `segments`, how many each contender shipped a second."""
    names = list(next(iter(results.values()))[0].cpu_s)
    rate = ["segments/s"] if segments else []
    table = Table(title=title, title_justify="left")
    for column in ("contender", *rate, "wall s", *(f"CPU s {name}" for name in names), "peak memory", "stored"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    for contender, runs in results.items():
        wall = median(runs, lambda run: run.wall_s)
        stored = median(runs, lambda run: run.stored_bytes)
        table.add_row(
            contender,
            *([f"{segments / wall:.1f}"] if segments else []),
            f"{wall:.2f}",
            *(f"{median(runs, lambda run, name=name: run.cpu_s[name]):.1f}" for name in names),
            human_bytes(median(runs, lambda run: run.peak_rss)),
            human_bytes(stored) if stored else "–",
        )
    console.print(table)
