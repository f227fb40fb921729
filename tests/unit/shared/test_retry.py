"""The retry helper: how often, after which pauses, and for which errors."""

import asyncio

import pytest

from shared.retry import retry


class Flaky:
    """Raises each of ``errors`` in turn, and then returns how often it was called."""

    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    async def __call__(self) -> int:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return self.calls


class Pauses:
    """A sleep that takes no time."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.slept.append(seconds)


def is_os_error(error: Exception) -> bool:
    return isinstance(error, OSError)


async def test_the_first_result_is_the_result_and_nothing_is_waited_for() -> None:
    sleep = Pauses()
    assert await retry(Flaky(), on=is_os_error, tries=3, pauses=(1.0,), sleep=sleep) == 1
    assert sleep.slept == []


async def test_the_last_pause_is_used_from_there_on() -> None:
    sleep = Pauses()
    call = Flaky(*[OSError()] * 5)
    assert await retry(call, on=is_os_error, tries=None, pauses=(0.1, 0.5, 2.0), sleep=sleep) == 6
    assert sleep.slept == [0.1, 0.5, 2.0, 2.0, 2.0]


async def test_after_so_many_tries_the_last_error_rises_as_it_is() -> None:
    call = Flaky(OSError("first"), OSError("second"), OSError("third"))
    with pytest.raises(OSError, match="second"):
        await retry(call, on=is_os_error, tries=2)
    assert call.calls == 2


async def test_another_error_rises_at_once() -> None:
    call = Flaky(OSError(), ValueError("another"), OSError())
    with pytest.raises(ValueError, match="another"):
        await retry(call, on=is_os_error, tries=9)
    assert call.calls == 2


async def test_a_cancellation_is_never_tried_again() -> None:
    call = Flaky(asyncio.CancelledError())
    with pytest.raises(asyncio.CancelledError):
        await retry(call, on=lambda _: True, tries=None)
    assert call.calls == 1


async def test_a_timeout_around_it_ends_the_try_at_hand() -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await retry(asyncio.Event().wait, on=lambda _: True, tries=None)


async def test_calls_at_the_same_time_count_their_own_tries() -> None:
    async def one(failures: int) -> int:
        return await retry(Flaky(*[OSError()] * failures), on=is_os_error, tries=4, pauses=(0.001,))

    assert await asyncio.gather(*(one(failures) for failures in range(4))) == [1, 2, 3, 4]
