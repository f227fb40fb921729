"""The service's own log."""

import json
import logging

from shared import logs


def test_a_line_is_ascii_json_whatever_it_tells_of() -> None:
    told = ("Käse 🎬", "\ud83c")
    record = logging.LogRecord("some", logging.WARNING, "", 0, "a film called %s and half of a sign: %s", told, None)
    line = logs._Json("some-service", None).format(record)
    assert line.isascii()
    assert json.loads(line)["message"] == "a film called Käse 🎬 and half of a sign: \ud83c"


def test_a_trace_is_named_as_the_standard_has_it_and_never_twice() -> None:
    named = [logs.traceparent() for _ in range(100)]
    assert all(logs._TRACEPARENT.fullmatch(one.encode()) for one in named)
    assert len({one.split("-")[1] for one in named}) == 100
