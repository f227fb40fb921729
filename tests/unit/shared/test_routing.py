"""The short way to a route gives what FastAPI's own way gives, and is taken only where it does."""

import uuid
from collections.abc import AsyncIterator
from importlib import import_module
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, BackgroundTasks, Depends, FastAPI, Header, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel

from shared import errors
from shared.errors import Forbidden, NotFound
from shared.routing import Route
from shared.web import add_routes, plain


class Caller:
    """A dependency that is an object, as those of shared.auth are."""

    async def __call__(self, request: Request) -> str:
        if "authorization" not in request.headers:
            raise Forbidden("Who is this?")
        return request.headers["authorization"]


async def state(request: Request) -> dict[str, int]:
    return {"films": 3}


async def nested(caller: Annotated[str, Depends(Caller())]) -> str:
    return caller


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
    return "FastAPI's" if "fastapi_inner_astack" in request.scope else "short"


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

    @router.get("/nested", **general)
    async def nests(request: Request, caller: Annotated[str, Depends(nested)]) -> Answer:
        return Answer(way=_way(request), given={"caller": caller})

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
    add_routes(app, routes(kind))
    errors.install(app)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://service", headers={"Authorization": "me"})


ID = uuid.uuid4()
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
        add_routes(app, routes(kind))
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
    routers = [value for value in vars(module).values() if isinstance(value, APIRouter)]
    (route,) = [
        route
        for router in routers
        for route in router.routes
        if isinstance(route, Route) and route.path == path and "GET" in route.methods
    ]
    assert route.goes_the_short_way
