"""The processes around a judge: they are ready, few, confined, replaced when they die, and gone when they should be."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import uvloop
import videos

from storage_service.inspection import Inspector, NotAVideo
from storage_service.probe import NICENESS

PATIENT = 60.0  # seconds, for a film that is fine on a machine that is busy
HOSTILE = (sys.executable, "-P", str(Path(__file__).with_name("hostile.py")))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film"
    path.write_bytes(videos.mp4())
    return path


@pytest.fixture(autouse=True)
def strangers() -> None:
    """What other tests have started is not counted here."""
    STRANGERS.clear()
    STRANGERS.update(psutil.Process().children())


STRANGERS: set[psutil.Process] = set()


def processes() -> list[psutil.Process]:
    found: list[psutil.Process] = []
    for server in set(psutil.Process().children()) - STRANGERS:
        with suppress(psutil.NoSuchProcess):
            family = [server, *server.children(recursive=True)]
            found += [process for process in family if process.status() != psutil.STATUS_ZOMBIE]
    return found


def judges() -> list[psutil.Process]:
    return [process for process in processes() if process.ppid() != os.getpid()]


async def eventually(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        await asyncio.sleep(0.005)


async def test_a_film_is_described(film: Path) -> None:
    async with Inspector() as inspector:
        found = await inspector.inspect(film)
    assert (found.content_type, found.duration, found.width, found.height) == ("video/mp4", 2, 320, 240)
    assert found.thumbnail.startswith(b"\xff\xd8")


async def test_what_is_no_film_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "page").write_bytes(videos.html_polyglot())
    async with Inspector() as inspector:
        with pytest.raises(NotAVideo, match="cut short"):
            await inspector.inspect(tmp_path / "page")


async def test_a_path_that_is_wrong_is_our_fault_and_not_the_films(tmp_path: Path) -> None:
    async with Inspector() as inspector:
        with pytest.raises(FileNotFoundError):
            await inspector.inspect(tmp_path / "missing")
        with pytest.raises(IsADirectoryError):
            await inspector.inspect(tmp_path)


async def test_many_at_once_all_get_their_own_answer(tmp_path: Path) -> None:
    for number in range(1, 11):
        (tmp_path / str(number)).write_bytes(videos.mp4(seconds=0.2, width=32 * number, height=64))
    async with Inspector() as inspector:
        found = await asyncio.gather(*[inspector.inspect(tmp_path / str(number)) for number in range(1, 11)])
    assert [one.width for one in found] == [32 * number for number in range(1, 11)]


async def test_two_work_at_once_and_a_third_waits(tmp_path: Path, film: Path) -> None:
    async with Inspector(judges=2, seconds=1, server=HOSTILE) as inspector:
        sleepers = [asyncio.create_task(inspector.inspect(tmp_path / "sleeps")) for _ in range(2)]
        await asyncio.sleep(0)
        inspector.seconds = PATIENT  # from here on
        third = asyncio.create_task(inspector.inspect(film))
        done, _ = await asyncio.wait([*sleepers, third], return_when=asyncio.FIRST_COMPLETED)
        assert third not in done
        assert (await third).width == 320
        await asyncio.wait(sleepers)


async def test_processes_are_as_many_at_rest_as_after_a_rush(film: Path) -> None:
    async with Inspector(judges=2) as inspector:
        assert len(processes()) == 3
        await asyncio.gather(*[inspector.inspect(film) for _ in range(8)])
        await eventually(lambda: len(processes()) == 3)


@pytest.mark.parametrize(
    ("name", "seconds", "why"),
    [
        ("burns", 15, "limits of time and memory"),
        ("eats", 15, "could not be read as a video"),
        ("sleeps", 1, "within 1 seconds"),
        ("crashes", 15, "limits of time and memory"),
        ("stutters", 15, "limits of time and memory"),
        ("floods", 15, "limits of time and memory"),
        ("blunders", 15, "limits of time and memory"),
    ],
)
async def test_a_file_that_is_the_end_of_its_judge_is_refused_and_the_next_is_judged(
    name: str, seconds: float, why: str, tmp_path: Path, film: Path
) -> None:
    async with Inspector(judges=1, seconds=seconds, server=HOSTILE) as inspector:
        with pytest.raises(NotAVideo, match=why):
            await inspector.inspect(tmp_path / name)
        inspector.seconds = PATIENT
        assert (await inspector.inspect(film)).width == 320
        await eventually(lambda: len(processes()) == 2)


@pytest.mark.parametrize("make", [videos.absurd_frame, videos.header_only_huge])
async def test_a_small_file_that_wants_gigabytes_is_refused(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(make())
    async with Inspector() as inspector:
        with pytest.raises(NotAVideo):
            await inspector.inspect(tmp_path / "bomb")


async def test_a_judge_that_died_while_it_waited_is_not_blamed_on_the_next_file(film: Path) -> None:
    async with Inspector(judges=2) as inspector:
        for judge in judges():
            judge.kill()
        await eventually(lambda: not judges())
        await asyncio.sleep(0.01)
        assert (await inspector.inspect(film)).width == 320


async def test_a_server_that_died_is_replaced(film: Path) -> None:
    async with Inspector(judges=1) as inspector:
        for _ in range(2):
            next(child for child in processes() if child.ppid() == os.getpid()).kill()
            for _ in range(3):
                assert (await inspector.inspect(film)).width == 320


async def test_a_server_that_cannot_start_stops_the_start() -> None:
    with pytest.raises(ChildProcessError):
        async with Inspector(server=(sys.executable, "-c", "")):
            pass
    assert not processes()


async def test_who_gives_up_waiting_takes_nothing_from_the_others(tmp_path: Path, film: Path) -> None:
    async with Inspector(judges=1, server=HOSTILE) as inspector:
        task = asyncio.create_task(inspector.inspect(tmp_path / "sleeps"))
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(inspector.inspect(film))
        await asyncio.sleep(0.05)
        waiting.cancel()
        task.cancel()
        assert (await inspector.inspect(film)).width == 320
        await eventually(lambda: len(processes()) == 2)


async def test_closing_leaves_no_process_and_takes_no_time(tmp_path: Path) -> None:
    async with Inspector(server=HOSTILE) as inspector:
        task = asyncio.create_task(inspector.inspect(tmp_path / "sleeps"))
        await asyncio.sleep(0.05)
        began = time.monotonic()
    assert time.monotonic() - began < 30
    with pytest.raises(ChildProcessError):  # and not NotAVideo: nobody has judged that file
        await task
    await eventually(lambda: not processes())


async def test_the_loop_goes_on_while_the_processes_start() -> None:
    slow = "import time; time.sleep(0.3); from storage_service import probe; probe.main()"
    start = asyncio.create_task(Inspector(server=(sys.executable, "-c", slow)).__aenter__())
    beats = 0
    while not start.done():
        await asyncio.sleep(0.005)
        beats += 1
    await start.result().__aexit__(None, None, None)
    assert beats > 5


async def test_a_judge_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "secret")
    async with Inspector():
        for process in processes():
            assert "JWT_SECRET" not in process.environ()
            assert not [file for file in process.memory_maps() if "pydantic" in file.path]


async def test_a_judge_gives_way_to_the_service(film: Path) -> None:
    async with Inspector() as inspector:
        await inspector.inspect(film)
        assert {process.nice() for process in processes()} == {psutil.Process().nice() + NICENESS}


async def test_an_interrupt_for_the_whole_group_ends_no_judge(film: Path) -> None:
    async with Inspector() as inspector:
        for process in processes():
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        before = {process.pid for process in processes()}
        assert (await inspector.inspect(film)).width == 320
        assert before & {process.pid for process in processes()}


def test_judges_and_server_go_when_the_service_is_killed() -> None:
    service = """
import asyncio
from storage_service.inspection import Inspector
async def main():
    async with Inspector():
        print("ready", flush=True)
        await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", service], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        orphans = psutil.Process(parent.pid).children(recursive=True)
        assert len(orphans) >= 2
        parent.kill()
    _, alive = psutil.wait_procs(orphans, timeout=10)
    assert not [orphan for orphan in alive if orphan.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_it_works_on_either_event_loop(run: Callable[[Coroutine[Any, Any, None]], None], film: Path) -> None:
    async def main() -> None:
        async with Inspector() as inspector:
            assert (await inspector.inspect(film)).width == 320

    run(main())
    assert not processes()
