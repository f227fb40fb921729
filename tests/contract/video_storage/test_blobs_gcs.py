"""What the bucket promises beyond what every place does: uploads that are cut, refused, doubted, or raced."""

import asyncio
import logging
import random
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_plus

import gcs
import pytest
from contract.video_storage.sending import open_targets, pieces, upload
from front import Answer, Cut, Fault, Silence

from shared.contracts import SentVideo, UploadTarget
from shared.errors import Conflict, ServiceError, Unavailable
from storage_service.blobs import Blobs, open_blobs
from storage_service.blobs import gcs as gcs_blobs
from storage_service.config import Settings
from video_service import target
from video_service.target import Targets

UNIT = target.PIECE_UNIT
PIECE = 4 * UNIT
CONTENT = random.Random(2).randbytes(2 * PIECE + 1000)
KEY = "videos/video.mp4"
REFUSAL = "The storage does not answer; please try again later."


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
    monkeypatch.setattr(target, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(target, "LARGEST_PIECE", PIECE)
    cloud.front.forget()
    yield Place(make_settings(Settings, gcs_bucket=bucket, storage_emulator_host=cloud.url), cloud)
    cloud.front.forget()


@pytest.fixture
async def blobs(place: Place) -> AsyncIterator[Blobs]:
    async with open_blobs(place.settings) as opened:
        yield opened


@pytest.fixture
async def targets(place: Place, blobs: Blobs) -> AsyncIterator[Targets]:
    async with open_targets(blobs, place.settings) as opened:
        yield opened


async def send(blobs: Blobs, targets: Targets, content: bytes = CONTENT) -> SentVideo:
    return (await upload(blobs, targets, "video", content))[1]


async def test_a_video_is_sent_in_pieces_that_the_bucket_takes(blobs: Blobs, targets: Targets, place: Place) -> None:
    await send(blobs, targets)
    total = len(CONTENT)
    assert place.cloud.front.parts == [
        f"0-{PIECE - 1}/*",
        f"{PIECE}-{2 * PIECE - 1}/*",
        f"{2 * PIECE}-{total - 1}/{total}",
    ]
    place.cloud.front.forget()
    await upload(blobs, targets, "exact", CONTENT[:PIECE])
    assert place.cloud.front.parts == [f"0-{PIECE - 1}/{PIECE}"], "the last piece has something, so it can end it"


@pytest.mark.parametrize("kept", [0, UNIT, 3 * UNIT, None])
@pytest.mark.parametrize("part", [1, 2])
async def test_a_piece_that_breaks_off_goes_on_from_what_had_arrived(
    blobs: Blobs, targets: Targets, place: Place, part: int, kept: int | None
) -> None:
    place.cloud.front.at(part, Cut(kept))
    await send(blobs, targets)
    assert place.content() == CONTENT
    parts = place.cloud.front.parts
    assert parts[part] == "*/*", "it asks before it sends anything again"
    begun = (part - 1) * PIECE
    rest = f"{begun + kept}-{part * PIECE - 1}/*" if kept is not None else None
    assert (rest in parts[part:]) == (kept is not None), "what had arrived is not sent again"


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
async def test_a_bucket_that_is_busy_is_asked_again(blobs: Blobs, targets: Targets, place: Place, status: int) -> None:
    place.cloud.front.at(2, Answer(status), Answer(status), Answer(status))
    await send(blobs, targets)
    assert place.content() == CONTENT


async def test_faults_of_every_kind_one_after_another_cost_only_time(
    blobs: Blobs, targets: Targets, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "TRY_SECONDS", 0.5)
    place.cloud.front.at(1, Cut(UNIT), Answer(503), Cut(0), Silence())
    place.cloud.front.at(7, Cut(2 * UNIT), Cut(0), Answer(500))
    place.cloud.front.at(12, Cut(None))
    await send(blobs, targets)
    assert place.content() == CONTENT


@pytest.mark.parametrize("fault", [Cut(0), Answer(503)])
async def test_it_tries_so_often_and_not_longer(blobs: Blobs, targets: Targets, place: Place, fault: Fault) -> None:
    place.cloud.front.at(2, *[fault] * 20)
    with pytest.raises(Unavailable):
        await send(blobs, targets)
    assert len(place.cloud.front.parts) == 1 + target.TRIES
    assert place.objects() == {}


async def test_a_bucket_that_says_nothing_is_not_waited_for_too_long(
    blobs: Blobs, targets: Targets, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "PIECE_SECONDS", 0.3)
    place.cloud.front.at(1, *[Silence()] * 5)
    with pytest.raises(Unavailable):
        await asyncio.wait_for(send(blobs, targets), 5)
    assert place.objects() == {}


@pytest.mark.parametrize("part", [2, 3])
@pytest.mark.parametrize(
    ("status", "error"), [(403, Unavailable), (404, Conflict), (410, Conflict), (412, Conflict), (499, Conflict)]
)
async def test_a_session_that_is_gone_ends_the_upload_at_once(
    blobs: Blobs, targets: Targets, place: Place, part: int, status: int, error: type[ServiceError]
) -> None:
    place.cloud.front.at(part, Answer(status))
    with pytest.raises(error):
        await send(blobs, targets)
    assert len(place.cloud.front.parts) == part
    assert place.objects() == {}


@pytest.mark.parametrize("then", [[], [Answer(404)], [Answer(410)], [Answer(412)], [Cut(0)], [Answer(503)] * 9])
async def test_a_video_whose_last_answer_was_lost_has_arrived_whatever_the_session_says(
    blobs: Blobs, targets: Targets, place: Place, then: list[Fault]
) -> None:
    place.cloud.front.at(3, Cut(None), *then)
    sent = await send(blobs, targets)
    assert await blobs.arrived("video") == sent
    assert place.content() == CONTENT


@pytest.mark.parametrize("faults", [[Cut(0), Answer(404)], [Cut(0)] * 9, [Answer(503)] * 9, [Answer(200)]])
async def test_a_video_whose_last_piece_was_lost_has_not_arrived_whatever_the_session_says(
    blobs: Blobs, targets: Targets, place: Place, faults: list[Fault]
) -> None:
    place.cloud.front.at(3, *faults)
    await send(blobs, targets)
    assert await blobs.arrived("video") is None
    assert place.objects() == {}


@pytest.mark.parametrize("answer", [Answer(200), Answer(308)])
async def test_a_session_that_is_complete_too_early_or_lost_what_it_had_ends_the_upload(
    blobs: Blobs, targets: Targets, place: Place, answer: Answer
) -> None:
    place.cloud.front.at(2, answer)
    with pytest.raises(Unavailable):
        await send(blobs, targets)
    assert len(place.cloud.front.parts) == 2
    assert place.objects() == {}


@pytest.mark.parametrize("kind", gcs.KINDS)
async def test_two_sessions_of_one_filename_have_one_winner_and_its_bytes_stay(
    make_settings: Callable[..., Settings], kind: gcs.Kind
) -> None:
    with gcs.running(kind) as cloud:
        cloud.make_bucket("one-bucket")
        settings = make_settings(Settings, gcs_bucket="one-bucket", storage_emulator_host=cloud.url)
        async with open_blobs(settings) as blobs, open_targets(blobs, settings) as targets:
            results = await asyncio.gather(
                *(send(blobs, targets, writer * 3 * UNIT) for writer in (b"1", b"2")), return_exceptions=True
            )
            assert sorted(type(result).__name__ for result in results) == ["Conflict", "SentVideo"]
            [(winner, sent)] = [one for one in zip(b"12", results, strict=True) if isinstance(one[1], SentVideo)]
            with pytest.raises(Conflict):
                await send(blobs, targets, b"3")
            assert await blobs.arrived("video") == sent
            assert gcs.fetched(f"{cloud.url}/one-bucket/{KEY}") == bytes([winner]) * 3 * UNIT
            assert cloud.objects("one-bucket") == {KEY: 3 * UNIT}


async def test_a_video_removed_while_its_last_piece_is_on_the_way_does_not_appear(
    blobs: Blobs, targets: Targets, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "FIRST_PAUSE", 0.3)
    place.cloud.front.at(1, Answer(503))
    opened = await blobs.open_target("video", 100, None)
    sending = asyncio.create_task(targets.send(opened.target, pieces(b"a video")))
    await place.cloud.front.reached(1)
    await blobs.remove("video", opened.session)
    await sending
    assert len(place.cloud.front.parts) == 2
    assert place.objects() == {}


async def test_a_session_takes_nothing_after_its_upload_was_removed_or_it_is_not_wanted(
    blobs: Blobs, targets: Targets, place: Place
) -> None:
    removed, unwanted = [await blobs.open_target(name, 100, None) for name in ("removed", "unwanted")]
    assert unwanted.session
    await blobs.remove("removed", removed.session)
    await blobs.cancel(unwanted.session)
    assert [call.method for call in place.cloud.front.calls if call.session].count("DELETE") == 2
    for opened in (removed, unwanted):
        with pytest.raises(Conflict):
            await targets.send(opened.target, pieces(b"a video"))
    assert place.objects() == {}


async def test_a_sender_that_is_cancelled_stops_at_once_and_its_upload_can_be_removed(
    blobs: Blobs, targets: Targets, place: Place
) -> None:
    place.cloud.front.at(2, Silence())
    opened = await blobs.open_target("video", len(CONTENT), None)
    sending = asyncio.create_task(targets.send(opened.target, pieces(CONTENT)))
    await place.cloud.front.reached(2)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(sending, 5)
    await blobs.remove("video", opened.session)
    assert place.objects() == {}
    await send(blobs, targets)
    assert place.content() == CONTENT


@pytest.mark.parametrize("status", [403, 404, 503])
async def test_a_bucket_that_refuses_is_a_503_whose_reason_only_the_log_has(
    blobs: Blobs, place: Place, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setitem(gcs_blobs.PATIENT, "retry", None)
    place.cloud.front.refuse = status
    source = blobs.source("video", 10)
    assert not isinstance(source, Path)
    for call in (
        blobs.ping(),
        blobs.open_target("video", 10, None),
        blobs.finish("video", 10, b"jpeg"),
        source.read(0, 10),
        *([] if status == 404 else [blobs.arrived("video"), blobs.remove("video", None)]),
    ):
        caplog.clear()
        with pytest.raises(ServiceError) as refusal:
            await call
        assert (refusal.value.status, refusal.value.message) == (503, REFUSAL)
        assert str(status) in caplog.text
        assert "http" not in caplog.text


async def test_a_sender_that_is_refused_gives_the_reason_only_to_the_log(
    blobs: Blobs, targets: Targets, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.cloud.front.at(1, Answer(403))
    with pytest.raises(Unavailable) as refusal:
        await send(blobs, targets)
    assert refusal.value.message == REFUSAL
    assert "403" in caplog.text


async def test_what_is_not_there_has_not_arrived_and_its_removal_is_no_failure(blobs: Blobs, place: Place) -> None:
    place.cloud.front.refuse = 404
    assert await blobs.arrived("video") is None
    await blobs.remove("video", None)


async def test_nobody_listening_is_a_503_within_seconds(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gcs_blobs.PATIENT, "retry", gcs_blobs.RETRY.with_timeout(0.3))
    url = "http://127.0.0.1:9/upload?upload_id=1"
    settings = make_settings(Settings, gcs_bucket="bucket", storage_emulator_host="http://127.0.0.1:9")
    async with open_blobs(settings) as blobs, open_targets(blobs, settings) as targets:
        for call in (
            blobs.ping(),
            blobs.open_target("video", 10, None),
            blobs.arrived("video"),
            blobs.finish("video", 10, b"jpeg"),
            blobs.remove("video", None),
            blobs.remove("video", url),
            targets.send(UploadTarget(url=url), pieces(bytes(2 * target.LARGEST_PIECE))),
        ):
            with pytest.raises(Unavailable):
                await asyncio.wait_for(call, 5)
        await asyncio.wait_for(blobs.cancel(url), 5)  # the session ends by itself


async def test_no_session_is_ever_logged(
    blobs: Blobs, targets: Targets, place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.WARNING, "httpx")  # as logs.configure has it: httpx names each URL
    place.cloud.front.at(2, Cut(0), Answer(503), Answer(404))
    opened = await blobs.open_target("video", len(CONTENT), None)
    with pytest.raises(Conflict):
        await targets.send(opened.target, pieces(CONTENT))
    place.cloud.front.at(1, *[Cut(0)] * 5)
    with pytest.raises(Unavailable):
        await targets.send(opened.target, pieces(CONTENT))
    await blobs.remove("video", opened.session)
    assert opened.session
    secret = opened.session.rpartition("upload_id=")[2]
    assert caplog.text
    for said in (caplog.text, repr(opened.target)):
        assert secret not in said
        assert unquote_plus(secret) not in said
