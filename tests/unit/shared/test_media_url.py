"""Media URLs: one right, for one file, one viewer, some hours."""

import base64
import uuid
from typing import Any

import pytest
from pydantic import SecretStr

from shared.errors import Forbidden
from shared.media_url import Capability, MediaUrls
from shared.settings import ServiceSettings

ANNE = uuid.uuid4()
WINDOW = 1000
PUBLIC = "http://storage.test:3003"


class Time:
    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time(10_000)


@pytest.fixture
def urls(settings: ServiceSettings, time: Time) -> MediaUrls:
    return MediaUrls(settings, PUBLIC, WINDOW, time)


def capability_of(url: str) -> str:
    return url.split("/")[-2]


def test_a_url_says_which_video_and_mp4_once(urls: MediaUrls) -> None:
    for _ in range(200):
        url = urls.mint("a-B_9", uuid.uuid4())
        assert url.startswith(f"{PUBLIC}/media/")
        assert url.endswith("/a-B_9.mp4")
        assert url.count(".mp4") == 1
        assert "." not in capability_of(url)
        assert url.replace(".mp4", ".jpg", 1).endswith("/a-B_9.jpg")


def test_a_capability_opens_what_it_was_minted_for(urls: MediaUrls) -> None:
    assert urls.open(capability_of(urls.mint("a", ANNE)), "a") == Capability(ANNE, 12_000)


def test_it_opens_no_other_file(urls: MediaUrls) -> None:
    with pytest.raises(Forbidden):
        urls.open(capability_of(urls.mint("a", ANNE)), "b")


def test_the_url_stays_the_same_within_a_window_and_differs_between_viewers(urls: MediaUrls, time: Time) -> None:
    first = urls.mint("a", ANNE)
    time.now = 10_999.9
    assert urls.mint("a", ANNE) == first
    assert urls.mint("a", uuid.uuid4()) != first
    time.now = 11_000
    assert urls.mint("a", ANNE) != first


@pytest.mark.parametrize("minted_at", [10_000, 10_500, 10_999.9])
def test_it_lives_between_one_window_and_two(urls: MediaUrls, time: Time, minted_at: float) -> None:
    time.now = minted_at
    capability = capability_of(urls.mint("a", ANNE))
    time.now = minted_at + WINDOW
    urls.open(capability, "a")
    time.now = minted_at + 2 * WINDOW
    with pytest.raises(Forbidden) as refused:
        urls.open(capability, "a")
    assert refused.value.code == "expired_capability"


def test_a_capability_with_any_byte_changed_is_refused(urls: MediaUrls) -> None:
    capability = capability_of(urls.mint("a", ANNE))
    raw = base64.urlsafe_b64decode(capability + "==")
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]
        with pytest.raises(Forbidden):
            urls.open(base64.urlsafe_b64encode(changed).decode().rstrip("="), "a")


def test_bytes_cannot_move_from_the_claim_to_the_filename(urls: MediaUrls) -> None:
    raw = base64.urlsafe_b64decode(capability_of(urls.mint("Xa", ANNE)) + "==")
    shifted = raw[:21] + b"X" + raw[21:]
    with pytest.raises(Forbidden):
        urls.open(base64.urlsafe_b64encode(shifted).decode().rstrip("="), "a")


@pytest.mark.parametrize("damaged", ["", "=", "a", "null", "é", "a b", "A" * 50, "A" * 5000, "../..", "a\n"])
def test_a_damaged_capability_is_refused(urls: MediaUrls, damaged: str) -> None:
    with pytest.raises(Forbidden):
        urls.open(damaged, "a")


def test_the_previous_secret_still_opens_and_a_foreign_one_does_not(settings: ServiceSettings, urls: Any) -> None:
    other = SecretStr("the new secret of these tests, 32 bytes and more")
    rotated = settings.model_copy(update={"jwt_secret": other, "jwt_secret_previous": settings.jwt_secret})
    foreign = settings.model_copy(update={"jwt_secret": other})
    capability = capability_of(urls.mint("a", ANNE))
    assert MediaUrls(rotated, PUBLIC, WINDOW, lambda: 10_000).open(capability, "a").viewer == ANNE
    with pytest.raises(Forbidden):
        MediaUrls(foreign, PUBLIC, WINDOW, lambda: 10_000).open(capability, "a")


def test_one_minter_for_many_files_makes_the_same_urls(urls: MediaUrls) -> None:
    mint = urls.minter(ANNE)
    for filename in ("a", "b", "a", "x" * 64):
        assert mint(filename) == urls.mint(filename, ANNE)
        assert urls.open(capability_of(mint(filename)), filename) == Capability(ANNE, 12_000)
