"""Passwords: argon2id through passlib, on as many threads as there are cores.

Hashing costs 20 ms and 19 MiB each by intent (OWASP's Password Storage Cheat Sheet: m=19 MiB, t=2, p=1). More
threads than cores would not hash more in a second, only slow down every other request.
"""

import asyncio
import contextlib
import os
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, Self, TypeVar

from shared.errors import Unavailable

T = TypeVar("T")
MOST_WAITING = 400  # for each thread, at 20 to 25 ms each


class Passwords(Protocol):
    async def hash(self, password: str) -> str: ...

    async def verify(self, password: str, hashed: str | None) -> bool:
        """Whether ``password`` is the one that was hashed. With None it takes as long, and the answer is False."""
        ...


class Argon2:
    """Raises ``Unavailable`` when more are waiting than can be served in some ten seconds."""

    def __init__(self) -> None:
        self._waiting = 0
        with warnings.catch_warnings():
            # passlib 1.7.4 asks for modules that the standard library deprecates, and for argon2.__version__.
            warnings.simplefilter("ignore", DeprecationWarning)
            from passlib.hash import argon2  # noqa: PLC0415

            self._scheme = argon2.using(  # type: ignore[no-untyped-call]
                type="ID", memory_cost=19_456, time_cost=2, parallelism=1
            )
            # Compared with when nobody has that e-mail, so that the time taken does not tell.
            self._nobody = self._scheme.hash("nobody")
        self._threads = os.cpu_count() or 1
        self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="argon2", initializer=_give_way)

    async def hash(self, password: str) -> str:
        return await self._run(lambda: str(self._scheme.hash(_bytes(password))))

    async def verify(self, password: str, hashed: str | None) -> bool:
        against = hashed or self._nobody
        try:
            same = await self._run(lambda: bool(self._scheme.verify(_bytes(password), against)))
        except ValueError:
            if hashed is None:
                raise
            return await self.verify(password, None)  # a row that others wrote: it takes as long as any
        return same and hashed is not None

    async def _run(self, work: Callable[[], T]) -> T:
        if self._waiting >= MOST_WAITING * self._threads:
            raise Unavailable("Too many people are signing in at once; please try again in a moment.")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def _give_way() -> None:
    """To the loop, which has a millisecond of work where this thread has twenty. Linux has it for each thread alone."""
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def _bytes(password: str) -> bytes:
    """Of any characters at all, also of the halves that JSON can spell and UTF-8 cannot."""
    return password.encode("utf-8", "surrogatepass")
