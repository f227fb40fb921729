"""Two kinds of token, two kinds of door: no call opens with none, and neither token opens the other's."""

import uuid

import pytest
from contract.video_storage.house import ORIGIN, House, Person
from fastapi import APIRouter
from fastapi.routing import APIRoute

import logging_service.routes
import storage_service.routes
import usage_service.routes
import user_service.routes
import video_service.routes

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUTES = {
    "user-service": user_service.routes,
    "video-service": video_service.routes,
    "storage-service": storage_service.routes,
    "usage-service": usage_service.routes,
    "logging-service": logging_service.routes,
}
WITHOUT_TOKEN = {"/api/users/register", "/api/users/login"}
FOR_SERVICES = {"/api/logs/add", "/api/logs/batch"}
SWEEPERS = ("video-service", "storage-service", "usage-service")


def calls(router: APIRouter) -> list[tuple[str, str]]:
    """Method and path of each route, with something in the place of its parameters."""
    found = []
    for route in router.routes:
        assert isinstance(route, APIRoute)
        values = {name: str(uuid.UUID(int=7)) if name == "user_id" else "x" for name in route.param_convertors}
        found += [(method, route.path.format_map(values)) for method in route.methods or ()]
    return found


PUBLIC = [
    (service, *call)
    for service, routes in ROUTES.items()
    for call in calls(routes.public)
    if call[1] not in WITHOUT_TOKEN | FOR_SERVICES
]
INTERNAL = [
    (service, *call)
    for service, routes in ROUTES.items()
    if hasattr(routes, "internal")
    for call in calls(routes.internal)
]
INTERNAL += [(service, "POST", "/internal/sweep") for service in SWEEPERS]
INTERNAL += [("logging-service", "POST", path) for path in sorted(FOR_SERVICES)]


@pytest.mark.parametrize(("service", "method", "path"), INTERNAL)
async def test_an_internal_call_opens_to_services_only(
    house: House, anybody: Person, service: str, method: str, path: str
) -> None:
    url = f"http://{service}{path}"
    assert (await house.client.request(method, url)).status_code == 401
    assert (await house.client.request(method, url, headers={"Authorization": "Bearer null"})).status_code == 401
    assert (await anybody.ask(method, url)).status_code == 403
    headers = {"Authorization": f"Bearer {house.tokens.for_service()}"}
    assert (await house.client.request(method, url, headers=headers)).status_code not in (401, 403)


@pytest.mark.parametrize(("service", "method", "path"), PUBLIC)
async def test_a_users_call_opens_to_users_only(
    house: House, anybody: Person, service: str, method: str, path: str
) -> None:
    url = f"http://{service}{path}"
    for token in ("", "null", "x.y.z", house.tokens.for_service()):
        headers = {"Authorization": f"Bearer {token}", "Origin": ORIGIN}
        assert (await house.client.request(method, url, headers=headers)).status_code == 401
    assert (await house.client.request(method, url)).status_code == 401
    assert (await anybody.ask(method, url)).status_code != 401


async def test_all_doors_are_known() -> None:
    assert len(PUBLIC) >= 11
    assert len(INTERNAL) >= 16
    assert {service for service, *_ in INTERNAL} == {service for service, *_ in PUBLIC} == set(ROUTES)
