"""The dump against what a user would script: (a) to (d)."""

from __future__ import annotations

from dev.bench.contest import Heat, alternate, console, median_wall, print_table
from dev.bench.measure import Measured, measure_shell
from dev.bench.ours import Ours
from dev.bench.tools import upload_script
from dev.bench.world import World, age_recipient
from pv_backup.services.artefacts import ArtefactType

_DUMP = "/usr/lib/postgresql/15/bin/pg_dump -Fc -Z0"


def measure_dump(world: World, *, runs: int) -> None:
    """Measure and print; S3 in plain HTTP, as in the numbers of docs/measured.md."""
    recipient = age_recipient()

    def floor(heat: Heat) -> dict[str, Measured]:
        env = world.environment(heat.bucket, tls=False)
        script = f"{_DUMP} | zstd -q -3 > /dev/null"
        return {"(a) pg_dump | zstd -3 > /dev/null": measure_shell(script, env=env, servers=world.servers)}

    def scripted(heat: Heat) -> dict[str, Measured]:
        env = world.environment(heat.bucket, tls=False)
        script = f"{_DUMP} | zstd -q -3 | age -r {recipient} | {upload_script(env)}"
        return {"(b) … | age | aws s3 cp": measure_shell(script, env=env, servers=world.servers)}

    ours = Ours(
        world, artefact_type=ArtefactType.PG_DUMP, tls=False, titles=("(c) this project", "(d) its verification")
    )
    with world.bucket() as bucket:
        floor(Heat(0, bucket))  # fills the caches
    results = alternate(world, [floor, scripted, ours.run], runs=runs)
    print_table(f"Dump, median of {runs}", results)
    ours.print_start()
    walls = {letter: median_wall(results, letter) for letter in "abc"}
    console.print(f"c/a = {walls['c'] / walls['a']:.2f}   c/b = {walls['c'] / walls['b']:.2f}", highlight=False)
