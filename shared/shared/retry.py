"""The one retry helper, over tenacity (https://tenacity.readthedocs.io), for calls that may be repeated safely.

A sweep, the renewal of a lease and the outbox (whose next try is a row in a table) are not retries.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, wait_chain, wait_fixed

T = TypeVar("T")


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: Callable[[Exception], bool],
    tries: int | None,
    pauses: Sequence[float] = (0.0,),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """The result of ``call``, which is made again while it raises an ``Exception`` for which ``on`` is true.

    The last error rises as it is. ``tries`` counts the first one; ``None`` is no limit. ``pauses`` are the seconds
    between tries; the last one is used from there on.
    """

    def is_tried_again(state: RetryCallState) -> bool:
        assert state.outcome is not None
        error = state.outcome.exception()
        return isinstance(error, Exception) and state.attempt_number != tries and on(error)

    # A new object for each call: tenacity keeps the state of the loop in it.
    attempts = AsyncRetrying(retry=is_tried_again, wait=wait_chain(*map(wait_fixed, pauses)), sleep=sleep)
    try:
        async for attempt in attempts:
            with attempt:
                return await call()
    finally:
        # The state holds the last error, and the error's traceback holds the state and everything in ``call``. Bytes of
        # an upload would stay until the next garbage collection; with tenacity's own ``stop`` this cannot be undone.
        attempt.retry_state.outcome = None
    raise AssertionError("unreachable")
