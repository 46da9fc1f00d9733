"""A taken port is named before a server trips over it; a remembered one stays."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from dev import ports
from dev.ports import PortTakenError, free_ports, keep_to_share, remembered_ports, require_free

pytestmark = pytest.mark.case("TC-ERR-08")


def test_a_taken_port_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTakenError, match=rf"OpenBao cannot start: its API port 127\.0\.0\.1:{port} is taken"):
            require_free({"API": port}, server="OpenBao")
    require_free({"API": port}, server="OpenBao")


def test_ports_differ_and_are_free() -> None:
    names = [f"server-{n}" for n in range(50)]
    drawn = free_ports(names)
    assert len(set(drawn.values())) == len(names)
    require_free(drawn, server="any")


def test_ports_are_remembered_and_new_names_join_them(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = remembered_ports(file, ["a", "b"])
    second = remembered_ports(file, ["a", "b", "c"])
    assert {name: second[name] for name in first} == first
    assert remembered_ports(file, ["c"])["c"] == second["c"]


def test_the_port_of_a_server_that_is_down_is_drawn_by_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "_ours", range(ports.LOWEST_PORT, ports.LOWEST_PORT + 100))
    monkeypatch.setattr(ports, "_promised", set())
    names = [f"server-{n}" for n in range(30)]
    down = remembered_ports(tmp_path / "ports.json", names)
    assert not set(down.values()) & set(free_ports(names).values())


def test_processes_side_by_side_never_draw_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_ours", ports._ours)
    drawn = []
    for place in range(2):
        keep_to_share(place, 2)
        drawn.append(set(free_ports(f"server-{n}" for n in range(50)).values()))
    assert not drawn[0] & drawn[1]
