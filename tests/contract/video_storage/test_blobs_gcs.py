"""What the bucket promises beyond what every place does: uploads that are cut, refused, doubted, or raced."""

import asyncio
import base64
import logging
import random
import tracemalloc
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import gcs
import google_crc32c
import httpx
import pytest
from front import Answer, Cut, Fault, Silence, Twist

from shared.errors import Conflict, ServiceError, TooLarge, Unavailable
from storage_service.blobs import Blobs, open_blobs, session
from storage_service.blobs import gcs as gcs_blobs
from storage_service.config import Settings

QUARTER = 262_144
CHUNK = session.CHUNK
CONTENT = random.Random(2).randbytes(2 * CHUNK + 1000)
KEY = "videos/film.mp4"


@pytest.fixture(scope="module")
def cloud() -> Iterator[gcs.Cloud]:
    """The one that can be asked where a session stands."""
    with gcs.running("gcp-storage-emulator") as running:
        yield running


@dataclass
class Place:
    settings: Settings
    cloud: gcs.Cloud

    def objects(self) -> dict[str, int]:
        assert self.settings.gcs_bucket
        return self.cloud.objects(self.settings.gcs_bucket)

    def content(self) -> bytes | None:
        return gcs.fetched(f"{self.cloud.url}/{self.settings.gcs_bucket}/{KEY}")


