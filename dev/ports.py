"""Free TCP ports on loopback, so that no server of the stack meets one that is already there."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Iterable
from pathlib import Path

# Below Linux's ephemeral range (32768 and up): while a server is down no outgoing connection takes its port.
LOWEST_PORT, HIGHEST_PORT = 20000, 32000

_ours = range(LOWEST_PORT, HIGHEST_PORT)
_promised: set[int] = set()


class PortTakenError(RuntimeError):
    """A port that the stack has promised to its users is held by a program that the stack did not start."""


def is_free(port: int) -> bool:
    """Tell whether a server could listen here now; a port in TIME_WAIT counts as free, as it does for servers."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def keep_to_share(place: int, of: int) -> None:
    """Let this process draw from a share of its own: what is free when two look may be taken when both have started.

    :param place: which share, from 0 on.
    :param of: how many processes there are.
    """
    global _ours
    _ours = range(LOWEST_PORT + place, HIGHEST_PORT, of)


def free_ports(names: Iterable[str]) -> dict[str, int]:
    """Draw a free port for each name; at random, so that two stacks that start together rarely collide.

    One that this process remembers is left alone, also while its server is down.
    """
    drawn: dict[str, int] = {}
    for name in names:
        while True:
            port = secrets.choice(_ours)
            if port not in _promised | set(drawn.values()) and is_free(port):
                drawn[name] = port
                break
    return drawn


def remembered_ports(path: Path, names: Iterable[str]) -> dict[str, int]:
    """The ports of an earlier start, so that whoever read ``.dev/env`` finds the servers again; drawn on first use."""
    known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in known]
    if missing:
        known |= free_ports(missing)
        path.write_text(json.dumps(known, indent=1) + "\n")
    _promised.update(known.values())
    return known


def require_free(ports: dict[str, int], *, server: str) -> None:
    """Refuse a start that could only fail later and less clearly.

    :raises PortTakenError: naming the port, the server that wants it and what to do.
    """
    for name, port in ports.items():
        if not is_free(port):
            raise PortTakenError(
                f"{server} cannot start: its {name} port 127.0.0.1:{port} is taken by another program. "
                f"Find it with `ss -ltnp 'sport = :{port}'` and stop it; "
                "or draw new ports with `make clean`, which deletes the data."
            )
