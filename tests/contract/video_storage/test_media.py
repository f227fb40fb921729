"""Media URLs over HTTP, as a bare ``<video>`` or ``<img>`` fetches them: with no header and no cookie of ours."""

import hashlib
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import httpx
import pytest
import pytest_asyncio
from contract.video_storage.house import ORIGIN, House, Person, film

from shared.media_url import MediaUrls

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 400_000
CONTENT = film(SIZE)
USAGE = "http://usage-service/api/usage/daily-usage"


@dataclass
class Stored:
    """One film that is there for all tests of this file, and who watches it."""

    url: str
    filename: str
    viewer: Person


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored(the_house: House) -> Stored:
    viewer = await the_house.person()
    entry = await viewer.uploaded(CONTENT)
    return Stored(entry["filepath"], entry["filename"], viewer)


async def fetch(house: House, url: str, method: str = "GET", **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await house.client.request(method, url, headers=named)


async def test_the_whole_film_arrives_with_everything_a_browser_wants_to_know(house: House, stored: Stored) -> None:
    answer = await fetch(house, stored.url)
    assert answer.status_code == 200
    assert hashlib.sha256(answer.content).digest() == hashlib.sha256(CONTENT).digest()
    headers = answer.headers
    assert (headers["content-type"], headers["content-length"]) == ("video/mp4", str(SIZE))
    assert (headers["accept-ranges"], headers["content-disposition"]) == ("bytes", "inline")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cache-control"].startswith("private, max-age=")
    assert headers["etag"].startswith('"')
    assert "last-modified" in headers


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-1", 0, 2), ("bytes=399999-", 399_999, SIZE), ("bytes=-100000", 300_000, SIZE), ("bytes=0-", 0, SIZE)],
)
async def test_a_part_is_a_206_and_exactly_that_part(
    house: House, stored: Stored, asked: str, start: int, stop: int
) -> None:
    answer = await fetch(house, stored.url, range=asked)
    assert (answer.status_code, answer.headers["content-range"]) == (206, f"bytes {start}-{stop - 1}/{SIZE}")
    assert (answer.content, answer.headers["content-length"]) == (CONTENT[start:stop], str(stop - start))
    assert answer.headers["content-type"] == "video/mp4"


@pytest.mark.parametrize("asked", ["bytes=400000-", "bytes=-0"])
async def test_a_part_outside_is_a_416_that_tells_the_size(house: House, stored: Stored, asked: str) -> None:
    answer = await fetch(house, stored.url, range=asked, origin=ORIGIN)
    assert (answer.status_code, answer.headers["content-range"]) == (416, f"bytes */{SIZE}")
    assert answer.headers.keys() & {"etag", "content-disposition"} == set()


async def test_a_head_request_is_answered_like_a_get_without_the_bytes(house: House, stored: Stored) -> None:
    for url in (stored.url, stored.url.replace(".mp4", ".jpg")):
        head, get = await fetch(house, url, "HEAD"), await fetch(house, url)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers == get.headers


async def test_who_has_it_already_gets_a_304_and_who_has_a_part_the_rest(house: House, stored: Stored) -> None:
    first = await fetch(house, stored.url)
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for condition in ({"if_none_match": etag}, {"if_none_match": f'"x", W/{etag}'}, {"if_modified_since": modified}):
        answer = await fetch(house, stored.url, **condition)
        assert (answer.status_code, answer.content, answer.headers["etag"]) == (304, b"", etag)
    for known in (etag, modified):
        assert (await fetch(house, stored.url, range="bytes=5-9", if_range=known)).content == CONTENT[5:10]
    for unknown in (f"W/{etag}", '"x"', format_datetime(datetime.now(UTC) - timedelta(days=1), usegmt=True)):
        assert (await fetch(house, stored.url, range="bytes=5-9", if_range=unknown)).status_code == 200


async def test_the_url_stays_the_same_so_that_a_cache_works_and_differs_for_each_viewer(
    house: House, stored: Stored, ben: Person
) -> None:
    again = await stored.viewer.get(f"http://video-service/api/videos/stream/{stored.filename}")
    assert again["url"] == stored.url
    bens = (await ben.get(f"http://video-service/api/videos/stream/{stored.filename}"))["url"]
    assert bens != stored.url
    first, second = await fetch(house, stored.url), await fetch(house, bens)
    assert first.headers["etag"] == second.headers["etag"]


