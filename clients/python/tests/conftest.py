"""One site and one daemon for all tests; a test may kill the daemon, the next one finds it running."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
from site_of_tests import Site

from birthmark_station import AsyncStation, Station


@pytest.fixture(scope="session")
def the_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The site of this run."""
    site = Site(tmp_path_factory.mktemp("birthmark"))
    yield site
    site.kill()


@pytest.fixture
def site(the_site: Site) -> Site:
    """The site, its daemon running."""
    if the_site.process is None or the_site.process.poll() is not None:
        the_site.start()
    return the_site


class Stepped:
    """An `AsyncStation` behind the methods of `Station`, so that every test tries both."""

    def __init__(self, *arguments: Any) -> None:
        self.loop = asyncio.new_event_loop()
        self.station = AsyncStation(*arguments)

    def __enter__(self) -> Stepped:
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.station.close())
        # gRPC's own tasks need a moment after their channel was closed.
        left = asyncio.all_tasks(self.loop)
        if left:
            self.loop.run_until_complete(asyncio.wait(left, timeout=10))
        assert not asyncio.all_tasks(self.loop), "tasks are left behind"
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.station, name)
        return lambda *given, **named: self.loop.run_until_complete(method(*given, **named))

    def issue_many(self, *given: Any, **named: Any) -> Iterator[Any]:
        """Steps through the asynchronous generator."""
        results = self.station.issue_many(*given, **named)
        return self._step(results)

    def _step(self, results: Any) -> Iterator[Any]:
        try:
            while True:
                try:
                    yield self.loop.run_until_complete(results.__anext__())
                except StopAsyncIteration:
                    return
        finally:
            self.loop.run_until_complete(results.aclose())


@pytest.fixture(params=["sync", "asyncio"])
def connect(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Makes a station of each kind."""
    return Station if request.param == "sync" else Stepped


@pytest.fixture
def station(site: Site, connect: Callable[..., Any]) -> Iterator[Any]:
    """A station of each kind, at the site's daemon."""
    with connect(site.server, site.station()) as station:
        yield station


@pytest.fixture
def identity(site: Site) -> Path:
    """The usual station's identity."""
    return site.station()
