"""The one retry helper, over tenacity (https://tenacity.readthedocs.io), for calls that may be repeated safely.

A sweep, the renewal of a lease and the outbox (whose next try is a row in a table) are not retries.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import AsyncRetrying, retry_if_exception, stop_after_attempt, stop_never, wait_chain, wait_fixed

T = TypeVar("T")


async def retry(
    call: Callable[[], Awaitable[T]],
    *,
    on: Callable[[Exception], bool],
    tries: int | None,
    pauses: Sequence[float] = (0.0,),
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> T:
    """The result of ``call``, which is made again while it raises an error for which ``on`` is true.

    The last error rises as it is. ``tries`` counts the first one; ``None`` is no limit. ``pauses`` are the seconds
    between tries; the last one is used from there on.
    """
    try:
        return await call()  # mostly it succeeds, and tenacity would cost it 20 µs
    except Exception as error:
        if tries == 1 or not on(error):
            raise
    await sleep(pauses[0])
    attempts = AsyncRetrying(
        retry=retry_if_exception(lambda error: isinstance(error, Exception) and on(error)),
        stop=stop_never if tries is None else stop_after_attempt(tries - 1),
        wait=wait_chain(*map(wait_fixed, pauses[1:] or pauses)),
        sleep=sleep,
        reraise=True,
    )
    return await attempts(call)
