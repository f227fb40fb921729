"""Who may fail: each service unplugged, at rest or in the middle of an upload, and what still works."""

from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from contract.video_storage.house import SERVICES, House, Person, film, form, open_house, wait_until
from quickfolder import quick_folder

from shared.clock import utc_now

pytestmark = pytest.mark.asyncio(loop_scope="module")

MB = 1_048_576
VIDEOS = "http://video-service/api/videos"
STORAGE = "http://storage-service/api/storage/usage"
USAGE = "http://usage-service/api/usage/daily-usage"


@pytest_asyncio.fixture(loop_scope="module")
async def house() -> AsyncIterator[House]:
    """One for each test: what a failure leaves in an outbox would be counted by the next test."""
    with quick_folder() as folder:
        async with open_house(folder) as opened:
            yield opened
            opened.switchboard.down.clear()  # or closing waits for the services that are down


@pytest.fixture
def later(house: House, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """An hour passes for video-service and storage-service: what was leased, reserved or postponed is due."""

    def turn() -> None:
        def clock() -> Any:
            return utc_now() + timedelta(hours=1)

        videos = house.app("video-service").state.context.videos
        for whose in (videos, videos._outbox, house.app("storage-service").state.context.storage):
            monkeypatch.setattr(whose, "_clock", clock)

    return turn


async def mid_upload(person: Person, happens: Callable[[], object]) -> httpx.Response:
    """An upload in whose body, after the video and before the title, something happens."""
    body, content_type = form(film(), "In the middle")
    cut = body.rindex(b"\r\nContent-Disposition")

    async def chunks() -> AsyncIterator[bytes]:
        yield body[:cut]
        happens()
        yield body[cut:]

    return await person.ask("POST", f"{VIDEOS}/upload", content=chunks(), headers={"Content-Type": content_type})


async def test_with_logging_down_everything_works(house: House, ann: Person) -> None:
    house.switchboard.down.add("logging-service")
    entry = await ann.uploaded(film())
    assert (await ann.get(f"{VIDEOS}/stream"))["videos"][0]["filename"] == entry["filename"]
    assert (await house.client.get(entry["filepath"])).status_code == 200
    assert (await ann.get(USAGE))["uploads"] == 1
    assert (await ann.get(STORAGE))["totalSizeMb"] > 0
    await house.person()
    assert (await ann.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")).status_code == 200


async def test_with_usage_down_uploads_and_deletions_go_on_and_the_figures_follow(
    house: House, ann: Person, later: Callable[[], None]
) -> None:
    house.switchboard.down.add("usage-service")
    entry, other = await ann.uploaded(film()), await ann.uploaded(film(5000))
    assert (await ann.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")).status_code == 200
    assert (await ann.get(STORAGE))["totalSizeMb"] == other["size_mb"]
    assert (await house.client.get(other["filepath"])).status_code == 200
    house.switchboard.down.clear()
    assert (await ann.get(USAGE))["totalUsageMb"] == 0
    later()
    assert (await house.sweep("video-service"))["sent"] == 3
    usage = await ann.get(USAGE)
    assert usage["totalUsageMb"] == entry["size_mb"] + other["size_mb"]
    assert (usage["uploads"], usage["deletions"]) == (2, 1)


async def test_with_user_service_down_everything_works_with_a_token_in_hand(house: House, ann: Person) -> None:
    house.switchboard.down.add("user-service")
    entry = await ann.uploaded(film())
    assert (await house.client.get(entry["filepath"])).status_code == 200
    assert house.holds_nothing_for(ann)


async def test_with_storage_down_an_upload_or_a_playback_is_a_clear_503_and_nothing_is_held(
    house: House, ann: Person, later: Callable[[], None]
) -> None:
    entry = await ann.uploaded(film())
    house.switchboard.down.add("storage-service")
    for answer in (await ann.upload(film()), await ann.ask("GET", f"{VIDEOS}/stream/{entry['filename']}")):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == str(answer.json()["retryAfter"])
        assert "storage-service" in answer.json()["message"]
    assert (await ann.get(f"{VIDEOS}/stream"))["videos"][0]["filename"] == entry["filename"]
    assert (await ann.get(USAGE))["uploads"] == 1

    async def logs() -> int:
        return int((await ann.get(f"http://logging-service/api/logs/user/{ann.id}"))["total"])

    await wait_until(logs)
    house.switchboard.down.clear()
    assert house.holds_nothing_for(ann)
    later()
    assert (await house.sweep("video-service"))["sent"] >= 1, "what it may hold is given back"


async def test_with_storage_down_a_deletion_stands_and_the_bytes_follow(
    house: House, ann: Person, later: Callable[[], None]
) -> None:
    entry = await ann.uploaded(film())
    house.switchboard.down.add("storage-service")
    assert (await ann.ask("DELETE", f"{VIDEOS}/delete/{entry['filename']}")).status_code == 200
    assert (await ann.get(f"{VIDEOS}/user/{ann.id}"))["total"] == 0
    house.switchboard.down.clear()
    assert (await ann.get(STORAGE))["totalSizeMb"] == entry["size_mb"]
    later()
    assert (await house.sweep("video-service"))["sent"] == 1
    assert (await ann.get(STORAGE))["totalSizeMb"] == 0
    assert (await house.client.get(entry["filepath"])).status_code == 404


async def test_with_video_service_down_urls_already_handed_out_still_play(house: House, ann: Person) -> None:
    entry = await ann.uploaded(film())
    house.switchboard.down.add("video-service")
    assert (await house.client.get(entry["filepath"])).status_code == 200
    assert (await ann.get(USAGE))["uploads"] == 1
    assert (await ann.get(STORAGE))["totalSizeMb"] == entry["size_mb"]
    await house.person()


@pytest.mark.parametrize("who_is_first", ["video-service", "storage-service"])
async def test_with_storage_down_when_the_video_is_entered_it_is_kept_later(
    house: House, ann: Person, later: Callable[[], None], who_is_first: str
) -> None:
    """Either by the outbox of video-service or by the question of storage-service."""
    house.switchboard.down.add("storage-service/internal/keep")
    answer = await ann.upload(film())
    assert answer.status_code == 200
    house.switchboard.down.clear()
    entry = answer.json()["file"]
    assert (await ann.get(STORAGE))["totalSizeMb"] == 0
    assert (await house.client.get(entry["filepath"])).status_code == 200
    later()
    for service in (who_is_first, *({"video-service", "storage-service"} - {who_is_first})):
        await house.sweep(service)
        assert (await ann.get(STORAGE))["totalSizeMb"] == entry["size_mb"]
    assert (await ann.get(USAGE))["totalUsageMb"] == entry["size_mb"]


async def test_with_usage_down_when_the_video_is_entered_its_bytes_are_counted_later(
    house: House, ann: Person, later: Callable[[], None]
) -> None:
    answer = await mid_upload(ann, lambda: house.switchboard.down.add("usage-service"))
    assert answer.status_code == 200
    house.switchboard.down.clear()
    later()
    await house.sweep("video-service")
    assert (await ann.get(USAGE))["totalUsageMb"] == answer.json()["file"]["size_mb"]


async def test_when_the_database_fails_in_the_middle_the_object_is_asked_about_and_goes(
    house: House, ann: Person, later: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = house.app("video-service").state.context.uploads._store

    async def away(*_: object) -> None:
        raise OSError("the database is on fire")

    with monkeypatch.context() as broken:
        answer = await mid_upload(ann, lambda: broken.setattr(store, "add", away))
    assert answer.status_code == 500
    folder = house.settings["storage-service"].data_dir / "objects"
    before = set(folder.rglob("*.video"))
    later()
    house.switchboard.down.add("video-service")
    await house.sweep("storage-service")
    assert set(folder.rglob("*.video")) == before, "it guessed"
    house.switchboard.down.clear()
    assert (await house.sweep("storage-service"))["refused"] >= 1
    assert len(before - set(folder.rglob("*.video"))) == 1
    assert not house.holds_nothing_for(ann)
    monkeypatch.setattr(
        house.app("usage-service").state.context.usage, "_clock", lambda: utc_now() + timedelta(hours=1)
    )
    await house.sweep("usage-service")
    assert house.holds_nothing_for(ann)


@pytest.mark.parametrize("down", SERVICES)
async def test_ready_names_who_does_not_answer_and_health_is_not_affected(house: House, down: str) -> None:
    house.switchboard.down.add(down)
    for service in SERVICES:
        if service == down:
            continue
        assert (await house.client.get(f"http://{service}/health")).status_code == 200
        ready = await house.client.get(f"http://{service}/ready")
        states = ready.json()["checks"]
        assert states.pop("database") == "ok"
        assert states.pop("storage", "ok") == "ok"
        assert {name for name, state in states.items() if state != "ok"} == {down} & states.keys()
        assert ready.status_code == (503 if down in states else 200)


@pytest.mark.parametrize(
    "nonsense",
    [
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={"granted": "many"}),
        httpx.Response(500, json={"message": "secret"}),
        httpx.Response(401, json={"message": "secret"}),
        httpx.Response(403, json={"message": "secret"}),
        httpx.Response(404, text="secret"),
        httpx.Response(302, headers={"Location": "http://video-service/health"}),
    ],
    ids=lambda response: f"{response.status_code} {response.text[:12]}",
)
async def test_a_storage_service_that_talks_nonsense_is_one_that_does_not_answer(
    house: House, ann: Person, monkeypatch: pytest.MonkeyPatch, nonsense: httpx.Response
) -> None:
    connect = house.switchboard.handle_async_request

    async def talk(request: httpx.Request) -> httpx.Response:
        if request.url.host == "storage-service":
            return httpx.Response(nonsense.status_code, content=nonsense.content, headers=nonsense.headers)
        return await connect(request)

    with monkeypatch.context() as broken:
        broken.setattr(house.switchboard, "handle_async_request", talk)
        answer = await ann.upload(film())
    assert (answer.status_code, answer.json()["code"]) == (503, "peer_unavailable")
    assert "secret" not in answer.text
    assert house.holds_nothing_for(ann)
