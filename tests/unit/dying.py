"""A process that is killed, in a test: at one step of its work, and from then on nothing of it runs any more."""

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")


class Killed(BaseException):
    """No ``except Exception`` sees it, and what cleans up after it finds everything dead."""


class Fate:
    """Death before or after the ``at``-th step; ``met`` tells whether it came."""

    def __init__(self, at: int = 0, *, after: bool = False) -> None:
        self._at = at
        self._after = after
        self._steps = 0
        self.met = False

    async def step(self, work: Callable[[], Awaitable[T]]) -> T:
        if self.met:
            raise Killed
        self._steps += 1
        hit = self._steps == self._at
        if hit and not self._after:
            self.met = True
            raise Killed
        result = await work()
        if hit:
            self.met = True
            raise Killed
        return result


class Mortal:
    """Stands in front of an adapter: each of its async methods is one step."""

    def __init__(self, adapter: Any, fate: Fate) -> None:
        self._adapter = adapter
        self._fate = fate

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._adapter, name)
        if not inspect.iscoroutinefunction(method):
            return method

        async def call(*given: Any, **named: Any) -> Any:
            return await self._fate.step(lambda: method(*given, **named))

        return call
