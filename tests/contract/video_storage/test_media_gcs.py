"""Media URLs when videos are in a bucket: the service looks at the right, counts, and sends the viewer there."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import gcs
import httpx
import pytest
import pytest_asyncio
from contract.video_storage.house import ORIGIN, House, Person, film, open_house
from quickfolder import quick_folder

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 400_000
CONTENT = film(SIZE)
BUCKET = "the-videos"
USAGE = "http://usage-service/api/usage/daily-usage"


@pytest.fixture(scope="module")
def cloud() -> Iterator[gcs.Cloud]:
    with gcs.running("fake-gcs-server") as running:
        running.make_bucket(BUCKET)
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def the_house(cloud: gcs.Cloud) -> AsyncIterator[House]:
    with quick_folder() as folder:
        async with open_house(folder, gcs_bucket=BUCKET, storage_emulator_host=cloud.url) as opened:
            opened.switchboard.outside["127.0.0.1"] = httpx.AsyncHTTPTransport()  # the bucket, to which the bytes go
            yield opened


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(the_house: House) -> str:
    return str((await (await the_house.person()).uploaded(CONTENT))["filepath"])


async def ask(house: House, url: str, method: str = "GET", **headers: str) -> httpx.Response:
    return await house.client.request(method, url, headers={n.replace("_", "-"): v for n, v in headers.items()})


async def streamed(house: House, viewer: Person) -> int:
    await house.app("storage-service").state.context.delivery.meter.report()
    return round((await viewer.get(USAGE))["streamedMb"] * 1_048_576)


async def test_the_viewer_is_sent_to_the_bucket_and_finds_the_film_there(house: House, url: str) -> None:
    answer = await ask(house, url)
    assert (answer.status_code, answer.content) == (302, b"")
    assert gcs.fetched(answer.headers["location"]) == CONTENT
    assert gcs.fetched(answer.headers["location"], Range="bytes=5-9") == CONTENT[5:10]
    jpeg = await ask(house, url.replace(".mp4", ".jpg"))
    assert jpeg.status_code == 302
    assert (gcs.fetched(jpeg.headers["location"]) or b"").startswith(b"\xff\xd8")


async def test_a_browser_may_keep_the_way_there_for_less_than_it_leads_there(house: House, url: str) -> None:
    headers = (await ask(house, url)).headers
    assert headers["cache-control"] == "private, max-age=450"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert not headers.keys() & {"content-type", "content-disposition", "etag", "last-modified"}


async def test_a_page_of_another_origin_may_follow(house: House, url: str) -> None:
    answer = await ask(house, url, origin=ORIGIN)
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    [rule] = json.loads((Path(__file__).parents[3] / "storage-service/bucket/cors.json").read_text())
    assert rule["origin"] == ["*"], "who was sent on from one origin to another asks there as nobody"
    assert rule["method"] == ["GET", "HEAD"]
    assert {"Range", "Content-Range", "Content-Length"} <= set(rule["responseHeader"])


async def test_all_viewers_are_sent_to_the_same_place(house: House, url: str, ben: Person) -> None:
    filename = urlsplit(url).path.rsplit("/", 1)[1].removesuffix(".mp4")
    bens = (await ben.get(f"http://video-service/api/videos/stream/{filename}"))["url"]
    assert bens != url
    assert (await ask(house, bens)).headers["location"] == (await ask(house, url)).headers["location"]


async def test_a_forged_capability_is_sent_nowhere(house: House, url: str) -> None:
    base, capability, name = url.rsplit("/", 2)
    for forged in ("A" * len(capability), capability[:-2], "-"):
        answer = await ask(house, f"{base}/{forged}/{name}")
        assert answer.status_code == 403
        assert "location" not in answer.headers


async def test_what_a_viewer_is_sent_for_is_what_he_streamed(house: House, ann: Person) -> None:
    entry = await ann.uploaded(film(100_000))
    url = entry["filepath"]
    assert (await ask(house, url)).status_code == 302
    assert await streamed(house, ann) == 100_000
    assert (await ask(house, url, range="bytes=0-499")).status_code == 302
    assert (await ask(house, url, range="bytes=-500", if_none_match="*")).status_code == 302
    assert await streamed(house, ann) == 101_000
    for uncounted in ({"method": "HEAD"}, {"url": url.replace(".mp4", ".jpg")}):
        assert (await ask(house, **({"url": url} | uncounted))).status_code == 302
    outside = await ask(house, url, range="bytes=100000-")
    assert (outside.status_code, outside.headers["content-range"]) == (416, "bytes */100000")
    assert await streamed(house, ann) == 101_000


async def test_a_deleted_film_is_a_404_and_gone_from_the_bucket(house: House, ann: Person, cloud: gcs.Cloud) -> None:
    entry = await ann.uploaded(film())
    keys = {f"videos/{entry['filename']}.mp4", f"thumbnails/{entry['filename']}.jpg"}
    assert keys <= cloud.objects(BUCKET).keys()
    there = (await ask(house, entry["filepath"])).headers["location"]
    deleted = await ann.ask("DELETE", f"http://video-service/api/videos/delete/{entry['filename']}")
    assert deleted.status_code == 200, deleted.text
    assert not keys & cloud.objects(BUCKET).keys()
    assert (await ask(house, entry["filepath"])).status_code == 404
    assert gcs.fetched(there) is None


async def test_what_is_no_video_leaves_nothing_in_the_bucket(house: House, ann: Person, cloud: gcs.Cloud) -> None:
    before = cloud.objects(BUCKET)
    refused = await ann.upload(b"<html>" * 1000)
    assert refused.status_code == 415
    assert cloud.objects(BUCKET) == before
    assert house.holds_nothing_for(ann)


async def test_a_bucket_that_is_away_is_a_503_and_the_service_says_that_it_is_not_ready(
    house: House, ann: Person, cloud: gcs.Cloud
) -> None:
    ready = "http://storage-service/ready"
    assert (await house.client.get(ready)).json()["checks"]["storage"] == "ok"
    cloud.front.refuse = 403
    try:
        refused = await ann.upload(film())
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        answer = await house.client.get(ready)
        assert (answer.status_code, answer.json()["checks"]["storage"]) == (503, "unreachable")
    finally:
        cloud.front.forget()
    assert house.holds_nothing_for(ann)
    assert (await ann.upload(film())).status_code == 200
