"""A page is written as its model would write it."""

import uuid
from dataclasses import replace
from datetime import UTC, datetime
from typing import ClassVar

import pytest
from pydantic import SecretStr

from shared.cursor import Cursor
from shared.media_url import MediaUrls
from shared.settings import ServiceSettings
from video_service.models import VideoOut, VideoPage
from video_service.store import Page, Video

ANN = uuid.uuid4()
FILM = Video(uuid.uuid4(), ANN, "a-film", "A film", datetime(2026, 11, 24, 12, tzinfo=UTC), 1_572_864, 10.0, 640, 480)
FILMS = [
    FILM,
    *(replace(FILM, title=title) for title in ("Grüße 😀", "\"quoted\" 'so' \\ </script>", "\x01\n\u2028\uffff")),
    *(replace(FILM, uploaded_at=FILM.uploaded_at.replace(microsecond=part)) for part in (1, 100_000, 999_999)),
    *(replace(FILM, size=size) for size in (0, 1, 700, 52_428_799, 2**40 + 1)),
    *(replace(FILM, duration=duration) for duration in (None, 0.1, 1e-7, 1e16, 1 / 3, float("inf"))),
]


class Caller(ServiceSettings):
    service: ClassVar[str] = "video-service"
    port: int = 0


@pytest.mark.parametrize("goes_on", [Cursor("2026-11-24T12:00:00.000000Z", 7), None])
@pytest.mark.parametrize("count", [0, 1, len(FILMS)])
def test_it_is_byte_for_byte_what_the_model_writes(count: int, goes_on: Cursor | None) -> None:
    settings = Caller(_env_file=None, jwt_secret=SecretStr("the suite signs with this, and nobody else"))
    urls = MediaUrls(settings, "http://media.test", now=lambda: 10_000)
    films = FILMS[:count]
    model = VideoPage(
        videos=[VideoOut.of(film, urls, ANN) for film in films], total=7, next=goes_on and goes_on.encoded()
    )
    written = VideoPage.written(Page([film.listed() for film in films], 7, goes_on), urls, ANN)
    assert written == model.model_dump_json().encode()
