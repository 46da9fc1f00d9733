"""The excerpt: made from the packages that are pinned here, for the resources that terraform/ names."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from dev.provider_schemas.bindings import Bindings

HERE = Path(__file__).parent
PACKAGES = HERE / "packages.txt"
EXCERPT = HERE / "excerpt.json"
TERRAFORM = HERE.parents[1] / "terraform"

_USED = re.compile(r'^(resource|data) "(\w+)"', re.MULTILINE)
_PINNED = re.compile(r"^(?P<package>[\w-]+)==(?P<version>\S+) --hash=(?P<hash>\S+)$", re.MULTILINE)


def used() -> set[tuple[str, str]]:
    """(`resource` or `data`, type) of all that terraform/ has."""
    return {found for file in TERRAFORM.rglob("*.tf") for found in _USED.findall(file.read_text())}


def generate() -> dict[str, Any]:
    """Download the packages, each checked against its hash, and take out what is used.

    :raises LookupError: naming what no package describes.
    """
    wanted = used()
    found: dict[str, dict[str, Any]] = {"data": {}, "resource": {}}
    packages = []
    for pinned in _PINNED.finditer(PACKAGES.read_text()):
        with tempfile.TemporaryDirectory() as directory:
            described = set()
            for kind, name, provider, schema in Bindings.of_wheel(_download(pinned, Path(directory))).schemas(wanted):
                found[kind][name] = schema
                described.add(provider)
        packages.append(pinned.groupdict() | {"describes": sorted(described)})
    if missing := {f"{kind} {name}" for kind, name in wanted if name not in found[kind]}:
        raise LookupError(f"described by none of the packages in {PACKAGES.name}: {', '.join(sorted(missing))}")
    return {"packages": packages, **found}


def as_text(excerpt: dict[str, Any]) -> str:
    """As the file holds it, so that two can be compared by eye and by diff."""
    return json.dumps(excerpt, indent=1, sort_keys=True) + "\n"


def _download(pinned: re.Match[str], directory: Path) -> Path:
    requirement = directory / "package.txt"
    requirement.write_text(pinned.group())
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    subprocess.run([*pip, "--dest", str(directory), "--requirement", str(requirement)], check=True)
    (wheel,) = directory.glob("*.whl")
    return wheel
