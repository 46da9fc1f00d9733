"""The stack's passwords and keys: drawn at random on first use, then the same for as long as the stack's data lives."""

from __future__ import annotations

import json
import os
import secrets
import threading
from pathlib import Path


class Credentials:
    """A small file of named secrets, mode 0600, in a directory closed to others.

    :param directory: made with mode 0700 when missing.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        self._path = directory / "credentials.json"
        # The servers are started by threads, in parallel, and draw their secrets here.
        self._lock = threading.RLock()
        self._known: dict[str, str] = json.loads(self._path.read_text()) if self._path.exists() else {}

    def get(self, name: str, *, nbytes: int = 24) -> str:
        """The secret of this name, drawn now when it is new; letters, digits, - and _ only, so it needs no quoting."""
        with self._lock:
            if name not in self._known:
                self.put(name, secrets.token_urlsafe(nbytes))
            return self._known[name]

    def find(self, name: str) -> str | None:
        """A secret that only a server can draw, if :meth:`put` kept one."""
        return self._known.get(name)

    def put(self, name: str, value: str) -> None:
        """Keep a secret; written whole and renamed, so that a kill leaves the old file or the new one."""
        with self._lock:
            self._known[name] = value
            draft = self._path.with_suffix(".new")
            with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                json.dump(self._known, file, indent=1)
            draft.replace(self._path)
