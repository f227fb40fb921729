"""What the suites of ``shared`` start from."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import ClassVar

import pytest

from shared.settings import ServiceSettings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Settings(ServiceSettings):
    """Some service's."""

    service: ClassVar[str] = "some-service"
    port: int = 0


@pytest.fixture
def settings() -> Settings:
    given = {"_env_file": None, "jwt_secret": "the secret of these tests, forty bytes…"}
    return Settings(**given)


@pytest.fixture
async def listen() -> AsyncIterator[Callable[[Handler], Awaitable[str]]]:
    """Starts a peer that does with a connection whatever the handler does; gives its URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(handler: Handler) -> str:
            async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    await handler(reader, writer)
                writer.close()

            server = await asyncio.start_server(closing, "127.0.0.1", 0)
            stack.callback(server.close)
            return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

        yield start
