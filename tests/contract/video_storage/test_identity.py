"""On Cloud Run: no call to /internal opens without what Google says of the caller, and everything works with it."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from contract.video_storage.house import ORIGIN, SERVICES, House, Person, film, open_house
from contract.video_storage.test_doors import INTERNAL, SWEEPERS
from quickfolder import quick_folder
from standins.google import CERTS, CERTS_PATH, METADATA, Google, account

from shared.auth import HEADER
from shared.identity import SERVERLESS_HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEDULER = account("scheduler")


@pytest.fixture(scope="module")
def google() -> Google:
    return Google("a-service")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_house(google: Google) -> AsyncIterator[House]:
    """In one process all five are the same machine to the metadata server, and so of one account."""
    transport = httpx.MockTransport(google.answer)
    callers = f"{account('a-service')}, {SCHEDULER}"
    with quick_folder() as folder:
        async with open_house(folder, {METADATA: transport, CERTS: transport}, guarded_for=callers) as opened:
            yield opened


def ours(house: House, identity: str | None = None) -> dict[str, str]:
    headers = {"Authorization": f"Bearer {house.tokens.for_service()}"}
    return headers if identity is None else headers | {HEADER: f"Bearer {identity}"}


async def test_the_journey_works_and_each_is_ready(house: House, ann: Person, google: Google) -> None:
    uploaded = await ann.uploaded(film())
    assert (await house.client.get(uploaded["filepath"])).status_code == 200
    assert (await ann.ask("DELETE", f"http://video-service/api/videos/delete/{uploaded['filename']}")).is_success
    assert (await ann.get("http://storage-service/api/storage/usage"))["totalSizeMb"] == 0
    for service in SERVICES:
        answer = await house.client.get(f"http://{service}/ready")
        assert answer.status_code == 200, answer.text
    assert set(google.audiences) == {f"http://{service}" for service in SERVICES}
    assert google.asked.count(CERTS_PATH) <= len(SERVICES)


@pytest.mark.parametrize(
    ("service", "method", "path"), [*INTERNAL, *((name, "GET", "/internal/health") for name in SERVICES)]
)
async def test_an_internal_call_needs_our_token_and_the_identity_of_a_caller(
    house: House, anybody: Person, google: Google, service: str, method: str, path: str
) -> None:
    url, us = f"http://{service}{path}", account("a-service")
    good = google.token(f"http://{service}", us)

    async def ask(headers: dict[str, str]) -> tuple[int, str | None]:
        answer = await house.client.request(method, url, headers=headers)
        refused = answer.status_code in (401, 403)
        return answer.status_code, answer.json()["code"] if refused else None

    assert await ask(ours(house)) == (401, "identity_required")
    assert await ask(ours(house) | {SERVERLESS_HEADER: f"Bearer {good}"}) == (401, "identity_required")
    assert await ask(ours(house) | {HEADER: good}) == (401, "identity_required")
    assert await ask(ours(house, "x.y.z")) == (401, "identity_invalid")
    assert await ask(ours(house, google.token("http://another", us))) == (401, "identity_invalid")
    assert await ask(ours(house, google.token(f"http://{service}", account("stranger")))) == (403, "identity_forbidden")
    assert await ask({HEADER: f"Bearer {good}"}) == (401, "unauthorized")
    assert await ask(anybody.headers | {HEADER: f"Bearer {good}"}) == (403, "forbidden")
    status, code = await ask(ours(house, good))
    assert (status not in (401, 403, 500), code) == (True, None)


@pytest.mark.parametrize("service", SWEEPERS)
async def test_cloud_scheduler_sweeps_with_what_google_says_of_its_account(
    house: House, google: Google, service: str
) -> None:
    async def sweep(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return (await house.client.post(f"http://{service}/internal/sweep", headers=headers)).status_code

    url = f"http://{service}"
    assert await sweep(google.token(url, SCHEDULER)) == 200
    assert await sweep(google.token(url, account("stranger"))) == 403
    assert await sweep(google.token(f"{url}/internal/sweep", SCHEDULER)) == 401
    assert await sweep(google.token(url, SCHEDULER, exp=1)) == 401
    assert await sweep(google.token(url, SCHEDULER)[:-9]) == 401


@pytest.mark.parametrize(("service", "method", "path"), [call for call in INTERNAL if call[2] != "/internal/sweep"])
async def test_cloud_schedulers_token_opens_nothing_else(
    house: House, google: Google, service: str, method: str, path: str
) -> None:
    token = google.token(f"http://{service}", SCHEDULER)
    headers = {"Authorization": f"Bearer {token}", HEADER: f"Bearer {token}"}
    assert (await house.client.request(method, f"http://{service}{path}", headers=headers)).status_code == 401


@pytest.mark.parametrize("service", SWEEPERS)
async def test_where_no_callers_are_named_googles_token_sweeps_nothing(google: Google, service: str) -> None:
    with quick_folder() as folder:
        async with open_house(folder) as house:
            headers = {"Authorization": f"Bearer {google.token(f'http://{service}', SCHEDULER)}"}
            assert (await house.client.post(f"http://{service}/internal/sweep", headers=headers)).status_code == 401
            assert await house.sweep(service) is not None


async def test_a_person_calls_as_before(house: House, ann: Person) -> None:
    assert (await ann.get("http://video-service/api/videos/stream"))["total"] >= 0


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("header", [HEADER, SERVERLESS_HEADER])
async def test_no_page_may_send_an_identity(house: House, service: str, header: str) -> None:
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": header.lower()}
    answer = await house.client.options(f"http://{service}/internal/sweep", headers={"Origin": ORIGIN} | asked)
    assert answer.status_code == 400
    assert header.lower() not in answer.headers["access-control-allow-headers"].lower()


async def test_without_the_metadata_server_an_upload_is_a_503_and_nothing_hangs(
    house: House, ann: Person, google: Google
) -> None:
    """The identities in hand are for audiences that a new house has not asked for yet."""

    def away(_: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    outside: dict[str, httpx.AsyncBaseTransport] = {
        METADATA: httpx.MockTransport(away),
        CERTS: httpx.MockTransport(google.answer),
    }
    with quick_folder() as folder:
        async with open_house(folder, outside, guarded_for=account("a-service")) as house:
            ben = await house.person()
            answer = await ben.upload(film())
            assert (answer.status_code, answer.json()["code"]) == (503, "identity_unavailable")
            assert answer.headers["Retry-After"]
            ready = await house.client.get("http://video-service/ready")
            assert "metadata server" in ready.json()["checks"]["storage-service"]
            assert house.holds_nothing_for(ben)
