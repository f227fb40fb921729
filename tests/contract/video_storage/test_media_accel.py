"""Media behind an nginx that sends the files: it is told which one, everybody else hears what he always did."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

import httpx
import pytest
import pytest_asyncio
from contract.video_storage.house import ORIGIN, House, Person, film, open_house, wait_until
from quickfolder import quick_folder

from shared.settings import MIB

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTENT = film(200_000)
# What nginx says itself of the file that it sends.
OF_NGINX = {"content-length", "accept-ranges", "content-range"}


@dataclass
class Stored:
    house: House
    url: str
    filename: str
    viewer: Person

    async def fetch(self, method: str = "GET", url: str = "", **headers: str) -> httpx.Response:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self.house.client.request(method, url or self.url, headers=named | {"Origin": ORIGIN})

    def file(self, answer: httpx.Response) -> bytes:
        """What is at the place that nginx was told."""
        told = answer.headers["x-accel-redirect"]
        assert told.startswith("/by-nginx/")
        folder = self.house.settings["storage-service"].data_dir / "objects"
        return bytes((folder / told.removeprefix("/by-nginx/")).read_bytes())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stored() -> AsyncIterator[Stored]:
    with quick_folder() as folder:
        async with open_house(folder, accel_redirect="/by-nginx/") as house:
            viewer = await house.person()
            entry = await viewer.uploaded(CONTENT)
            yield Stored(house, entry["filepath"], entry["filename"], viewer)


async def test_nginx_is_told_which_file_and_all_that_is_said_without_it(stored: Stored) -> None:
    for url, content_type in ((stored.url, "video/mp4"), (stored.url.replace(".mp4", ".jpg"), "image/jpeg")):
        answer = await stored.fetch(url=url)
        assert (answer.status_code, answer.content) == (200, b"")
        assert answer.headers["content-type"] == content_type
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        # A HEAD is never sent on: it shows what is said without nginx.
        whole = await stored.fetch("HEAD", url)
        assert int(whole.headers["content-length"]) == len(stored.file(answer))
        said = {name: value for name, value in answer.headers.items() if name != "x-accel-redirect"}
        assert said.keys() - OF_NGINX == whole.headers.keys() - OF_NGINX
        assert [said[name] for name in said.keys() - OF_NGINX] == [
            whole.headers[name] for name in said.keys() - OF_NGINX
        ]
    assert stored.file(await stored.fetch()) == CONTENT


async def test_what_is_refused_or_known_or_odd_is_answered_as_ever(stored: Stored) -> None:
    etag = (await stored.fetch("HEAD")).headers["etag"]
    size = len(CONTENT)
    for status, headers in (
        (304, {"if_none_match": etag}),
        (416, {"range": f"bytes={size}-"}),
        (200, {"range": "bytes=0-0,5-5"}),
        (200, {"if_match": etag}),
        (200, {"range": "bytes=1-5", "if_range": '"x"'}),
    ):
        answer = await stored.fetch(**headers)
        assert answer.status_code == status, headers
        assert "x-accel-redirect" not in answer.headers, headers
        assert answer.content == CONTENT if status == 200 else True
    forged = await stored.fetch(url=stored.url.replace("/media/", "/media/A"))
    assert (forged.status_code, "x-accel-redirect" in forged.headers) == (403, False)


async def test_what_was_asked_for_is_counted_for_the_one_who_watches(stored: Stored) -> None:
    ben = await stored.house.person()
    url = (await ben.get(f"http://video-service/api/videos/stream/{stored.filename}"))["url"]
    await stored.fetch(url=url)
    await stored.fetch(url=url, range="bytes=-1000")
    await stored.fetch("HEAD", url)
    await stored.fetch(url=url, range=f"bytes={len(CONTENT)}-")
    expected = (len(CONTENT) + 1000) / MIB

    async def streamed() -> float:
        return float((await ben.get("http://usage-service/api/usage/daily-usage"))["streamedMb"])

    async def all_is_counted() -> bool:
        return await streamed() >= expected

    await wait_until(all_is_counted)
    await asyncio.sleep(0.1)  # more would come by then
    assert await streamed() == expected


async def test_a_video_that_is_deleted_or_whose_file_is_gone_is_a_404(stored: Stored) -> None:
    entry = await stored.viewer.uploaded(film())
    assert "x-accel-redirect" in (await stored.fetch(url=entry["filepath"])).headers
    folder = stored.house.settings["storage-service"].data_dir / "objects"
    (path,) = folder.glob(f"*/{entry['filename']}.video")
    path.unlink()
    gone = await stored.fetch(url=entry["filepath"])
    assert (gone.status_code, gone.json()["code"]) == (404, "not_found")
