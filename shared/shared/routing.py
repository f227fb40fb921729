"""FastAPI's route, whose small requests take the short way.

FastAPI asks at every request what a dependency is, and which parameters of which kind a route has: that takes longer
than verifying the token, reading the row and writing the answer. It is the same each time. So where a route asks for
nothing but the request, dependencies that ask for nothing but the request, and plain values of its path and query, its
call is put together once, of the very fields that FastAPI has made of its signature. Every other route, and every
request in which anything is wrong, is FastAPI's own affair: it alone says what is wrong.
"""

import uuid
from collections.abc import Awaitable, Callable
from dataclasses import fields
from inspect import iscoroutinefunction, signature
from typing import Any
from urllib.parse import parse_qsl

from fastapi import Request
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.params import Path, Query
from fastapi.routing import APIRoute
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

_PLAIN = (str, int, uuid.UUID)


class Route(APIRoute):
    """``APIRouter(route_class=Route)``."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        self._beginning, self._is_pattern, _ = self.path.partition("{")
        self.goes_the_short_way = _is_simple(self)
        if self.goes_the_short_way:
            self.app = _call(self, general=self.app)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Starlette's, but for a glance at the path: most routes are not the one."""
        path: str = scope["path"]
        if not scope.get("root_path") and not (
            path.startswith(self._beginning) if self._is_pattern else path == self._beginning
        ):
            return Match.NONE, {}
        return super().matches(scope)


def _call(route: APIRoute, general: ASGIApp) -> ASGIApp:
    dependant, field = route.dependant, route.response_field
    endpoint: Callable[..., Awaitable[Any]] = route.endpoint
    request_name = dependant.request_param_name
    dependencies = [(sub.name, sub.call, sub.request_param_name) for sub in dependant.dependencies]
    path_fields = [(one.name, one.validate) for one in dependant.path_params]
    query_fields = [
        (one.name, one.validate, one.get_default(), one.field_info.is_required()) for one in dependant.query_params
    ]
    status = route.status_code or 200

    async def call(scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        values: dict[str, Any] = {}
        for name, dependency, asks in dependencies:
            given = await dependency(**{asks: request})  # type: ignore[misc, arg-type]
            if name is not None:
                values[name] = given
        is_wrong = False
        for name, validate in path_fields:
            values[name], errors = validate(scope["path_params"][name])
            is_wrong = is_wrong or bool(errors)
        # As request.query_params has it, where the last of several is the one.
        query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)) if query_fields else {}
        for name, validate, default, is_required in query_fields:
            if name in query:
                values[name], errors = validate(query[name])
                is_wrong = is_wrong or bool(errors)
            else:
                values[name] = default
                is_wrong = is_wrong or is_required
        if is_wrong:
            await general(scope, receive, send)
            return
        if request_name is not None:
            values[request_name] = request
        answer = await endpoint(**values)
        if not isinstance(answer, Response):
            assert field is not None
            answer, errors = field.validate(answer)
            assert not errors, f"{route.path} answers something else than it says"
            answer = Response(field.serialize_json(answer), status, media_type="application/json")
        await answer(scope, receive, send)

    return call


def _is_simple(route: APIRoute) -> bool:
    """Whether we know all that the route asks for."""
    dependant = route.dependant
    calls = {id(sub.call) for sub in dependant.dependencies}
    return (
        _asks_only_for(dependant, "path_params", "query_params", "dependencies", "request_param_name", "scope")
        and all(map(_is_plain, [*dependant.path_params, *dependant.query_params]))
        and all(_asks_only_for(sub, "request_param_name") for sub in dependant.dependencies)
        and all(sub.request_param_name and _is_async(sub.call) for sub in dependant.dependencies)
        and len(calls) == len(dependant.dependencies)  # what is asked for twice is given once
        and iscoroutinefunction(route.endpoint)
        and route.max_body_size is None
        and _answers_as_it_is(route)
    )


def _asks_only_for(dependant: Dependant, *known: str) -> bool:
    """Also of what a later FastAPI will let it ask for."""
    itself = {"call", "name", "path", "use_cache"}
    return not any(getattr(dependant, field.name) for field in fields(dependant) if field.name not in itself | {*known})


def _is_async(call: Any) -> bool:
    return iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)


def _is_plain(field: Any) -> bool:
    info = field.field_info
    aliases = {field.name, field.alias, field.validation_alias} - {None}
    return type(info) in (Path, Query) and info.annotation in _PLAIN and len(aliases) == 1 and not info.validate_default


def _answers_as_it_is(route: APIRoute) -> bool:
    """A response; or a model, all of it, as JSON."""
    returned = signature(route.endpoint).return_annotation
    if isinstance(returned, type) and issubclass(returned, Response):
        return True
    options = (
        route.response_model_include,
        route.response_model_exclude,
        route.response_model_exclude_unset,
        route.response_model_exclude_defaults,
        route.response_model_exclude_none,
        not route.response_model_by_alias,
    )
    is_json = isinstance(route.response_class, DefaultPlaceholder)
    return route.response_field is not None and is_json and not any(options)
