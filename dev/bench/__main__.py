"""Measure on servers of its own, gone afterwards: WHAT=dump|basebackup|restore|wal|all SIZE_GB RUNS SEGMENTS."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from dev import guard
from dev.bench import dataset, tools
from dev.bench.barman import Barman
from dev.bench.basebackup import measure_basebackup
from dev.bench.contest import console
from dev.bench.dump import measure_dump
from dev.bench.restore import measure_restore
from dev.bench.wal import measure_wal
from dev.bench.world import DATABASE, World
from pv_backup.services.progress import human_bytes

_GIBIBYTE = 1024**3
_PARTS = ("dump", "basebackup", "restore", "wal")


def main() -> None:
    """Run the parts that were asked for, one after the other, on the same servers."""
    what = os.environ.get("WHAT", "all")
    parts = _PARTS if what == "all" else (what,)
    if not set(parts) <= set(_PARTS):
        sys.exit(f"WHAT is {what!r}, must be one of {', '.join(_PARTS)}, all")
    runs = int(os.environ.get("RUNS", "3"))
    tools.require(parts)
    # Nothing is left behind, however this ends.
    guard.start()
    home = Path(tempfile.mkdtemp(prefix="pv-backup-bench-"))
    guard.watch_path(home)
    home.chmod(0o711)
    world = World(home)
    try:
        world.start()
        if {"dump", "basebackup", "restore"} & set(parts):
            size = int(float(os.environ.get("SIZE_GB", "1")) * _GIBIBYTE)
            console.print(f"building a database of {human_bytes(size)}")
            dataset.build(world.source.postgres.dsn(DATABASE), size)
        if "dump" in parts:
            measure_dump(world, runs=runs)
        if {"basebackup", "wal"} & set(parts):
            barman = Barman(home)
        if "basebackup" in parts:
            measure_basebackup(world, barman=barman, runs=runs)
        if "restore" in parts:
            measure_restore(world, runs=runs)
        if "wal" in parts:
            measure_wal(world, barman=barman, runs=runs, segments=int(os.environ.get("SEGMENTS", "200")))
    finally:
        world.stop()
        shutil.rmtree(home)
        guard.finish()


if __name__ == "__main__":
    main()
