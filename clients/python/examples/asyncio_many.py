"""Many devices at once with asyncio: a fixture with several sockets, each asking when its device is ready.

    python examples/asyncio_many.py lot-42 csrs/*.csr

The daemon and this stand's identity come from BIRTHMARK_SERVER and BIRTHMARK_IDENTITY.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from birthmark_station import AsyncStation, Progress, Request


async def devices(paths: list[str]) -> AsyncIterator[Request]:
    """Devices as they become ready; here there are files of their CSRs."""
    for path in map(Path, paths):
        yield Request(path.stem, path.read_bytes())
        await asyncio.sleep(0)


def show(progress: Progress) -> None:
    """Called after each answer, and when the daemon is away or back."""
    if progress.waiting:
        print(f"waiting: {progress.waiting}", file=sys.stderr)


async def main(order: str, *paths: str) -> int:
    """Gives the number of devices that were refused."""
    refused = 0
    async with AsyncStation() as station:
        results = station.issue_many(devices(list(paths)), profile="device", order=order, progress=show)
        async for result in results:
            if result.certificate:
                print(result.device_id, result.certificate.serial)
            else:
                print(result.device_id, result.error)
                refused += 1
    return refused


if __name__ == "__main__":
    sys.exit(min(1, asyncio.run(main(*sys.argv[1:]))))
