"""Films that are watched stay open, a few of them, and not after they were removed."""

import asyncio
import os
import threading
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from unit.storage.house import SETTINGS

from storage_service.blobs.capability import UploadUrls
from storage_service.blobs.local import LocalBlobs
from storage_service.open_files import LEAST, MOST, OpenFiles


def film(folder: Path, name: str, size: int = LEAST) -> Path:
    path = folder / name
    path.write_bytes(name.encode().ljust(size, b"."))
    return path


def opened(folder: Path) -> set[str]:
    return {Path(file.path).name for file in psutil.Process().open_files() if Path(file.path).is_relative_to(folder)}


def test_a_film_is_opened_once(tmp_path: Path) -> None:
    files, path = OpenFiles(), film(tmp_path, "film")
    assert files.open(path) is files.open(path)
    assert files.open(path).size == LEAST
    assert bytes(files.open(path).content[:5]) == b"film."


def test_so_many_stay_open_the_one_asked_for_longest_ago_goes_first(tmp_path: Path) -> None:
    files = OpenFiles()
    paths = [film(tmp_path, f"film{number}") for number in range(MOST + 1)]
    for path in paths[:MOST]:
        files.open(path)
    files.open(paths[0])
    files.open(paths[MOST])
    assert opened(tmp_path) == {path.name for path in paths} - {"film1"}


def test_a_thumbnail_is_closed_when_it_was_sent(tmp_path: Path) -> None:
    files = OpenFiles()
    assert bytes(files.open(film(tmp_path, "small", 1000)).content[:6]) == b"small."
    assert bytes(files.open(film(tmp_path, "empty", 0)).content[5:]) == b""
    assert opened(tmp_path) == set()


def test_a_file_that_is_not_there_is_told_and_not_kept(tmp_path: Path) -> None:
    files = OpenFiles()
    with pytest.raises(FileNotFoundError):
        files.open(tmp_path / "film")
    film(tmp_path, "film")
    assert files.open(tmp_path / "film").size == LEAST


async def test_a_removed_film_is_closed_when_those_who_are_being_sent_it_are_done(tmp_path: Path) -> None:
    files = OpenFiles()
    blobs = LocalBlobs(tmp_path, UploadUrls(SETTINGS), removed=files.forget)
    await blobs.make_folders()
    with closing(blobs.disk):
        path = blobs.path("film", "video")
        path.parent.mkdir()
        watched = files.open(film(path.parent, path.name))
        await blobs.remove("film", None)
        with pytest.raises(FileNotFoundError):
            files.open(path)
        assert bytes(watched.content[:4]) == b"film"
        descriptor = watched.descriptor
        del watched
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


async def test_a_removal_that_is_cancelled_forgets_the_film_all_the_same(tmp_path: Path) -> None:
    files, busy = OpenFiles(), threading.Event()
    blobs = LocalBlobs(tmp_path, UploadUrls(SETTINGS), removed=files.forget)
    await blobs.make_folders()
    with closing(blobs.disk):
        path = blobs.path("film", "video")
        path.parent.mkdir()
        files.open(film(path.parent, path.name))
        blocked = [asyncio.create_task(blobs.disk.run(busy.wait)) for _ in range(4)]
        await asyncio.sleep(0)
        removal = asyncio.create_task(blobs.remove("film", None))
        await asyncio.sleep(0)
        removal.cancel()
        await asyncio.sleep(0)
        busy.set()
        await asyncio.gather(removal, *blocked, return_exceptions=True)
        assert removal.cancelled()
        with pytest.raises(FileNotFoundError):
            files.open(path)
