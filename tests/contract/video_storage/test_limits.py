"""Quotas over HTTP, exact to the byte, and uploads that are refused or break off: nothing of them is left anywhere."""

from typing import Any

import pytest
import videos
from contract.video_storage.house import House, Person, film, form, in_chunks

MB = 1_048_576
UPLOAD = "http://video-service/api/videos/upload"
VIDEOS = "http://video-service/api/videos"
STORAGE = "http://storage-service/api/storage/usage"
USAGE = "http://usage-service/api/usage/daily-usage"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("title_first", [False, True], ids=["video first", "title first"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(("before", "fits"), [(0, True), (1, False)], ids=["it fits", "one byte more"])
async def test_a_file_that_exactly_fills_the_storage_is_accepted_and_one_byte_more_is_not(
    ann: Person, title_first: bool, chunked: bool, before: int, fits: bool
) -> None:
    await ann.uploaded(film(300_000 + before))
    body, content_type = form(film(MB - 300_000), "Exactly", title_first=title_first)
    answer = await ann.ask(
        "POST", UPLOAD, content=in_chunks(body)() if chunked else body, headers={"Content-Type": content_type}
    )
    if fits:
        assert answer.status_code == 200
        assert await ann.get(STORAGE) == {"totalSizeMb": 1, "maxStorageMb": 1, "usagePercentage": "100.00"}
    else:
        assert answer.status_code == 413
        assert "Exceeding total storage limit" in answer.json()["message"]
        assert (await ann.get(STORAGE))["totalSizeMb"] == (300_000 + before) / MB
        assert (await ann.get(USAGE))["totalUsageMb"] == (300_000 + before) / MB


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_a_file_that_exactly_fills_the_day_is_accepted_and_one_byte_more_is_not(
    ann: Person, chunked: bool
) -> None:
    for _ in range(2):
        await ann.uploaded(film(900_000))
        await ann.ask("DELETE", f"{VIDEOS}/delete-all")
    left = 2 * MB - 1_800_000
    for size, status in ((left + 1, 429), (left, 200), (5_000, 429)):
        body, content_type = form(film(size), "Exactly")
        answer = await ann.ask(
            "POST", UPLOAD, content=in_chunks(body)() if chunked else body, headers={"Content-Type": content_type}
        )
        assert answer.status_code == status
        assert status == 200 or "Exceeding daily bandwidth limit" in answer.json()["message"]
    usage = await ann.get(USAGE)
    assert (usage["totalUsageMb"], usage["isThresholdExceeded"], usage["uploads"]) == (2, True, 3)


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
async def test_the_largest_upload_is_accepted_and_one_byte_more_is_a_413_that_says_so(
    ann: Person, chunked: bool
) -> None:
    largest = int(0.9 * MB)
    for size, status in ((largest + 1, 413), (largest + 100_000, 413), (largest, 200)):
        body, content_type = form(film(size), "Largest")
        answer = await ann.ask(
            "POST", UPLOAD, content=in_chunks(body)() if chunked else body, headers={"Content-Type": content_type}
        )
        assert answer.status_code == status
        assert status == 200 or "0.9 MB that one upload may have" in answer.json()["message"]


async def test_two_uploads_at_once_are_one_and_the_other_is_told_so(house: House, ann: Person) -> None:
    body, content_type = form(film(200_000), "Slow")
    answers: list[int] = []

    async def slow() -> Any:
        yield body[:100_000]
        other = await ann.upload(film())
        answers.append(other.status_code)
        assert "Already uploading" in other.json()["message"]
        yield body[100_000:]

    answer = await ann.ask("POST", UPLOAD, content=slow(), headers={"Content-Type": content_type})
    assert [answer.status_code, *answers] == [200, 409]
    assert (await ann.upload(film())).status_code == 200
    assert (await ann.get(STORAGE))["totalSizeMb"] == (200_000 + len(film())) / MB


@pytest.mark.parametrize(
    ("upload", "title", "status"),
    [
        (film(), "", 422),
        (film(), "  ", 422),
        (film(), "x" * 256, 422),
        (b"", "Empty", 422),
        (b"<html>", "A page", 415),
        (videos.without_moov(), "Broken", 415),
        (videos.audio_only(), "A song", 415),
    ],
)
async def test_a_refused_upload_leaves_nothing_anywhere(
    house: House, ann: Person, upload: bytes, title: str, status: int
) -> None:
    answer = await ann.upload(upload, title)
    assert answer.status_code == status
    assert (await ann.get(STORAGE))["totalSizeMb"] == (await ann.get(USAGE))["totalUsageMb"] == 0
    assert (await ann.get(f"{VIDEOS}/user/{ann.id}"))["total"] == 0
    assert house.holds_nothing_for(ann)


async def test_an_upload_that_breaks_off_leaves_nothing_anywhere(house: House, ann: Person) -> None:
    body, content_type = form(film(200_000), "Cut")

    async def cut() -> Any:
        yield body[:100_000]
        raise OSError("the line is cut")

    with pytest.raises(OSError, match="the line is cut"):
        await ann.ask("POST", UPLOAD, content=cut(), headers={"Content-Type": content_type})
    folder = house.settings["storage-service"].data_dir
    assert not list((folder / "incoming").iterdir())
    assert house.holds_nothing_for(ann)
