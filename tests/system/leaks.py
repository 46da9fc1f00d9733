"""Look for secrets, and for the dump itself, in everything that a run left or showed."""

from __future__ import annotations

import base64
import contextlib
import json
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import zstandard

from dev.provisioning.keys import TRANSIT_KEY
from dev.servers.postgres import BIN_DIR
from tests.system.airflow_world import AirflowWorld

ZSTD_MAGIC = bytes.fromhex("28b52ffd")
_SAMPLE_S = 0.01


class CommandLines:
    """Every command line that any process of this machine showed while the context was open.

    PostgreSQL's tools can be over before anybody looks at the process list; a run that finds them in ``tools`` has
    each write its arguments down before it does its work.

    :param home: a directory of its own, outside whatever is searched for leaks.
    :ivar tools: what PV_BACKUP_PG_BIN_DIR of the run is to be.
    """

    def __init__(self, home: Path) -> None:
        self.tools = home / "tools"
        self._recorded = home / "recorded"
        self._seen: set[bytes] = set()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._write_recorders()

    @property
    def found(self) -> set[bytes]:
        """As whole command lines, and of what was recorded each argument by itself."""
        return self._seen | set(self._recorded.read_bytes().split(b"\0"))

    def _write_recorders(self) -> None:
        self._recorded.touch()
        self.tools.mkdir()
        for program in BIN_DIR.iterdir():
            recorder = self.tools / program.name
            recorder.write_text(f'#!/bin/sh\nprintf "%s\\0" "$0" "$@" >>"{self._recorded}"\nexec {program} "$@"\n')
            recorder.chmod(0o755)

    def _run(self) -> None:
        while not self._closed.is_set():
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):  # ended meanwhile
                    self._seen.add(path.read_bytes())
            time.sleep(_SAMPLE_S)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._closed.set()
        self._thread.join()


def secrets_of(world: AirflowWorld) -> dict[str, bytes]:
    """The secrets of a world and of its artefacts; each was drawn at random, so that a single hit is a leak."""
    connections = {
        name: json.loads(world.env[f"AIRFLOW_CONN_PV_BACKUP_{name}"])["password"].encode()
        for name in ("SOURCE", "JOURNAL", "VAULT", "S3")
    }
    artefacts = world.sql("SELECT object_key, wrapped_dek FROM pv_backup.backup_executions WHERE wrapped_dek <> ''")
    assert artefacts, "no artefact, no DEK to look for"
    return connections | {f"DEK of {row['object_key']}": _unwrapped(world, row["wrapped_dek"]) for row in artefacts}


def _unwrapped(world: AirflowWorld, wrapped_dek: str) -> bytes:
    transit = world.stack.vault.client(world.stack.backup_token).secrets.transit
    answer = transit.decrypt_data(name=TRANSIT_KEY, ciphertext=wrapped_dek)
    return base64.b64decode(answer["data"]["plaintext"])


def forms_of(secret: bytes) -> set[bytes]:
    """A secret as it may show up: raw, in hexadecimal, in base64 at each of the three alignments."""
    forms = {secret, secret.hex().encode(), secret.hex().upper().encode()}
    for shift in range(3):
        # Whole groups of three bytes keep their letters whatever stands before and after.
        inner = secret[shift : shift + (len(secret) - shift) // 3 * 3]
        forms |= {base64.b64encode(inner), base64.urlsafe_b64encode(inner)}
    return forms


def found_in(data: bytes, secret: bytes) -> bool:
    """Whether data holds the secret in any of its forms, also inside a zstd stream."""
    forms = forms_of(secret)
    return any(form in text for text in [data, *_decompressed(data)] for form in forms)


def files_with(folder: Path, secret: bytes) -> list[Path]:
    """The files below a folder that hold the secret."""
    files = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return [path for path in files if found_in(path.read_bytes(), secret)]


def any_with(texts: Iterable[bytes], secret: bytes) -> list[bytes]:
    """The texts that hold the secret."""
    return [text for text in texts if found_in(text, secret)]


def whole_database(dsn: str) -> bytes:
    """Everything in a database, in plain text."""
    return subprocess.run([BIN_DIR / "pg_dump", "-d", dsn], check=True, capture_output=True).stdout


def _decompressed(data: bytes) -> Iterator[bytes]:
    at = data.find(ZSTD_MAGIC)
    while at >= 0:
        with contextlib.suppress(zstandard.ZstdError):
            yield zstandard.ZstdDecompressor().decompressobj().decompress(data[at:])
        at = data.find(ZSTD_MAGIC, at + 1)