@pytest.fixture
def place(cloud: gcs.Cloud, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    bucket = f"bucket-{uuid.uuid4().hex}"
    cloud.make_bucket(bucket)
    monkeypatch.setattr(session, "FIRST_PAUSE", 0.001)
    cloud.front.forget()
    yield Place(make_settings(Settings, gcs_bucket=bucket, storage_emulator_host=cloud.url), cloud)
    cloud.front.forget()


@pytest.fixture
async def blobs(place: Place) -> AsyncIterator[Blobs]:
    async with open_blobs(place.settings) as opened:
        yield opened


async def pieces(content: bytes, size: int = 65_536) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


async def upload(blobs: Blobs, content: bytes = CONTENT) -> int:
    return await blobs.write("film", pieces(content), len(content))


async def test_a_video_is_sent_in_parts_that_the_bucket_takes(blobs: Blobs, place: Place) -> None:
    await upload(blobs)
    total = len(CONTENT)
    assert place.cloud.front.parts == [
        f"0-{CHUNK - 1}/*",
        f"{CHUNK}-{2 * CHUNK - 1}/*",
        f"{2 * CHUNK}-{total - 1}/{total}",
    ]
    place.cloud.front.forget()
    await blobs.write("exact", pieces(CONTENT[:CHUNK]), CHUNK)
    assert place.cloud.front.parts == [f"0-{CHUNK - 1}/{CHUNK}"], "the last part has something, so it can end it"


@pytest.mark.parametrize("kept", [0, QUARTER, 3 * QUARTER, None])
@pytest.mark.parametrize("part", [1, 2])
async def test_a_part_that_breaks_off_goes_on_from_what_had_arrived(
    blobs: Blobs, place: Place, part: int, kept: int | None
) -> None:
    place.cloud.front.at(part, Cut(kept))
    assert await upload(blobs) == len(CONTENT)
    assert place.content() == CONTENT
    parts = place.cloud.front.parts
    assert parts[part] == "*/*", "it asks before it sends anything again"
    begun = (part - 1) * CHUNK
    rest = f"{begun + kept}-{part * CHUNK - 1}/*" if kept is not None else None
    assert (rest in parts[part:]) == (kept is not None), "what had arrived is not sent again"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_bucket_that_is_busy_is_asked_again(blobs: Blobs, place: Place, status: int) -> None:
    place.cloud.front.at(2, Answer(status), Answer(status), Answer(status))
    assert await upload(blobs) == len(CONTENT)
    assert place.content() == CONTENT


async def test_faults_of_every_kind_one_after_another_cost_only_time(
    blobs: Blobs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "TRY_SECONDS", 0.2)
    place.cloud.front.at(1, Cut(QUARTER), Answer(503), Cut(0), Silence())
    place.cloud.front.at(7, Cut(2 * QUARTER), Cut(0), Answer(500))
    place.cloud.front.at(12, Cut(None))
    assert await upload(blobs) == len(CONTENT)
    assert place.content() == CONTENT


@pytest.mark.parametrize("fault", [Cut(0), Answer(503)])
async def test_it_tries_so_often_and_not_longer_and_then_nothing_is_left(
    blobs: Blobs, place: Place, fault: Fault
) -> None:
    place.cloud.front.at(2, *[fault] * 20)
    with pytest.raises(Unavailable):
        await upload(blobs)
    assert len(place.cloud.front.parts) == 1 + session.TRIES
    assert place.cloud.front.calls[-1].method == "DELETE", "and the bucket is told"
    assert place.objects() == {}


async def test_a_bucket_that_says_nothing_is_not_waited_for_too_long(
    blobs: Blobs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "CHUNK_SECONDS", 0.3)
    place.cloud.front.at(1, *[Silence()] * 5)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(upload(blobs), 3)
    assert place.objects() == {}


@pytest.mark.parametrize("part", [2, 3])
@pytest.mark.parametrize("status", [403, 404, 410])
async def test_a_session_that_is_gone_ends_the_upload_at_once(
    blobs: Blobs, place: Place, part: int, status: int
) -> None:
    place.cloud.front.at(part, Answer(status))
    with pytest.raises(Unavailable):
        await upload(blobs)
    assert len(place.cloud.front.parts) == part
    assert place.objects() == {}


@pytest.mark.parametrize("then", [[], [Answer(404)], [Answer(410)], [Answer(412)], [Cut(0)], [Answer(503)] * 9])
async def test_a_video_whose_last_answer_was_lost_is_there_whatever_the_session_says(
    blobs: Blobs, place: Place, then: list[Fault]
) -> None:
    place.cloud.front.at(3, Cut(None), *then)
    assert await upload(blobs) == len(CONTENT)
    assert place.content() == CONTENT


@pytest.mark.parametrize("changes", [{"size": "1"}, {"crc32c": "AAAAAA=="}])
async def test_a_bucket_that_has_something_else_than_was_sent_keeps_none_of_it(
    blobs: Blobs, place: Place, changes: dict[str, str]
) -> None:
    place.cloud.front.at(3, Twist(changes))
    with pytest.raises(Unavailable):
        await upload(blobs)
    assert place.objects() == {}
    assert await upload(blobs) == len(CONTENT)


@pytest.mark.parametrize("part", [1, 3])
async def test_an_upload_that_is_complete_too_early_or_without_a_proof_is_none(
    blobs: Blobs, place: Place, part: int
) -> None:
    place.cloud.front.at(part, Answer(200, {"kind": "storage#object"}))
    with pytest.raises(Unavailable):
        await upload(blobs)
    assert place.objects() == {}


async def test_a_session_that_has_lost_what_it_had_ends_the_upload(blobs: Blobs, place: Place) -> None:
    place.cloud.front.at(2, Answer(308))
    with pytest.raises(Unavailable):
        await upload(blobs)
    assert place.objects() == {}


@pytest.mark.parametrize("kind", gcs.KINDS)
async def test_two_processes_that_write_one_filename_have_one_winner_and_his_bytes_stay(
    make_settings: Callable[..., Settings], kind: gcs.Kind
) -> None:
    with gcs.running(kind) as cloud:
        cloud.make_bucket("one-bucket")
        settings = make_settings(Settings, gcs_bucket="one-bucket", storage_emulator_host=cloud.url)
        async with open_blobs(settings) as one, open_blobs(settings) as another:
            results = await asyncio.gather(
                one.write("film", pieces(b"1" * 3 * QUARTER), 3 * QUARTER),
                another.write("film", pieces(b"2" * 3 * QUARTER), 3 * QUARTER),
                return_exceptions=True,
            )
            assert sorted(type(result).__name__ for result in results) == ["Conflict", "int"]
            winner = b"12"[results.index(3 * QUARTER) :][:1]
            assert gcs.fetched(f"{cloud.url}/one-bucket/{KEY}") == winner * 3 * QUARTER
            with pytest.raises(Conflict):
                await one.write("film", pieces(b"3"), 1)
            assert cloud.objects("one-bucket") == {KEY: 3 * QUARTER}


@pytest.mark.parametrize("faults", [[Cut(0)] * 9, [Answer(503)] * 9, [Answer(410)]])
async def test_a_loser_who_does_not_know_that_he_lost_removes_nothing_of_the_winner(
    blobs: Blobs, place: Place, faults: list[Fault]
) -> None:
    async with open_blobs(place.settings) as another:
        assert await upload(another) == len(CONTENT)
    place.cloud.front.at(1, *faults)
    with pytest.raises(Unavailable):
        await upload(blobs, b"the loser's")
    assert place.content() == CONTENT


async def test_an_object_removed_while_its_last_part_is_on_the_way_does_not_stay(
    blobs: Blobs, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "FIRST_PAUSE", 0.3)
    place.cloud.front.at(1, Answer(503))
    writing = asyncio.create_task(upload(blobs, b"a film"))
    await place.cloud.front.reached(1)
    await blobs.remove("film")
    with pytest.raises(Conflict):
        await writing
    assert place.objects() == {}


async def test_an_upload_that_is_cancelled_or_too_large_is_given_up_at_the_bucket_too(
    blobs: Blobs, place: Place
) -> None:
    place.cloud.front.at(2, Silence())
    writing = asyncio.create_task(upload(blobs))
    await place.cloud.front.reached(2)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(TooLarge):
        await blobs.write("film", pieces(CONTENT), len(CONTENT) - 1)
    assert [call.method for call in place.cloud.front.calls].count("DELETE") == 2
    assert place.objects() == {}
    assert await upload(blobs) == len(CONTENT)


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_bucket_that_refuses_is_a_503_whose_reason_only_the_log_has(
    blobs: Blobs, place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setitem(gcs_blobs.PATIENT, "retry", None)
    place.cloud.front.refuse = status
    source = blobs.source("film", 10)
    assert not isinstance(source, Path)
    for call in (
        blobs.ping(),
        upload(blobs),
        blobs.finish("film", b"jpeg"),
        source.read(0, 10),
        *([] if status == 404 else [blobs.remove("film")]),
    ):
        caplog.clear()
        with pytest.raises(ServiceError) as refusal:
            await call
        assert (refusal.value.status, refusal.value.message) == (
            503,
            "The storage does not answer; please try again later.",
        )
        assert str(status) in caplog.text
        assert "http" not in caplog.text


async def test_a_removal_of_what_is_not_there_is_no_failure(blobs: Blobs, place: Place) -> None:
    place.cloud.front.refuse = 404
    await blobs.remove("film")


async def test_nobody_listening_is_a_503_within_seconds(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gcs_blobs.PATIENT, "retry", gcs_blobs.RETRY.with_timeout(0.3))
    settings = make_settings(Settings, gcs_bucket="bucket", storage_emulator_host="http://127.0.0.1:9")
    async with open_blobs(settings) as blobs:
        for call in (blobs.ping(), upload(blobs), blobs.finish("film", b"jpeg"), blobs.remove("film")):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(call, 3)


async def test_neither_a_session_nor_a_signature_is_ever_logged(
    blobs: Blobs, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    place.cloud.front.at(2, Cut(0), Answer(503), Answer(404))
    with pytest.raises(Unavailable):
        await upload(blobs)
    secrets = {call.session for call in place.cloud.front.calls if call.session}
    assert secrets
    assert caplog.text
    assert not [secret for secret in secrets if secret in caplog.text]


class Sink(httpx.AsyncBaseTransport):
    """A bucket that keeps nothing: what is measured is the service alone."""

    def __init__(self) -> None:
        self.checksum = google_crc32c.Checksum()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert isinstance(request.stream, httpx.AsyncByteStream)
        async for part in request.stream:
            self.checksum.update(part)
        span, total = request.headers["content-range"].removeprefix("bytes ").split("/")
        if total == "*":
            return httpx.Response(308, headers={"range": f"bytes=0-{span.split('-')[1]}"})
        checksum = base64.b64encode(self.checksum.digest()).decode()
        return httpx.Response(200, json={"generation": "1", "size": total, "crc32c": checksum})


async def test_an_upload_of_any_size_takes_a_few_chunks_of_memory(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def source(size: int) -> AsyncIterator[bytes]:
        for _ in range(size // 65_536):
            yield bytes(65_536)

    monkeypatch.setattr(gcs_blobs, "open_sessions", lambda: httpx.AsyncClient(transport=Sink()))
    async with open_blobs(place.settings) as blobs:
        tracemalloc.start()
        try:
            assert await blobs.write("film", source(64 * CHUNK), 64 * CHUNK) == 64 * CHUNK
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < 6 * CHUNK
