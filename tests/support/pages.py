"""The commands of a page of docs/, run as they stand there: what a reader pastes is what was tested."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

from dev.airflow_env import ROOT

_PATIENCE_S = 300
_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_ASSIGNED = re.compile(r"\b([A-Z][A-Z0-9_]*)=(\S+)")


def blocks(page: Path) -> dict[str, list[str]]:
    """The page's executable blocks by their headings."""
    parts = re.split(r"^## (.*)$", page.read_text(), flags=re.MULTILINE)[1:]
    return {
        heading: found for heading, text in zip(parts[::2], parts[1::2], strict=True) if (found := _BLOCK.findall(text))
    }


def filled_in(text: str, values: dict[str, str]) -> str:
    """A block with somebody's values in its exports, and nothing else of it changed; each `…` must get one."""

    def value(found: re.Match[str]) -> str:
        return f"{found[1]}={shlex.quote(values[found[1]])}" if found[1] in values else found[0]

    lines = [_ASSIGNED.sub(value, line) if line.startswith("export ") else line for line in text.splitlines()]
    filled = "\n".join(lines)
    assert "…" not in filled, f"no value for all of this:\n{filled}"
    return filled


def paste(text: str, environment: dict[str, str], *, patience_s: float = _PATIENCE_S) -> str:
    """What it prints, run in one shell in the clone; it must not fail anywhere."""
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=patience_s,
        check=False,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    return done.stdout
