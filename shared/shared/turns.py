"""Large bodies in turns: one piece of one of them, then everything else that waits.

Neither ``await send()`` nor ``await receive()`` need suspend. Without turns a small request waits for as many pieces
as there are uploads and downloads under way; with them it waits for one.
"""

import asyncio


class Turns:
    """One for all large bodies of a process."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def yield_turn(self) -> None:
        """Call it between two pieces: returns when the event loop has been round once for this body alone."""
        async with self._lock:
            await asyncio.sleep(0)
