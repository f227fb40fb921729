"""The short way to a route gives what FastAPI's own way gives, and is taken only where it does."""

import traceback
import uuid
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, Path, Query, Request, Security
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute, iter_route_contexts
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AfterValidator, BaseModel

from shared import errors, routing
from shared.errors import Forbidden, NotFound
from shared.routing import Route, is_simple
from shared.web import plain


class Caller:
    """A dependency that is an object, as those of shared.auth are."""

    async def __call__(self, request: Request) -> str:
        if "authorization" not in request.headers:
            raise Forbidden("Who is this?")
        return request.headers["authorization"]


async def state(request: Request) -> dict[str, int]:
    return {"films": 3}


CALLER = Caller()


async def nested(request: Request, caller: Annotated[str, Depends(CALLER)]) -> str:
    return f"{caller} at {request.url.path}"


async def closing() -> AsyncIterator[int]:
    yield 1


def quick(request: Request) -> int:
    return 1


def _even(number: int) -> int:
    if number % 2:
        raise ValueError("must be even")
    return number


class Answer(BaseModel):
    way: str
    given: dict[str, Any]


def _way(request: Request) -> str:
    frames = traceback.extract_stack()
    return "short" if any((one.filename, one.name) == (routing.__file__, "shortcut") for one in frames) else "FastAPI's"


def routes(kind: type[APIRoute]) -> APIRouter:
    router = APIRouter(prefix="/things", route_class=kind)
    simple = {"tags": ["simple"]}
    general = {"tags": ["general"]}

    @router.get("/model", **simple)
    async def model(
        request: Request,
        caller: Annotated[str, Depends(Caller())],
        films: Annotated[dict[str, int], Depends(state)],
        start: Annotated[int, plain, Query(ge=0)] = 0,
        q: Annotated[str, Query(max_length=5)] = "",
    ) -> Answer:
        return Answer(way=_way(request), given={"caller": caller, "films": films, "start": start, "q": q})

    @router.get("/required", **simple)
    async def required(request: Request, number: Annotated[int, AfterValidator(_even)]) -> Answer:
        return Answer(way=_way(request), given={"number": number})

    @router.delete("/{id}/parts/{name}", status_code=202, **simple)
    async def path(request: Request, id: uuid.UUID, name: Annotated[str, Path(pattern="^[a-z]+$")]) -> Answer:
        return Answer(way=_way(request), given={"id": id, "name": name})

    @router.get("/response", response_model=Answer, **simple)
    async def response(request: Request) -> Response:
        return JSONResponse({"way": _way(request)}, 203, {"X-Thing": "1"})

    @router.get("/refused", **simple)
    async def refused() -> Answer:
        raise NotFound("There is no such thing.")

    @router.get("/wrong", response_model=Answer, **simple)
    async def wrong() -> dict[str, str]:
        return {"way": "no answer"}

    @router.get("/guarded", dependencies=[Depends(Caller())], **simple)
    async def guarded(request: Request) -> Answer:
        return Answer(way=_way(request), given={})

    @router.get("/nested", **simple)
    async def nests(
        request: Request, who: Annotated[str, Depends(nested)], caller: Annotated[str, Depends(CALLER)]
    ) -> Answer:
        return Answer(way=_way(request), given={"who": who, "caller": caller})

    @router.get("/bearer", **simple)
    async def bearer(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))]
    ) -> Answer:
        return Answer(way=_way(request), given={"token": given and given.credentials})

    @router.get("/scoped", **general)
    async def scoped(request: Request, caller: Annotated[str, Security(nested, scopes=["all"])]) -> Answer:
        return Answer(way=_way(request), given={"caller": caller})

    @router.get("/anew", **general)
    async def anew(request: Request, caller: Annotated[str, Depends(nested, use_cache=False)]) -> Answer:
        return Answer(way=_way(request), given={"caller": caller})

    @router.post("/body", **general)
    async def body(request: Request, answer: Answer) -> Answer:
        return Answer(way=_way(request), given=answer.given)

    @router.get("/header", **general)
    async def header(request: Request, x_thing: Annotated[str, Header()] = "") -> Answer:
        return Answer(way=_way(request), given={"x": x_thing})

    @router.get("/many", **general)
    async def many(request: Request, n: Annotated[list[int], Query()]) -> Answer:
        return Answer(way=_way(request), given={"n": n})

    @router.get("/alias", **general)
    async def alias(request: Request, n: Annotated[int, Query(alias="number")]) -> Answer:
        return Answer(way=_way(request), given={"n": n})

    @router.get("/yields", **general)
    async def yields(request: Request, one: Annotated[int, Depends(closing)]) -> Answer:
        return Answer(way=_way(request), given={"one": one})

    @router.get("/thread", **general)
    async def thread(request: Request, one: Annotated[int, Depends(quick)]) -> Answer:
        return Answer(way=_way(request), given={"one": one})

    @router.get("/later", **general)
    async def later(request: Request, tasks: BackgroundTasks) -> Answer:
        return Answer(way=_way(request), given={})

    @router.get("/nothing", status_code=204, **general)
    async def nothing() -> None:
        return None

    @router.get("/partly", response_model_exclude={"given"}, **general)
    async def partly(request: Request) -> Answer:
        return Answer(way=_way(request), given={})

    @router.get("/plain", **general)
    def in_a_thread(request: Request) -> Answer:
        return Answer(way=_way(request), given={})

    return router


