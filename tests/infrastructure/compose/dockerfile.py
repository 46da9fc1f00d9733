"""The Dockerfile as a list of stages, and what an image of a stage has."""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from functools import cache

from tests.infrastructure.compose.composition import ROOT

PATH = ROOT / "Dockerfile"


@dataclass
class Stage:
    """One stage: the image that it begins with, and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """What follows each instruction of that kind, the base stage's first when it is one of ours."""
        inherited = stages()[self.base].all(keyword) if self.base in stages() else []
        return inherited + [rest for kind, rest in self.instructions if kind == keyword]

    @property
    def environment(self) -> dict[str, str]:
        """Every variable of ENV, later ones instead of earlier."""
        return dict(word.split("=", 1) for rest in self.all("ENV") for word in shlex.split(rest))

    @property
    def entrypoint(self) -> list[str]:
        """The last ENTRYPOINT."""
        words: list[str] = json.loads(self.all("ENTRYPOINT")[-1])
        return words

    @property
    def user(self) -> str:
        """The last USER."""
        return self.all("USER")[-1]

    @property
    def packages(self) -> dict[str, str]:
        """What apt installs, each with the version that it is held to."""
        asked = re.findall(r"apt-get install ([^&]*)", " ".join(self.all("RUN")))
        words = [word for command in asked for word in command.split() if word[0] not in "-$"]
        return dict(word.split("=", 1) if "=" in word else (word, "") for word in words)


@cache
def stages() -> dict[str, Stage]:
    """Every stage by its name."""
    text = re.sub(r"^\s*#.*\n", "", PATH.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        keyword, rest = line.split(None, 1)
        if keyword == "FROM":
            base, _, name = rest.partition(" AS ")
            current = found[name] = Stage(name, base)
        else:
            current.instructions.append((keyword, " ".join(rest.split())))
    return found
