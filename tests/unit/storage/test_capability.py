"""URLs of upload targets: the holder may write one file, up to so many bytes, and nothing else."""

import uuid
from typing import Any

import pytest

from shared.errors import Forbidden
from shared.media_url import MediaUrls
from storage_service.blobs.capability import UploadUrls
from storage_service.config import Settings

SECRET, OLD, OTHER = "what signs today, and is long enough", "what signed before, and is long enough", "x" * 40


def urls(secret: str = SECRET, previous: str | None = None) -> UploadUrls:
    given: dict[str, Any] = {"_env_file": None, "jwt_secret": secret, "jwt_secret_previous": previous}
    return UploadUrls(Settings(**given))


def capability(given: UploadUrls, filename: str = "video", granted: int = 1000) -> str:
    uploads, text, name = given.url(filename, granted).removeprefix("/").split("/")
    assert (uploads, name) == ("uploads", filename)
    return text


@pytest.mark.parametrize("granted", [1, 1000, 2**53])
def test_a_url_says_how_many_bytes_were_granted(granted: int) -> None:
    assert urls().granted(capability(urls(), granted=granted), "video") == granted


def test_a_url_of_the_same_grant_is_the_same() -> None:
    assert urls().url("video", 5) == urls().url("video", 5)


def test_a_capability_is_for_one_filename() -> None:
    with pytest.raises(Forbidden):
        urls().granted(capability(urls(), "video"), "video2")


def test_a_capability_changed_anywhere_is_none() -> None:
    text = capability(urls())
    changed = [text[:at] + ("B" if text[at] == "A" else "A") + text[at + 1 :] for at in range(len(text))]
    for one in [*changed, text[:-4], text + "AAAA", text[4:]]:
        with pytest.raises(Forbidden):
            urls().granted(one, "video")


@pytest.mark.parametrize("text", ["", "x", "=", "ä", "a b", "!" * 32, "A" * 32, "A" * 10_000, "..", "\0"])
def test_whatever_is_no_capability_is_refused(text: str) -> None:
    with pytest.raises(Forbidden):
        urls().granted(text, "video")


def test_the_previous_secret_counts_and_another_does_not() -> None:
    before = capability(urls(OLD))
    assert urls(previous=OLD).granted(before, "video") == 1000
    assert capability(urls(previous=OLD)) == capability(urls()), "signed with the new one"
    for given in (urls(), urls(OTHER), urls(previous=OTHER)):
        with pytest.raises(Forbidden):
            given.granted(before, "video")


def test_a_url_to_watch_a_video_is_no_right_to_write_it() -> None:
    given: dict[str, Any] = {"_env_file": None, "jwt_secret": SECRET}
    watching = MediaUrls(Settings(**given)).mint("video", uuid.uuid4()).split("/")[-2]
    with pytest.raises(Forbidden):
        urls().granted(watching, "video")