def client(kind: type[APIRoute]) -> httpx.AsyncClient:
    app = FastAPI(redirect_slashes=False)
    app.include_router(routes(kind))
    errors.install(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"Authorization": "me"})


ID = uuid.UUID("559c767a-f78a-4fc8-b683-116f861aeeec")  # the same in each run: it is part of names of tests
ASKED = [
    ("GET", "/things/model"),
    ("GET", "/things/model?start=7&q=ab"),
    ("GET", "/things/model?start=7&start=8&q=&other=1"),
    ("GET", "/things/model?q=a%20b%C3%BC+c"),
    ("GET", "/things/model?start=-1"),
    ("GET", "/things/model?start=x&q=toolong"),
    ("GET", "/things/model?start="),
    ("GET", "/things/required?number=4"),
    ("GET", "/things/required?number=5"),
    ("GET", "/things/required"),
    ("DELETE", f"/things/{ID}/parts/wheel"),
    ("DELETE", f"/things/{str(ID).upper()}/parts/wheel"),
    ("DELETE", f"/things/{ID}/parts/WHEEL"),
    ("DELETE", "/things/no-id/parts/wheel"),
    ("DELETE", f"/things/{ID}/parts/a/b"),
    ("GET", f"/things/{ID}/parts/wheel"),
    ("GET", "/things/response"),
    ("GET", "/things/refused"),
    ("GET", "/things/wrong"),
    ("GET", "/things/guarded"),
    ("HEAD", "/things/guarded"),
    ("POST", "/things/guarded"),
    ("GET", "/things/guarded/"),
    ("GET", "/things/"),
    ("GET", "/"),
    ("POST", "/things/body"),
    ("GET", "/things/header"),
    ("GET", "/things/many?n=1&n=2"),
    ("GET", "/things/alias?number=1"),
    ("GET", "/things/nested"),
    ("GET", "/things/bearer"),
    ("GET", "/things/scoped"),
    ("GET", "/things/anew"),
    ("GET", "/things/yields"),
    ("GET", "/things/thread"),
    ("GET", "/things/later"),
    ("GET", "/things/nothing"),
    ("GET", "/things/partly"),
    ("GET", "/things/plain"),
]


@pytest.mark.parametrize("name", ["Authorization", "X-Other"])
@pytest.mark.parametrize(("method", "target"), ASKED)
async def test_the_answer_is_the_one_that_fastapi_gives(method: str, target: str, name: str) -> None:
    more = {"json": {"way": "", "given": {"a": 1}}} if target.endswith("/body") else {}
    answers = []
    for kind in (APIRoute, Route):
        async with client(kind) as browser:
            del browser.headers["Authorization"]
            answers.append(await browser.request(method, target, headers={name: "me"}, **more))
    theirs, ours = answers
    assert ours.status_code == theirs.status_code
    assert dict(ours.headers) | {"content-length": ""} == dict(theirs.headers) | {"content-length": ""}
    assert ours.text.replace('"short"', '"FastAPI\'s"') == theirs.text


