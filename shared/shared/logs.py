"""The service's own log: one line per request on stdout, JSON that Cloud Logging understands, or text on a terminal.

A line names the route's template, never the path or the query: a path may hold a media capability. Nothing here ever
sees a header or a body. The trace is W3C ``traceparent``: taken over from the caller, handed on to peers by
``shared.http``.
"""

import json
import logging
import re
import secrets
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.settings import ServiceSettings

log = logging.getLogger("request")

_trace: ContextVar[str] = ContextVar("trace", default="")
_TRACEPARENT = re.compile(rb"00-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
_QUIET = {"/health", "/internal/health", "/ready"}
CLIENT_CLOSED_REQUEST = 499


def traceparent() -> str:
    """The header for a call to a peer: the trace of the request at hand, a new span."""
    return f"00-{_trace.get() or secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def configure(settings: ServiceSettings) -> None:
    """Send every log record of this process to stdout, in the form that ``LOG_FORMAT`` asks for."""
    as_text = settings.log_format == "text" or (settings.log_format == "auto" and sys.stdout.isatty())
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_Text() if as_text else _Json(settings.service, settings.google_cloud_project))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # No line names them, and to ask for them takes longer than to write it (docs.python.org/howto/logging.html).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging.getLogger("httpx").setLevel(logging.WARNING)


class RequestLog:
    """Pure ASGI middleware, the outermost: sets the trace, and writes one line when the answer is complete."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        # Without an answer the caller has gone away: nginx's word for it.
        status = CLIENT_CLOSED_REQUEST

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        token = _trace.set(_trace_of(scope))
        try:
            await self.app(scope, receive, watch)
        finally:
            route = getattr(scope.get("route"), "path", None) or "(no route)"
            level = logging.ERROR if status >= 500 else logging.DEBUG if route in _QUIET else logging.INFO
            if log.isEnabledFor(level):
                ms = round((time.perf_counter() - started) * 1000, 2)
                request = {"method": scope["method"], "route": route, "status": status, "ms": ms}
                # As ``log.log`` does, without the search for the line of code that called it.
                record = logging.LogRecord(log.name, level, "", 0, "%s %s %s", (scope["method"], route, status), None)
                record.request = request
                log.handle(record)
            _trace.reset(token)


def _trace_of(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"traceparent" and (known := _TRACEPARENT.fullmatch(value)):
            return known[1].decode()
    return secrets.token_hex(16)


class _Json(logging.Formatter):
    """https://cloud.google.com/logging/docs/structured-logging"""

    def __init__(self, service: str, project: str | None) -> None:
        super().__init__()
        self._service = service
        self._trace_prefix = f"projects/{project}/traces/" if project else ""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info:
            message += "\n" + self.formatException(record.exc_info)
        line: dict[str, Any] = {
            "severity": record.levelname,
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(),
            "service": self._service,
            "logger": record.name,
            "message": message,
        }
        if trace := _trace.get():
            line["logging.googleapis.com/trace"] = self._trace_prefix + trace
        line |= getattr(record, "request", {})
        return json.dumps(line)  # in ASCII: any terminal takes it, and half of a character too


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        request = getattr(record, "request", None)
        return super().format(record) + (f" {request['ms']:.1f} ms" if request else "")
