"""What somebody before a terminal sees besides the output: lines of the log, and how far each stream is."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich import progress as rich
from rich.console import Console
from rich.logging import RichHandler

from pv_backup.services.progress import Progress, Ticker, watcher

_UPDATE_EVERY_S = 0.2


_console = Console(stderr=True)


def use_standard_error() -> None:
    """From here on, tell there what happens, on a terminal with a bar for each stream; standard output is data."""
    handler: logging.Handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    if sys.stderr.isatty():
        watcher.set(_bar)
        # Lines that went past the bar would tear it apart.
        handler = RichHandler(console=_console, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


@contextmanager
def _bar(progress: Progress) -> Iterator[None]:
    columns = (
        rich.TextColumn("{task.description}"),
        rich.BarColumn(),
        rich.TaskProgressColumn(),
        rich.DownloadColumn(binary_units=True),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
    )
    with rich.Progress(*columns, console=_console) as shown:
        task = shown.add_task(progress.label, total=progress.total_bytes or None)

        def update() -> None:
            shown.update(task, completed=progress.read_bytes, description=progress.label)

        with Ticker(every_s=_UPDATE_EVERY_S, action=update, name="progress bar"):
            yield
        update()