async def test_a_capability_opens_its_own_film_and_thumbnail_and_nothing_else(house: House, stored: Stored) -> None:
    other = await stored.viewer.uploaded(film())
    base, capability, _ = stored.url.rsplit("/", 2)
    capabilities = {
        "another film's": other["filepath"].rsplit("/", 2)[1],
        "damaged": ("A" if capability[0] != "A" else "B") + capability[1:],
        "cut": capability[:-2],
        "longer": capability + "AAAA",
        "empty-like": "-",
        "no base64": "%C3%A4%25",
        "a token": stored.viewer.token.replace(".", "-"),
        "a dot": capability + ".x",
    }
    for name, forged in capabilities.items():
        for suffix in (".mp4", ".jpg"):
            answer = await fetch(house, f"{base}/{forged}/{stored.filename}{suffix}")
            assert answer.status_code == 403, name
            assert isinstance(answer.json()["message"], str)


@pytest.mark.parametrize("hours", [-1000, -13])
async def test_a_capability_that_has_expired_is_a_403(house: House, stored: Stored, hours: int) -> None:
    then = datetime.now(UTC).timestamp() + hours * 3600
    urls = MediaUrls(house.settings["video-service"], "http://storage-service", now=lambda: then)
    assert (await fetch(house, urls.mint(stored.filename, stored.viewer.id))).status_code == 403


@pytest.mark.parametrize("secret", ["another secret of at least thirty-two bytes"])
async def test_a_capability_signed_with_another_secret_is_a_403(house: House, stored: Stored, secret: str) -> None:
    settings = type(house.settings["video-service"])(_env_file=None, jwt_secret=secret)
    urls = MediaUrls(settings, "http://storage-service")
    assert (await fetch(house, urls.mint(stored.filename, stored.viewer.id))).status_code == 403


async def test_what_does_not_exist_is_a_404_even_with_a_good_capability(house: House, stored: Stored) -> None:
    urls = MediaUrls(house.settings["video-service"], "http://storage-service")
    assert (await fetch(house, urls.mint("unknown", uuid.uuid4()))).status_code == 404
    base = stored.url.rsplit("/", 1)[0]
    for path in ("..%2f..%2fstorage.mp4", "a.b.mp4", f"{stored.filename}.mov", f"{stored.filename}", ".mp4", "ä.mp4"):
        assert (await fetch(house, f"{base}/{path}")).status_code == 404, path


async def test_a_film_whose_files_are_lost_is_a_404(house: House, ann: Person) -> None:
    entry = await ann.uploaded(film())
    for path in house.settings["storage-service"].data_dir.rglob(f"{entry['filename']}.*"):
        path.unlink()
    assert (await fetch(house, entry["filepath"])).status_code == 404


async def test_another_method_is_a_405_that_names_a_right_one(house: House, stored: Stored) -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        answer = await fetch(house, stored.url, method)
        assert answer.status_code == 405
        assert {word.strip() for word in answer.headers["allow"].split(",")} <= {"GET", "HEAD"}


async def test_media_needs_no_token_and_takes_no_notice_of_a_wrong_one(house: House, stored: Stored) -> None:
    assert (await fetch(house, stored.url, authorization="Bearer null")).status_code == 200


async def test_what_was_sent_is_reported_to_the_byte_as_what_its_viewer_streamed(house: House, ann: Person) -> None:
    entry = await ann.uploaded(film(100_000))
    await fetch(house, entry["filepath"])
    await fetch(house, entry["filepath"], range="bytes=0-499")
    await fetch(house, entry["filepath"], "HEAD")
    await fetch(house, entry["filepath"], if_none_match="*")
    await fetch(house, entry["filepath"], range="bytes=100000-")
    jpeg = await fetch(house, entry["filepath"].replace(".mp4", ".jpg"))
    meter = house.app("storage-service").state.context.delivery.meter
    await meter.report()
    assert (await ann.get(USAGE))["streamedMb"] == (100_500 + len(jpeg.content)) / 1_048_576
