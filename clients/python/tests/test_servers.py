"""Several servers: the order in which they are asked, and one that is away, or not ours."""

from __future__ import annotations

import asyncio
import socket
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from csrs import csr, fresh
from site_of_tests import Site

from birthmark_station import AsyncStation, Station
from birthmark_station._connect import Identity, Targets


def away() -> str:
    """The address of nobody."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"https://127.0.0.1:{unused.getsockname()[1]}"


def test_stations_spread_over_servers_and_leave_them(tmp_path: Path) -> None:
    servers = [("127.0.0.1", 1), ("127.0.0.2", 1), ("::1", 1)]
    firsts: Counter[str] = Counter()
    for number in range(300):
        certificate = tmp_path / f"{number}.pem"
        certificate.write_text(str(number))
        targets = Targets(servers, Identity(certificate, certificate, certificate))
        assert targets.in_order() == targets.in_order()
        firsts[targets.in_order()[0].address] += 1
    assert len(firsts) == 3 and all(60 < number < 140 for number in firsts.values()), firsts
    first, second, third = targets.in_order()
    targets.leave(first)
    assert targets.in_order() == [second, third, first]


def test_name_of_several_machines_is_each_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, 0, 0, "", (f"10.0.0.{number}", 7)) for number in (1, 2)]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    identity = Identity(tmp_path, tmp_path, tmp_path)
    targets = Targets([("daemons.example", 7)], identity).in_order()
    assert {target.address for target in targets} == {"10.0.0.1:7", "10.0.0.2:7"}
    assert all(("grpc.ssl_target_name_override", "daemons.example") in target.options for target in targets)


def test_server_that_is_away_is_passed_over_at_once(site: Site, station: Any) -> None:
    identity = site.folder / fresh("stations/of-several")
    site.birthmark("station", "enroll", fresh("line1/s"), "--out", str(identity))
    servers = [away(), f"https://127.0.0.1:{site.port}", away()]
    order, device = site.order(10), fresh("several")
    began = time.monotonic()
    with Station(servers, identity) as several:
        first = several.issue(device, csr(device), profile="device", order=order)

    async def again() -> bytes:
        async with AsyncStation(",".join(servers), identity) as several:
            other = fresh("several")
            return (await several.issue(other, csr(other), profile="device", order=order)).der

    assert first.der != asyncio.run(again())
    assert time.monotonic() - began < 10
