"""Makes what everything else stands on: servers from apt, ``.venv`` and ``.venv-tools`` from the lock files.

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
# Programs that are only started, and whose own requirements would hold back the project's.
TOOLS = ROOT / ".venv-tools"
LOCKS = {
    VENV: [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"],
    TOOLS: [ROOT / "requirements-tools.txt"],
}
UV = VENV / "bin" / "uv"
SYSTEM_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Debian package, the file that shows that it is there, and what it is for.
PACKAGES = [
    ("postgresql-15", Path("/usr/lib/postgresql/15/bin/postgres"), "the PostgreSQL 15 server and clients"),
    ("redis-server", Path("/usr/bin/redis-server"), "the broker of the Celery workers that tests start"),
    ("curl", Path("/usr/bin/curl"), "what the programs of the receiver's host ask Vault and S3 by"),
    ("jq", Path("/usr/bin/jq"), "what they read the answers by"),
    ("shellcheck", Path("/usr/bin/shellcheck"), "the linter of those programs"),
    ("mmdebstrap", Path("/usr/bin/mmdebstrap"), "the throw-away Debian into which a test runs the Ansible role"),
]


def main() -> None:
    """Check, install what is missing, and say so; an ordinary user without sudo is told what to run."""
    if sys.version_info[:2] != (3, 11):
        found = sys.version.split()[0]
        sys.exit(f"Python 3.11 is needed, this is {found}. Run: apt-get install python3.11 (or: make PYTHON=…)")
    missing = {package: why for package, proof, why in PACKAGES if not proof.exists()}
    if missing:
        _apt_install(missing)
    for venv, locks in LOCKS.items():
        _sync_venv(venv, locks)


def _sync_venv(venv: Path, locks: list[Path]) -> None:
    wanted = hashlib.sha3_256(b"".join(lock.read_bytes() for lock in locks)).hexdigest()
    stamp = venv / ".synced"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not (venv / "bin" / "python").exists():
        if importlib.util.find_spec("ensurepip") is None:
            _apt_install({"python3.11-venv": "the module that makes virtual environments"})
        print(f"Making {venv.name} …", flush=True)
        shutil.rmtree(venv, ignore_errors=True)
        _run([sys.executable, "-m", "venv", str(venv)], venv)
    print(f"Installing the locked packages into {venv.name} (a minute or two the first time) …", flush=True)
    if not UV.exists():
        _install_uv()
    # Where PYTHONDONTWRITEBYTECODE is set, as in many CI images, each start of Airflow would compile for 10 s.
    sync = [str(UV), "pip", "sync", "--quiet", "--require-hashes", "--compile-bytecode"]
    # The machine's own certificates, where it has any: a company's mirror of PyPI is often signed by its own authority.
    trust = ["--system-certs"] if SYSTEM_CERTIFICATES.exists() else []
    _run([*sync, *trust, *map(str, locks)], venv)
    stamp.write_text(wanted)


def _install_uv() -> None:
    lock = ROOT / "requirements-dev.txt"
    uv = re.search(r"^uv==\S+", lock.read_text(), re.MULTILINE)
    if uv is None:
        sys.exit(f"{lock.name} does not name uv. Run: make lock")
    _run([str(VENV / "bin" / "python"), "-m", "pip", "install", "--quiet", uv.group()], VENV)


def _apt_install(packages: dict[str, str]) -> None:
    """Install Debian packages, each with what it is for."""
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    wanted = "; ".join(f"{package}, {why}" for package, why in packages.items())
    plainly = f"Missing: {wanted}. Run as root: apt-get update && {' '.join(command)}"
    if shutil.which("apt-get") is None:
        sys.exit(f"Missing: {wanted}. This machine has no apt-get; install them by hand.")
    prefix: list[str] = []
    if os.geteuid() != 0:
        if shutil.which("sudo") is None or subprocess.run(["sudo", "-n", "true"], capture_output=True).returncode != 0:
            sys.exit(plainly)
        prefix = ["sudo", "-n"]
    print(f"Installing {wanted} …", flush=True)
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update"], command):
        if subprocess.run([*prefix, *step], check=False, env=environment, stdout=subprocess.DEVNULL).returncode != 0:
            sys.exit(f"`{' '.join(step)}` failed. {plainly}")


def _run(command: list[str], venv: Path) -> None:
    environment = {**os.environ, "VIRTUAL_ENV": str(venv), "UV_LINK_MODE": os.environ.get("UV_LINK_MODE", "copy")}
    if subprocess.run(command, check=False, env=environment).returncode != 0:
        sys.exit(f"`{' '.join(command)}` failed; its messages are above.")


if __name__ == "__main__":
    main()
