"""The upload form, however it arrives: in which order, in which pieces, and how it can be wrong."""

import asyncio
import gc
import random
from collections.abc import AsyncIterator

import pytest
from starlette.requests import ClientDisconnect

from shared.errors import BadRequest, Invalid, ServiceError, TooLarge
from shared.turns import Turns
from video_service.multipart import OVERHEAD, TooSlow, UploadForm

BOUNDARY = b"----WebKitFormBoundary7MA4YWxkTrZu0gW"
CONTENT_TYPE = "multipart/form-data; boundary=" + BOUNDARY.decode()
CLIP = bytes(random.Random(1).randbytes(5000))


def part(name: str, content: bytes, filename: str | None = None, kind: str = "video/mp4") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"'
    if filename is not None:
        disposition += f'; filename="{filename}"\r\nContent-Type: {kind}'
    return b"--" + BOUNDARY + b"\r\n" + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"


def closed(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


VIDEO = part("video", CLIP, "clip.mp4")
TITLE = part("title", "Ein Spaß".encode())


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


async def read(body: bytes, size: int = 65_536, content_type: str = CONTENT_TYPE) -> tuple[bytes, dict[str, str]]:
    form = UploadForm(content_type, pieces(body, size), 5, Turns())
    video = b"".join([chunk async for chunk in form.video()])
    await form.finish()
    return video, form.fields


async def test_a_form_leaves_nothing_for_the_collector() -> None:
    """Or each would wait, with what it holds of its body, for a collection that is rare by design."""

    def alive() -> int:
        return sum(isinstance(one, UploadForm) for one in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = alive()  # what other tests keep
        await read(closed(VIDEO, TITLE))
        assert alive() == before
    finally:
        gc.enable()


@pytest.mark.parametrize("size", [1, 2, 7, 61, 1000, 65_536])
@pytest.mark.parametrize("parts", [(VIDEO, TITLE), (TITLE, VIDEO)], ids=["video first", "title first"])
async def test_the_form_is_the_same_in_either_order_and_in_pieces_of_any_size(
    parts: tuple[bytes, bytes], size: int
) -> None:
    assert await read(closed(*parts), size) == (CLIP, {"title": "Ein Spaß"})


async def test_a_boundary_may_be_split_at_every_one_of_its_bytes() -> None:
    body = closed(part("video", b"ab\r\n--c", "v.mp4"), TITLE)
    for cut in range(1, len(body)):

        async def two(cut: int = cut) -> AsyncIterator[bytes]:
            yield body[:cut]
            yield body[cut:]

        form = UploadForm(CONTENT_TYPE, two(), 5, Turns())
        assert b"".join([chunk async for chunk in form.video()]) == b"ab\r\n--c"
        await form.finish()
        assert form.fields == {"title": "Ein Spaß"}


async def test_a_video_that_is_full_of_almost_boundaries_arrives_unchanged() -> None:
    dice = random.Random(2)
    delimiter = b"\r\n--" + BOUNDARY
    for _ in range(40):
        clip = b"".join(
            delimiter[: dice.randrange(len(delimiter))] + dice.randbytes(dice.randrange(3))
            for _ in range(dice.randrange(1, 20))
        )
        body = closed(part("video", clip, "clip.mp4"), TITLE)
        assert await read(body, dice.randrange(1, 60)) == (clip, {"title": "Ein Spaß"})


async def test_other_fields_and_files_are_passed_over() -> None:
    body = closed(part("csrf", b"x"), part("poster", b"jpeg", "p.jpg"), VIDEO, TITLE, part("tags", b"a,b"))
    assert await read(body) == (CLIP, {"title": "Ein Spaß"})


async def test_the_video_passes_on_before_its_end_has_come() -> None:
    never = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield VIDEO[:3000]
        await never.wait()

    form = UploadForm(CONTENT_TYPE, body(), 5, Turns())
    assert CLIP.startswith(await anext(form.video()))


async def test_what_follows_the_last_boundary_is_no_matter() -> None:
    assert await read(closed(VIDEO, TITLE) + b"epilogue\r\n") == (CLIP, {"title": "Ein Spaß"})


async def test_the_last_of_two_titles_counts() -> None:
    assert (await read(closed(VIDEO, TITLE, part("title", b"Second"))))[1] == {"title": "Second"}


@pytest.mark.parametrize("filename", ["", "ü.mp4", 'a\\"b.mp4', "../../x"])
async def test_the_name_of_the_file_on_the_visitors_disk_is_no_matter(filename: str) -> None:
    assert (await read(closed(part("video", CLIP, filename), TITLE)))[0] == CLIP


async def test_an_empty_file_is_an_empty_video() -> None:
    assert await read(closed(part("video", b"", ""), TITLE)) == (b"", {"title": "Ein Spaß"})


@pytest.mark.parametrize("size", [3, 65_536])
@pytest.mark.parametrize(
    ("body", "error", "code"),
    [
        (closed(TITLE), Invalid, "no_file"),
        (closed(), Invalid, "no_file"),
        (closed(part("video", CLIP), TITLE), Invalid, "no_file"),
        (closed(part("file", CLIP, "clip.mp4"), TITLE), Invalid, "no_file"),
        (closed(VIDEO, VIDEO, TITLE), Invalid, "too_many_files"),
        (closed(part("video", b"", "empty.mp4"), VIDEO), Invalid, "too_many_files"),
        (closed(VIDEO, part("title", b"\xff\xfe")), Invalid, "invalid"),
        (closed(VIDEO, part("title", b"x" * OVERHEAD)), TooLarge, "form_too_large"),
        (closed(part("title", b"x" * OVERHEAD), VIDEO), TooLarge, "form_too_large"),
        (closed(part("other", b"x" * OVERHEAD, "o.bin"), VIDEO), TooLarge, "form_too_large"),
        (b"\r\n" * OVERHEAD + closed(VIDEO, TITLE), TooLarge, "form_too_large"),
        (closed(VIDEO, TITLE) + b"x" * OVERHEAD, TooLarge, "form_too_large"),
        (b"", Invalid, "no_file"),
        (closed(VIDEO, TITLE)[:-4], BadRequest, "cut_off"),
        (VIDEO[:2000], BadRequest, "cut_off"),
        (VIDEO + TITLE, BadRequest, "cut_off"),
        (closed(VIDEO, TITLE).replace(b"\r\n", b"\n"), BadRequest, "bad_request"),
        (b"garbage\n" * 10, BadRequest, "bad_request"),
        (b'{"video": "no"}', BadRequest, "bad_request"),
        (b"--" + BOUNDARY + b"\r\nno colon here\r\n\r\nx", BadRequest, "bad_request"),
        (b"--" + BOUNDARY + b"\r\n" + b"x: y\r\n" * 500 + b"\r\n", BadRequest, "bad_request"),
        (b"--" + BOUNDARY + b"\r\nx: " + b"y" * 60_000 + b"\r\n\r\n", BadRequest, "bad_request"),
    ],
    ids=[
        "no file",
        "no part",
        "a text field named video",
        "a file under another name",
        "two files",
        "an empty and another file",
        "a title that is not UTF-8",
        "a long title",
        "a long title first",
        "a long other file",
        "a long preamble",
        "a long epilogue",
        "no body",
        "cut off in the last boundary",
        "cut off in the video",
        "never closed",
        "bare line feeds",
        "garbage",
        "JSON",
        "a header without a colon",
        "many headers",
        "a long header",
    ],
)
async def test_a_form_that_is_wrong_is_refused_by_name(
    body: bytes, error: type[ServiceError], code: str, size: int
) -> None:
    with pytest.raises(error) as refusal:
        await read(body, size)
    assert (type(refusal.value), refusal.value.code) == (error, code)


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 300,
        "multipart/mixed; boundary=x",
        "application/json",
        "application/x-www-form-urlencoded",
        ";;;=",
    ],
)
def test_a_body_that_is_no_form_is_refused_before_a_byte_is_read(content_type: str) -> None:
    with pytest.raises(Invalid):
        UploadForm(content_type, pieces(b"", 1), 5, Turns())


