"""A few connections that requests share; one that broke is replaced."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
from standins.errors import Refused

WAIT_SECONDS = 10.0


class Pool:
    def __init__(self, dsn: str, size: int) -> None:
        self._dsn = dsn
        self._places = asyncio.Semaphore(size)
        self._idle: list[psycopg.AsyncConnection] = []

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[psycopg.AsyncConnection]:
        """One that no other request has meanwhile; each statement is its own transaction unless told otherwise."""
        try:
            await asyncio.wait_for(self._places.acquire(), WAIT_SECONDS)
        except TimeoutError:
            raise Refused(504, "PGRST003", "Timed out acquiring connection from connection pool.") from None
        try:
            connection = self._idle.pop() if self._idle else await self._connect()
            try:
                yield connection
            finally:
                if not connection.closed:
                    self._idle.append(connection)
        finally:
            self._places.release()

    async def close(self) -> None:
        while self._idle:
            await self._idle.pop().close()

    async def _connect(self) -> psycopg.AsyncConnection:
        try:
            return await psycopg.AsyncConnection.connect(self._dsn, autocommit=True)
        except psycopg.OperationalError as error:
            message = "Database connection error. Retrying the connection."
            raise Refused(503, "PGRST000", message, str(error)) from None
