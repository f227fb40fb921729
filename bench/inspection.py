"""The case of inspection: container, codecs, duration and thumbnail of a video of 50 MiB, by a warm worker."""

import asyncio
import time
from collections.abc import Generator

from measures import Bench, Figures

from storage_service.inspection import Inspector


def inspection(bench: Bench) -> Generator[Figures, None, None]:
    async def measure(inspector: Inspector) -> float:
        began = time.monotonic()
        probe = await inspector.inspect(bench.video_path)
        assert probe.thumbnail
        return time.monotonic() - began

    loop = asyncio.new_event_loop()
    inspector = Inspector()
    loop.run_until_complete(inspector.__aenter__())
    try:
        loop.run_until_complete(measure(inspector))
        while True:
            taken = []
            for _ in range(5):
                loop.run_until_complete(asyncio.sleep(0.1))
                taken.append(loop.run_until_complete(measure(inspector)))
            yield {"ms": sorted(taken)[2] * 1000}
    finally:
        loop.run_until_complete(inspector.__aexit__(None, None, None))
        loop.close()