async def test_a_body_that_stands_still_is_given_up() -> None:
    async def still() -> AsyncIterator[bytes]:
        yield VIDEO[:500]
        await asyncio.Event().wait()

    form = UploadForm(CONTENT_TYPE, still(), 0.01, Turns())
    with pytest.raises(TooSlow) as refusal:
        async for _ in form.video():
            pass
    assert refusal.value.status == 408


async def test_a_visitor_who_goes_away_cuts_the_upload_off() -> None:
    async def cut() -> AsyncIterator[bytes]:
        yield VIDEO[:500]
        raise ClientDisconnect

    form = UploadForm(CONTENT_TYPE, cut(), 5, Turns())
    with pytest.raises(BadRequest) as refusal:
        async for _ in form.video():
            pass
    assert refusal.value.code == "cut_off"


async def test_no_header_of_a_part_can_break_the_reading() -> None:
    dice = random.Random(3)
    signs = b"\"';=*%\\ \t\x00\xff\xc3\xa4abfilenamevideo/-_,:"
    for _ in range(300):
        value = bytes(dice.choices(signs, k=dice.randrange(60)))
        head = b"--" + BOUNDARY + b"\r\nContent-Disposition: " + value + b"\r\n\r\nx\r\n"
        assert (await read(closed(head, TITLE, VIDEO)))[0] in (CLIP, b"x")


async def test_while_many_upload_others_wait_for_one_piece_and_not_for_as_many_as_there_are_uploads() -> None:
    turns, parsed_since, most = Turns(), 0, 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal parsed_since
        async for piece in pieces(closed(VIDEO, TITLE), 500):
            parsed_since += 1
            yield piece

    async def upload() -> None:
        form = UploadForm(CONTENT_TYPE, body(), 5, turns)
        async for _ in form.video():
            pass
        await form.finish()

    uploads = asyncio.gather(*(upload() for _ in range(8)))
    while not uploads.done():
        parsed_since = 0
        await asyncio.sleep(0)
        most = max(most, parsed_since)
    await uploads
    assert most == 1
