"""The containers of docker-compose.yaml as processes: the same commands, files and variables, on loopback.

No engine is asked. What a container would have is put in place by name: ``vault:8200`` becomes a port of ours, a
mounted file a copy in which that is done too, a named volume a directory.
"""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

from dev import guard
from dev.ports import free_ports
from dev.processes import Daemon
from dev.servers import seaweedfs
from dev.servers.openbao import BINARY as BAO
from dev.servers.postgres import BIN_DIR, Postgres
from tests.infrastructure.compose import composition
from tests.infrastructure.compose.composition import ROOT, Service
from tests.infrastructure.compose.dockerfile import stages

PORTS = {
    "vault": 8200,
    "vault-cluster": 8201,
    "s3": 8333,
    "source": 5432,
    "database": 5432,
    "broker": 6379,
    "mail": 1025,
}
# SeaweedFS's own ports, which in a container are fixed; the S3 port is one of them.
_WEED = {name: name for name in seaweedfs.PORT_NAMES}
_PROGRAMS = ":".join(map(str, (sysconfig.get_path("scripts"), BAO.parent, BIN_DIR)))


class Machine:
    """One Compose project on this machine, in a directory of its own.

    :param home: a directory that PostgreSQL's user may pass through.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.secrets = composition.drawn_secrets(home / ".env")
        self.ports = free_ports([*PORTS, *_WEED])
        self.ports["s3"] = self.ports["s3.port"]
        self.daemons: dict[str, Daemon] = {}
        self.airflow_home = self._copied_image(home / "opt-airflow")
        self.postgres = {name: self._postgres(name) for name in ("source", "database")}

    def start(self, name: str, *arguments: str) -> Daemon:
        """Start a long-running service by its own command, and wait until its own healthcheck says that it is well.

        :param arguments: added to the command.
        """
        directory = self.home / f"{name}-process"
        directory.mkdir(exist_ok=True)
        daemon = self.daemons[name] = Daemon(name=name, home=directory)
        daemon.start([*self.command(name), *arguments], env=self.environment(name))
        daemon.wait_until(lambda: self.check(name).returncode == 0, timeout_s=180)
        return daemon

    def start_s3(self) -> Daemon:
        """Start the S3 server, its ports drawn: it opens six beside the one that Compose knows."""
        options = {**{name: str(self.ports[name]) for name in _WEED}, "s3.ip.bind": "127.0.0.1"}
        for socket in Path("/tmp").glob("seaweedfs-*.sock"):
            if any(str(self.ports[name]) in socket.name for name in _WEED):
                guard.watch_path(socket)
        return self.start("s3", *(f"-{name}={value}" for name, value in options.items()))

    def run(self, name: str, *command: str) -> str:
        """Run a one-shot service to its end, and give what it said.

        :param command: instead of its own, in the same container.
        """
        done = subprocess.run(
            [*command] or self.command(name),
            env=os.environ | self.environment(name),
            cwd=self.airflow_home,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{name}: {done.stdout}{done.stderr}"
        return done.stdout

    def check(self, name: str) -> subprocess.CompletedProcess[str]:
        """Ask a service's own healthcheck."""
        line = self._here(name, composition.filled(composition.text_of_check(self._service(name)), self.secrets))
        return subprocess.run(
            ["sh", "-c", line], env=os.environ | self.environment(name), capture_output=True, text=True, check=False
        )

    def command(self, name: str) -> list[str]:
        """What the container runs, on this machine's paths and ports."""
        words = composition.command_of(composition.filled(self._service(name), self.secrets))
        service = self._service(name)
        if "build" in service and "entrypoint" not in service:
            words = [*stages()[service["build"]["target"]].entrypoint, *words]
        # tini only hands signals on.
        words = words[2:] if words[0] == "tini" else words
        return [self._here(name, word) for word in words]

    def environment(self, name: str) -> dict[str, str]:
        """The container's variables, likewise; and the programs of the image."""
        service = self._service(name)
        image = stages()[service["build"]["target"]].environment if "build" in service else {}
        given = composition.filled(service.get("environment", {}), self.secrets)
        here = {key: self._here(name, value) for key, value in (image | given).items()}
        if "PGHOST" in here:
            here |= {"PGPORT": str(self.ports[here["PGHOST"]]), "PGHOST": "127.0.0.1"}
        # The image's own places of programs are this machine's places.
        return here | {"PATH": f"{_PROGRAMS}:{os.environ['PATH']}"}

    def stop(self) -> None:
        """End what runs; the files go with the directory."""
        for daemon in self.daemons.values():
            daemon.stop(timeout_s=3)
        for server in self.postgres.values():
            server.remove()
        for name in _WEED:
            for socket in Path("/tmp").glob(f"seaweedfs-*-{self.ports[name]}.sock"):
                socket.unlink()

    def _copied_image(self, directory: Path) -> Path:
        """What the last stage copies into the image, at this machine's place for it."""
        directory.mkdir()
        (directory / "logs").symlink_to(self._directory("volume-logs"))
        for copied in stages()["provision"].all("COPY"):
            source, inside = copied.split()[-2:]
            if inside.startswith("/opt/airflow/"):
                place = directory / inside.removeprefix("/opt/airflow/")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.symlink_to(ROOT / source)
        return directory

    def _service(self, name: str) -> Service:
        return composition.services()[name]

    def _postgres(self, name: str) -> Postgres:
        """The image's entrypoint is not ours to run; its server is, with the options of the command."""
        service = composition.filled(self._service(name), self.secrets)
        options = [self._here(name, word) for word in service["command"] if "=" in word]
        return Postgres(
            home=self.home / name,
            port=self.ports[name],
            password=service["environment"]["POSTGRES_PASSWORD"],
            durable=False,
            settings=dict(option.split("=", 1) for option in options),
        )

    def _here(self, name: str, text: str) -> str:
        """Put this machine's paths and ports where the container has its own."""
        mounts = self._mounts(name)
        # In one go: what was put in place may look like a mount itself.
        inside = "|".join(map(re.escape, sorted(mounts, key=len, reverse=True)))
        text = re.sub(rf"(?<![\w/.])(?:{inside})(?![\w.-])", lambda found: mounts[found[0]], text)
        for server, port in PORTS.items():
            text = re.sub(rf"\b{server}:{port}\b", f"127.0.0.1:{self.ports[server]}", text)
            # An Airflow connection says it in two fields.
            fields = f'"host": "127.0.0.1", "port": {self.ports[server]}'
            text = text.replace(f'"host": "{server}", "port": {port}', fields)
            if server.removesuffix("-cluster") == name:
                text = re.sub(rf"\b(0\.0\.0\.0|127\.0\.0\.1):{port}\b", f"127.0.0.1:{self.ports[server]}", text)
        if name == "broker":
            text = text.replace("0.0.0.0", "127.0.0.1").replace(f"port {PORTS[name]}", f"port {self.ports[name]}")
            text = text.replace("redis-cli", f"redis-cli -p {self.ports[name]}")
        if name == "s3":
            text = text.replace("127.0.0.1:9333", f"127.0.0.1:{self.ports['master.port']}")
        return text

    def _mounts(self, name: str) -> dict[str, str]:
        """Where each mount of a service lies here: a copy of a file, a folder of the project, a directory of ours."""
        service: dict[str, Any] = self._service(name)
        here = {"/opt/airflow": str(self.airflow_home)}
        for mount in service.get("volumes", []):
            source, inside = mount.split(":")[:2]
            here[inside] = self._place(name, source)
        for mount in service.get("tmpfs", []):
            inside = mount.split(":")[0]
            here[inside] = str(self._directory(f"{name}-{inside.strip('/').replace('/', '-')}"))
        return here

    def _place(self, name: str, source: str) -> str:
        if not source.startswith("./"):
            return str(self._directory(f"volume-{source}"))
        original = ROOT / source
        if original.is_dir():
            return str(original)
        copy = self.home / f"{name}-{original.name}"
        if not copy.exists():
            copy.touch()  # first, for the copy's own text is looked through for its own place
            copy.write_text(self._here(name, original.read_text()))
        return str(copy)

    def _directory(self, name: str) -> Path:
        directory = self.home / name
        directory.mkdir(mode=0o700, exist_ok=True)
        return directory
