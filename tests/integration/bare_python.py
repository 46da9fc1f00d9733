"""Which modules a machine does not have on which only some packages were installed."""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_INSTALL = re.compile(r"pip install ([^#\n]+)")


def packages_named(page: str) -> list[str]:
    """What a page tells to install, all of its places together."""
    return [word for line in _INSTALL.findall(page) for word in line.split() if not word.startswith("-")]


def modules_beyond(packages: list[str]) -> set[str]:
    """The top-level modules that are here and would not be there."""
    wanted, seen = [Requirement(package) for package in packages], set[tuple[str, frozenset[str]]]()
    while wanted:
        requirement = wanted.pop()
        key = (canonicalize_name(requirement.name), frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            needed = map(Requirement, requires(requirement.name) or [])
        except PackageNotFoundError:
            continue
        extras = requirement.extras or {""}
        wanted += [
            each for each in needed if not each.marker or any(each.marker.evaluate({"extra": name}) for name in extras)
        ]
    there = {name for name, _ in seen}
    return {
        module
        for module, distributions in packages_distributions().items()
        if not there & set(map(canonicalize_name, distributions))
    } - {"pv_backup"}
