"""Makes what everything else stands on: PostgreSQL 15 from apt and ``.venv`` from the lock files.

Runs on the machine's own Python 3.11, before anything is installed, so it imports the standard library only. When all
is there it does nothing, in a few milliseconds. What it may not install it names, with the command that does.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
VENV = ROOT / ".venv"
LOCKS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]
STAMP = VENV / ".synced"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Debian package, and the file that shows that it is there.
POSTGRESQL = ("postgresql-15", Path("/usr/lib/postgresql/15/bin/postgres"))


def main() -> None:
    """Check, install what is missing, and say so; an ordinary user without sudo is told what to run."""
    if sys.version_info[:2] != (3, 11):
        found = sys.version.split()[0]
        sys.exit(f"Python 3.11 is needed, this is {found}. Run: apt-get install python3.11 (or: make PYTHON=…)")
    package, proof = POSTGRESQL
    if not proof.exists():
        _apt_install(package, why="the PostgreSQL 15 server and clients")
    _sync_venv()


def _sync_venv() -> None:
    wanted = hashlib.sha3_256(b"".join(lock.read_bytes() for lock in LOCKS)).hexdigest()
    if STAMP.exists() and STAMP.read_text() == wanted:
        return
    if not (VENV / "bin" / "python").exists():
        if importlib.util.find_spec("ensurepip") is None:
            _apt_install("python3.11-venv", why="the module that makes virtual environments")
        print("Making .venv …", flush=True)
        shutil.rmtree(VENV, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(VENV)])
    uv = re.search(r"^uv==\S+", LOCKS[1].read_text(), re.MULTILINE)
    if uv is None:
        sys.exit(f"{LOCKS[1].name} does not name uv. Run: make lock")
    print("Installing the locked packages into .venv (a minute or two the first time) …", flush=True)
    if not (VENV / "bin" / "uv").exists():
        _run([str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", uv.group()])
    # Where PYTHONDONTWRITEBYTECODE is set, as in many CI images, each start of Airflow would compile for 10 s.
    sync = [str(VENV / "bin" / "uv"), "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
    # The machine's own certificates, where it has any: a company's mirror of PyPI is often signed by its own authority.
    trust = ["--system-certs"] if SYSTEM_CERTIFICATES.exists() else []
    _run([*sync, *trust, *map(str, LOCKS)])
    STAMP.write_text(wanted)


def _apt_install(package: str, *, why: str) -> None:
    command = ["apt-get", "install", "--yes", "--no-install-recommends", package]
    plainly = f"{package} is missing ({why}). Run as root: apt-get update && {' '.join(command)}"
    if shutil.which("apt-get") is None:
        sys.exit(f"{package} is missing ({why}), and this machine has no apt-get; install it by hand.")
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0:
            sys.exit(plainly)
        prefix = ["sudo", "-n"]
    print(f"Installing {package}: {why} …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        if subprocess.run([*prefix, *step], check=False, env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"`{' '.join(step)}` failed. {plainly}")


def _run(command: list[str]) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": str(VENV), "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy")}
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed; its messages are above.")


if __name__ == "__main__":
    main()
