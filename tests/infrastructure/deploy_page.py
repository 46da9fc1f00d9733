"""docs/deploy.md as its tests read it: its parts, its files, its settings, and a server on which it is followed."""

from __future__ import annotations

import os
import re
import shlex
from typing import Final

from dev.airflow_env import ROOT
from dev.servers.postgres import BIN_DIR, Postgres
from tests.support.pages import blocks, filled_in, paste

PAGE: Final = ROOT / "docs" / "deploy.md"
SOURCE, JOURNAL, AIRFLOW = "3. The source", "4. The journal, and Airflow's database", "7. Airflow"
FIRST_BACKUP: Final = "8. The first backup"
PASSWORD: Final = "of-the-superuser"
SHELL: Final = {"PATH": f"{BIN_DIR}:{os.environ['PATH']}", "LC_ALL": "C.UTF-8"}
AUTHORITIES: Final = "/etc/ssl/certs/ca-certificates.crt"
# Its name begins a paragraph, and below that is what is in it.
_FILE: Final = re.compile(r"^\*\*`(?:/etc/pv-backup/)?([\w-]+\.env)`\*\*.*\n(?:.+\n)*\n((?:    .*\n)+)", re.MULTILINE)


def follow(server: Postgres, heading: str, *, show: str) -> list[str]:
    """Follow a part on that server; what it leaves in these variables of the shell is returned."""
    superuser = {"PGHOST": "127.0.0.1", "PGPORT": str(server.port), "PGUSER": "postgres", "PGPASSWORD": PASSWORD}
    (block,) = blocks(PAGE)[heading]
    printed = paste(f"{filled_in(block, superuser)}\nprintenv {show}", SHELL)
    return printed.splitlines()[-len(show.split()) :]


def block_with(heading: str, words: str) -> str:
    """The one block of a part in which these words are."""
    (found,) = [block for block in blocks(PAGE)[heading] if words in block]
    return found


def part(heading: str) -> str:
    """All that stands below a heading."""
    return PAGE.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def environment_files() -> dict[str, str]:
    """The files of variables that the page has a reader write, by their names in /etc/pv-backup."""
    found = {name: re.sub("^    ", "", text, flags=re.MULTILINE) for name, text in _FILE.findall(PAGE.read_text())}
    assert "airflow.env" in found
    return found


def settings() -> dict[str, str]:
    """The variables of the page's environment files, as a shell reads them that sources the file."""
    words = [shlex.split(line) for text in environment_files().values() for line in text.splitlines()]
    assert {len(split) for split in words} == {1}, "a value with a blank is quoted"
    return dict(split[0].split("=", 1) for split in words)
