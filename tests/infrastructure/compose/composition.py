"""docker-compose.yaml and the file that it includes, as Compose would see them: one model, every variable filled in."""

from __future__ import annotations

import json
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[3]
MAIN = ROOT / "docker-compose.yaml"
SERVERS = ROOT / "deploy" / "compose" / "servers.yaml"
SECRETS_SH = ROOT / "deploy" / "compose" / "secrets.sh"
_VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)(?::\?([^}]*))?\}")

Service = dict[str, Any]


def raw(path: Path) -> dict[str, Any]:
    """One file as YAML has it, variables and all."""
    model: dict[str, Any] = yaml.safe_load(path.read_text())
    return model


@cache
def services() -> dict[str, Service]:
    """Every service of both files, before variables are filled in; a name that stands twice would be an error."""
    main, servers = raw(MAIN)["services"], raw(SERVERS)["services"]
    assert not set(main) & set(servers)
    return main | servers


def variables(value: Any) -> dict[str, str | None]:
    """The variables that a part of the model asks for, each with what Compose says when it is missing."""
    return {found[1]: found[2] for found in _VARIABLE.finditer(json.dumps(value))}


def filled(value: Any, known: dict[str, str]) -> Any:
    """A part of the model as the container gets it.

    :raises KeyError: for a variable that nobody set.
    """
    if isinstance(value, dict):
        return {key: filled(item, known) for key, item in value.items()}
    if isinstance(value, list):
        return [filled(item, known) for item in value]
    if isinstance(value, str):
        return _VARIABLE.sub(lambda found: known[found[1]], value).replace("$$", "$")
    return value


def drawn_secrets(file: Path) -> dict[str, str]:
    """Run the script that draws secrets, and read its file as Compose does: everything after the first ``=``."""
    subprocess.run([SECRETS_SH, file], check=True)
    return dict(line.split("=", 1) for line in file.read_text().splitlines())


def command_of(service: Service) -> list[str]:
    """What the container runs, its entrypoint before its command."""
    return [*service.get("entrypoint", []), *service.get("command", [])]


def text_of_check(service: Service) -> str:
    """The healthcheck as one line of shell."""
    kind, *words = service["healthcheck"]["test"]
    assert kind in {"CMD", "CMD-SHELL"}
    return str(words[0]) if kind == "CMD-SHELL" else " ".join(f"'{word}'" for word in words)