def test_openapi_tells_the_same() -> None:
    told = []
    for kind in (APIRoute, Route):
        app = FastAPI()
        app.include_router(routes(kind))
        told.append(app.openapi())
    assert told[0] == told[1]


async def test_the_short_way_is_taken_by_the_routes_that_ask_for_nothing_else() -> None:
    ways: dict[str, set[str]] = {"simple": set(), "general": set()}
    kinds = {route.path: route.tags[0] for route in routes(Route).routes if isinstance(route, APIRoute)}
    async with client(Route) as browser:
        for method, target in ASKED:
            more = {"json": {"way": "", "given": {}}} if target.endswith("/body") else {}
            answer = await browser.request(method, target, **more)
            path = target.partition("?")[0]
            if answer.status_code < 204 and path in kinds:
                ways[str(kinds[path])].add(answer.json()["way"])
    assert ways == {"simple": {"short"}, "general": {"FastAPI's"}}


async def test_a_dependency_that_is_overridden_is_overridden_on_the_short_way_too() -> None:
    app = FastAPI()
    app.include_router(routes(Route))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as browser:
        browser.headers["Authorization"] = "me"
        before = await browser.get("/things/model")
        app.dependency_overrides[state] = lambda: {"films": 99}
        overridden = await browser.get("/things/model")
        app.dependency_overrides.clear()
        after = await browser.get("/things/model")
    assert [answer.json()["given"]["films"] for answer in (before, overridden, after)] == [
        {"films": 3},
        {"films": 99},
        {"films": 3},
    ]


async def test_what_an_inclusion_adds_counts_for_each_inclusion_alone() -> None:
    router = APIRouter(route_class=Route)

    @router.get("/way")
    async def way(request: Request) -> Answer:
        return Answer(way=_way(request), given={})

    guarded, twice = FastAPI(), FastAPI()
    for app in (guarded, twice):
        errors.install(app)
    guarded.include_router(router, prefix="/guarded", dependencies=[Depends(CALLER)])
    twice.include_router(router)
    twice.include_router(router, prefix="/guarded", dependencies=[Depends(CALLER)])
    for app in (guarded, twice):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as browser:
            assert (await browser.get("/guarded/way")).status_code == 403
            allowed = await browser.get("/guarded/way", headers={"Authorization": "me"})
            assert allowed.json()["way"] == ("short" if app is guarded else "FastAPI's")
            assert (await browser.get("/way")).status_code == (404 if app is guarded else 200)


@pytest.mark.parametrize(
    ("service", "path"),
    [
        ("user", "/api/users/user/{user_id}"),
        ("video", "/api/videos/stream"),
        ("video", "/api/videos/user/{user_id}"),
        ("video", "/api/videos/stream/{filename}"),
        ("storage", "/api/storage/usage"),
        ("storage", "/media/{capability}/{filename}.mp4"),
        ("storage", "/media/{capability}/{filename}.jpg"),
        ("usage", "/api/usage/daily-usage"),
        ("logging", "/api/logs/user/{user_id}"),
    ],
)
def test_what_the_page_asks_for_all_the_time_goes_the_short_way(service: str, path: str) -> None:
    """Nothing would be wrong without it, but slow: a FastAPI that names its things anew must not go unnoticed."""
    module = import_module(f"{service}_service.routes")
    app = FastAPI()
    for router in {id(value): value for value in vars(module).values() if isinstance(value, APIRouter)}.values():
        app.include_router(router)
    (route,) = [
        route for route in iter_route_contexts(app.routes) if route.path == path and "GET" in (route.methods or ())
    ]
    assert isinstance(route.original_route, Route)
    assert is_simple(route)
