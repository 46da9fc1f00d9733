"""WAL shipping, in segments per second, against pgBackRest's asynchronous push and barman-cloud: (k) to (n)."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from dev.bench import archiver
from dev.bench.barman import Barman
from dev.bench.contest import Contender, Heat, alternate, console, median_wall, print_table
from dev.bench.measure import Measured, measure_command
from dev.bench.ours import print_start, run_stage
from dev.bench.pgbackrest import COMMAND, FASTEST, PgBackRest
from dev.bench.segments import SegmentSet, write_segments
from dev.bench.world import World
from pv_backup.services.progress import human_bytes

_ARCHIVER: list[str | Path] = [sys.executable, "-S", "-E", archiver.__file__]
_BARMAN_COMPRESSION = "lz4"


def measure_wal(world: World, *, barman: Barman, runs: int, segments: int) -> None:
    """Measure and print; everybody speaks TLS with S3, and finds the whole set waiting."""
    console.print(f"writing {segments} WAL segments")
    the_set = write_segments(world, segments)
    console.print(
        f"{human_bytes(the_set.size_bytes)} of WAL; zstd -1 makes {human_bytes(the_set.compressed_bytes())} of it",
        highlight=False,
    )

    def barman_cloud(heat: Heat) -> dict[str, Measured]:
        env = world.environment(heat.bucket, tls=True)
        with the_set.as_data_directory(world.home) as data:
            command = barman.archive(world, heat.bucket, "%p", compression=_BARMAN_COMPRESSION)
            measured = measure_command([*_ARCHIVER, data, *command], env=env, servers=world.servers)
        return {f"(m) barman-cloud-wal-archive {barman.version}, {_BARMAN_COMPRESSION}": measured}

    answers: list[dict[str, object]] = []

    def ours(heat: Heat) -> dict[str, Measured]:
        with the_set.as_spool(world.home) as spool:
            env = world.environment(heat.bucket, tls=True) | {"PV_BACKUP_WAL_DIRECTORY": str(spool)}
            answer = run_stage("dev.bench.wal_stage", env)
        answers.append(answer)
        return {"(n) this project, each read back and journaled": Measured(**answer["shipping"])}

    contenders: list[Contender] = [
        _pgbackrest(world, the_set, "(k) pgBackRest, process-max=2", {"process-max": "2"}),
        _pgbackrest(world, the_set, "(l) pgBackRest, process-max=4", {"process-max": "4"}),
        _pgbackrest(world, the_set, "(L) the same, zst level -5", {"process-max": "4", **FASTEST}),
        barman_cloud,
        ours,
    ]
    results = alternate(world, contenders, runs=runs)
    print_table(f"{segments} WAL segments, median of {runs}", results, segments=segments)
    print_start(answers, [runs.peak_rss for runs in results["(n) this project, each read back and journaled"]])
    walls = {letter: median_wall(results, letter) for letter in "klLmn"}
    rates = "   ".join(f"n/{letter} = {walls[letter] / walls['n']:.2f}" for letter in "klLm")
    console.print(f"segments per second: {rates}", highlight=False)


def _pgbackrest(world: World, the_set: SegmentSet, title: str, options: Mapping[str, str]) -> Contender:
    def run(heat: Heat) -> dict[str, Measured]:
        with the_set.as_data_directory(world.home) as data:
            repository = PgBackRest(
                world=world,
                home=world.home / heat.bucket,
                bucket=heat.bucket,
                data_directory=data,
                # It looks at the option even where nothing waits for the archive.
                options={"archive-async": "y", "archive-check": "y", **options},
            )
            repository.create_stanza()
            command = [*_ARCHIVER, data, *COMMAND, "archive-push", "%p"]
            return {title: measure_command(command, env=repository.environment, servers=world.servers)}

    return run
