"""What is refused is refused early where that is possible, and leaves nothing."""

import time
from collections.abc import Callable
from typing import Any

import pytest
import videos
from e2e.books import nothing_left_of
from e2e.people import Form, Person
from e2e.processes import wait_for
from e2e.services import Services
from e2e.wire import Wire, chunk, upload_head

from shared.settings import MIB

SMALL = 100_000


@pytest.fixture
def ada(services: Services) -> Person:
    return Person(services, "Ada")


# Before the body


@pytest.mark.parametrize("expect", [{}, {"Expect": "100-continue"}], ids=["at once", "asking first"])
@pytest.mark.parametrize("token", [None, "null", "a.b.c", "of a service"])
def test_a_bad_token_is_refused_before_any_of_its_50_mb_is_sent(ada: Person, token: str | None, expect: Any) -> None:
    headers = {
        "Content-Length": str(50 * MIB),
        "Content-Type": Form(b"").content_type,
        "Origin": "http://localhost:3000",
    }
    if token == "of a service":
        headers |= ada.services.service_headers()
    elif token is not None:
        headers["Authorization"] = f"Bearer {token}"
    with Wire(ada.services["video"]) as wire:
        asked = time.monotonic()
        wire.send_head("POST", "/api/videos/upload", headers | expect)
        answer = wire.answer()
    assert (answer.status, bool(answer.message)) == (401, True)
    assert answer.headers["access-control-allow-origin"] == "http://localhost:3000"
    assert time.monotonic() - asked < 1


def test_what_can_never_fit_is_refused_before_the_body(ada: Person, film: bytes) -> None:
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, Form(film), Content_Length=str(60 * MIB), Expect="100-continue")
        answer = wire.answer()
    assert (answer.status, "one upload" in answer.message) == (413, True)
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, Form(film), Content_Type="application/json", Expect="100-continue")
        assert wire.answer().status == 422


def test_who_asks_first_is_told_to_go_on(ada: Person, film: bytes) -> None:
    form = Form(film)
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, form, Expect="100-continue")
        assert wire.answer().status == 100
        for piece in form.pieces():
            wire.send(piece)
        assert wire.answer().status == 200


# What is refused leaves nothing

BAD_VIDEOS: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "random bytes": lambda: videos.random_bytes(SMALL),
    "text": lambda: b"What a film! " * 9_000,
    "a playlist": videos.playlist,
    "a list of files": videos.concat_file,
    "a reference to another file": videos.external_reference,
    "no index": videos.without_moov,
    "truncated": videos.truncated,
    "audio only": videos.audio_only,
    "audio with a cover": videos.cover_art_audio,
    "absurd dimensions": videos.absurd_dimensions,
    "absurd pictures": videos.absurd_frame,
    "absurd index": videos.header_only_huge,
    "undecodable": videos.undecodable,
    **{kind: lambda kind=kind: videos.html_polyglot(kind) for kind in videos.POLYGLOTS},
}


@pytest.mark.parametrize("kind", BAD_VIDEOS)
def test_what_is_no_video_is_refused_and_leaves_nothing(ada: Person, kind: str) -> None:
    refused = ada.upload(BAD_VIDEOS[kind]())
    assert refused.status_code == (422 if kind == "empty" else 415), refused.text
    assert refused.json()["message"]
    assert nothing_left_of(ada.services, ada.id) == []
    assert ada.usage()["totalUsageMb"] == ada.storage()["totalSizeMb"] == 0


PART = '--{boundary}\r\nContent-Disposition: form-data; name="video"; filename="b.mp4"\r\n\r\nsecond\r\n'
BAD_FORMS: dict[str, tuple[int, Callable[[Form], bytes]]] = {
    "no title": (422, lambda form: form.head + form.video + f"\r\n--{form.boundary}--\r\n".encode()),
    "no video": (422, lambda form: form.tail[2:]),
    "two videos": (
        422,
        lambda form: form.head + form.video + b"\r\n" + PART.format(boundary=form.boundary).encode() + form.tail[2:],
    ),
    "a title like a book": (413, lambda form: form.head + form.video + form.tail.replace(b"A film", b"x" * SMALL)),
    "no end": (400, lambda form: form.head + form.video),
    "another boundary": (400, lambda form: form.head.replace(b"--", b"-+", 1) + form.video + form.tail),
    "nothing": (422, lambda form: b""),
}


@pytest.mark.parametrize("kind", BAD_FORMS)
def test_a_bad_form_is_refused_and_leaves_nothing(ada: Person, film: bytes, kind: str) -> None:
    form = Form(film)
    status, make = BAD_FORMS[kind]
    refused = ada.services.client.post(
        f"{ada.services['video'].url}/api/videos/upload",
        headers=ada.headers | {"Content-Type": form.content_type},
        content=make(form),
    )
    assert refused.status_code == status, refused.text
    assert nothing_left_of(ada.services, ada.id) == []


@pytest.mark.parametrize(
    ("title", "status"), [("", 422), ("  \t ", 422), ("x" * 256, 422), ("\0", 422), ("x" * 255, 200)]
)
def test_a_title_is_one_to_255_characters(ada: Person, film: bytes, title: str, status: int) -> None:
    answer = ada.upload(film, title)
    assert answer.status_code == status, answer.text
    assert status == 200 or nothing_left_of(ada.services, ada.id) == []


# Who goes away, or stands still


@pytest.mark.parametrize("how", ["hangs up", "crashes"])
@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
def test_a_client_that_goes_away_leaves_nothing_and_may_upload_again(
    ada: Person, film: bytes, chunked: bool, how: str
) -> None:
    form = Form(film)
    half = form.head + film[: len(film) // 2]
    with Wire(ada.services["video"]) as wire:
        if chunked:
            upload_head(wire, ada, form, Transfer_Encoding="chunked")
            wire.send(chunk(half))
        else:
            upload_head(wire, ada, form)
            wire.send(half)
        wait_for(ada.services.engine.is_receiving)
        if how == "crashes":
            wire.reset()
    wait_for(lambda: nothing_left_of(ada.services, ada.id) == [], seconds=2)
    assert ada.upload(film).status_code == 200


@pytest.mark.parametrize(
    "where", ["before the first byte", "in the head of a part", "in the video", "before the title"]
)
def test_a_client_that_stands_still_is_told_so_and_leaves_nothing(ada: Person, film: bytes, where: str) -> None:
    form = Form(film)
    sent = {
        "before the first byte": b"",
        "in the head of a part": form.head[:30],
        "in the video": form.head + film[:SMALL],
        "before the title": form.head + film + form.tail[:10],
    }[where]
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, form)
        wire.send(sent)
        answer = wire.answer()
        assert (answer.status, "stood still" in answer.message) == (408, True)
        assert nothing_left_of(ada.services, ada.id) == []
    assert ada.upload(film).status_code == 200


def test_a_client_that_stands_still_holds_up_nobody_else(ada: Person, film: bytes) -> None:
    with Wire(ada.services["video"]) as wire:
        upload_head(wire, ada, Form(film))
        bob = Person(ada.services, "Bob")
        assert bob.upload(film).status_code == 200
        assert wire.answer().status == 408
