"""The base backup against what a user would script, pgBackRest and barman-cloud: (e) to (i)."""

from __future__ import annotations

from collections.abc import Mapping

from dev.bench.barman import Barman
from dev.bench.contest import Contender, Heat, alternate, console, median_wall, print_table
from dev.bench.measure import Measured, measure_command, measure_shell
from dev.bench.ours import Ours
from dev.bench.pgbackrest import COMMAND, FASTEST, PgBackRest
from dev.bench.tools import upload_script
from dev.bench.world import World, age_recipient
from pv_backup.services.artefacts import ArtefactType

_BASEBACKUP = "/usr/lib/postgresql/15/bin/pg_basebackup -D - -Ft -X fetch --checkpoint=fast --compress=client-zstd"


def measure_basebackup(world: World, *, barman: Barman, runs: int) -> None:
    """Measure and print; everybody speaks TLS with S3."""
    recipient = age_recipient()

    def scripted(heat: Heat) -> dict[str, Measured]:
        env = world.environment(heat.bucket, tls=True)
        script = f"{_BASEBACKUP} | age -r {recipient} | {upload_script(env)}"
        return {"(e) pg_basebackup | age | aws s3 cp": measure_shell(script, env=env, servers=world.servers)}

    def barman_cloud(letter: str, compression: str) -> Contender:
        def run(heat: Heat) -> dict[str, Measured]:
            env = world.environment(heat.bucket, tls=True) | world.as_superuser()
            command = barman.backup(world, heat.bucket, compression=compression)
            measured = measure_command(command, env=env, servers=world.servers)
            return {f"({letter}) barman-cloud-backup {barman.version}, {compression}": measured}

        return run

    ours = Ours(
        world, artefact_type=ArtefactType.BASEBACKUP, tls=True, titles=("(h) this project", "(i) its verification")
    )
    contenders: list[Contender] = [
        scripted,
        _pgbackrest(world, "(f) pgBackRest, its defaults", {}),
        _pgbackrest(world, "(F) pgBackRest, tuned: bundles, zst level -5", {"repo1-bundle": "y", **FASTEST}),
        # Which of the two is faster depends on the machine; its zstd, since 3.20, is slower than both.
        barman_cloud("g", "lz4"),
        barman_cloud("G", "snappy"),
        ours.run,
    ]
    results = alternate(world, contenders, runs=runs)
    print_table(f"Base backup, median of {runs}", results)
    ours.print_start()
    walls = {letter: median_wall(results, letter) for letter in "efFgGh"}
    console.print("   ".join(f"h/{letter} = {walls['h'] / walls[letter]:.2f}" for letter in "efFgG"), highlight=False)


def _pgbackrest(world: World, title: str, options: Mapping[str, str]) -> Contender:
    def run(heat: Heat) -> dict[str, Measured]:
        repository = PgBackRest(
            world=world,
            home=world.home / heat.bucket,
            bucket=heat.bucket,
            data_directory=world.source.postgres.data_directory.resolve(),
            options={"process-max": "2", "start-fast": "y", **options},
        )
        repository.create_stanza()
        command = [*COMMAND, "--type=full", "backup"]
        return {title: measure_command(command, env=repository.environment, servers=world.servers)}

    return run
