"""Large bodies over HTTP/1.1 (RFC 9112). Each piece goes to the kernel as it is, without a copy, in a chunk of its own
where the length of the whole is not known.
"""

import asyncio
import ssl
from collections.abc import AsyncIterable

import httptools
import httpx

from shared.body_transport import Answer, BodyTransport, BrokenRules, Exchange
from shared.contracts import Chunk


class Http1Exchange(Exchange):
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answer = _Answer()
        super().__init__(reader, writer, answer)
        self._parser = httptools.HttpResponseParser(answer)
        # Nothing of a chunk stays behind when the next one is asked for.
        self._writer.transport.set_write_buffer_limits(high=0)

    def _send_head(self, request: httpx.Request) -> None:
        lines = [b"%s %s HTTP/1.1" % (request.method.encode(), request.url.raw_path)]
        # No "Connection: close": a peer that refuses in the middle would reset the connection, and its answer be lost.
        lines += [b"%s: %s" % field for field in request.headers.raw]
        head = b"\r\n".join([*lines, b"", b""])
        if head.count(b"\n") != len(lines) + 1:
            raise httpx.LocalProtocolError("a header with a line break")
        self._in_chunks = request.headers.get("Transfer-Encoding") == "chunked"
        self._writer.write(head)

    async def _send_body(self, body: AsyncIterable[Chunk]) -> None:
        async for chunk in body:
            framed = (b"%x\r\n" % len(chunk), chunk, b"\r\n") if self._in_chunks else (chunk,)
            if chunk and not await self._sent(*framed):
                return
        if self._in_chunks:
            await self._sent(b"0\r\n\r\n")

    async def _sent(self, *pieces: Chunk) -> bool:
        try:
            self._writer.writelines(pieces)
            await self._writer.drain()
        except OSError:
            return False
        return True

    def _heard(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            raise BrokenRules(type(error).__name__) from error

    def _status(self) -> int:
        return int(self._parser.get_status_code())


class _Answer(Answer):
    """As the parser tells it. It knows nothing of the parser, so that none of the two keeps the other."""

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        self.more(data)

    def on_message_complete(self) -> None:
        self.complete = True


class Http1Transport(BodyTransport):
    alpn = "http/1.1"
    exchange = Http1Exchange

    def _speaks(self, tls: ssl.SSLObject) -> bool:
        return tls.selected_alpn_protocol() in (None, self.alpn)
