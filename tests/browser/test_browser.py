"""The frontend's stand-in in a real Chromium: what its user sees works, and its console stays empty."""

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

import av
import pytest
import videos
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from browser.visitor import PASSWORD, Visit

MB = 1_048_576
LOG_SECONDS = 10.0  # a log is not there at once, but soon

Save = Callable[[str, bytes], Path]

FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "index in front": (lambda: videos.mp4(moov_at_end=False, audio=True), "film.mp4"),
    "index at the end": (lambda: videos.mp4(moov_at_end=True), "film.mp4"),
    "index in pieces": (lambda: videos.mp4(fragmented=True), "film.mp4"),
    "QuickTime": (videos.mov, "film.mov"),
    "WebM, VP8": (lambda: videos.webm(codec="vp8", audio=True), "film.webm"),
    "WebM, VP9": (lambda: videos.webm(codec="vp9"), "film.webm"),
}
UPRIGHT = ["red", "red", "blue", "blue"]
TURNED = ["blue", "red", "blue", "red"]

RECORDING = """async (title) => {
    const canvas = document.createElement('canvas');
    const draw = setInterval(() => canvas.getContext('2d').fillRect(0, 0, 300, 150), 40);
    const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: 'video/webm' });
    const recorded = new Promise((resolve) => { recorder.ondataavailable = (event) => resolve(event.data); });
    recorder.start();
    setTimeout(() => recorder.stop(), 1500);
    const file = new File([await recorded], 'recording', { type: 'video/webm' });
    clearInterval(draw);
    return upload(file, title);
}"""


# Where videos come from differs: from us, or from a bucket that we redirect to.
everywhere = pytest.mark.parametrize("engine", ["embedded", "cloud"], indirect=True, scope="module")


@everywhere
def test_a_visit_from_registration_to_the_last_deletion_shows_no_error(
    visit: Visit, save: Save, tmp_path: Path
) -> None:
    email, first, second = f"zoe.{secrets.token_hex(4)}@example.test", "Le café <b>«1.mp4»</b> 🎬", "another"
    film, other = save("film.mp4", videos.exactly(3 * MB)), save("other.mp4", videos.exactly(MB // 2))
    with visit() as zoe:
        assert zoe.register(email, PASSWORD, "Zoë Ωmega") == "done: User registered successfully"
        assert zoe.login(email, PASSWORD) == "done: Login successful"
        assert zoe.reads("you") == f"Zoë Ωmega <{email}>"
        assert zoe.reads("storage") == "0.00 of 50.00 MB (0.00%)"
        assert zoe.reads("today") == "0.00 of 100.00 MB today"

        assert zoe.upload(film, first) == "done: Video uploaded successfully"
        assert zoe.titles("mine") == [first]
        assert zoe.titles("feed")[0] == first
        assert zoe.reads("storage") == "3.00 of 50.00 MB (6.00%)"
        assert zoe.reads("today") == "3.00 of 100.00 MB today"
        assert zoe.thumbnail(first) == (128, 96)

        assert zoe.upload(other, second) == "done: Video uploaded successfully"
        assert zoe.titles("mine") == [second, first]
        assert zoe.watch(first) == (128, 96)
        zoe.seek(0.5)
        assert zoe.screen_corners() == zoe.thumbnail_corners(first) == UPRIGHT
        zoe.page.screenshot(path=tmp_path / "playing.png", full_page=True)

        assert zoe.press("Delete", on=zoe.card(first)) == "done: Video deleted successfully"
        assert zoe.titles("mine") == [second]
        assert zoe.reads("storage") == "0.50 of 50.00 MB (1.00%)"
        assert zoe.reads("today") == "3.50 of 100.00 MB today"
        assert zoe.press("Delete all") == "done: All videos deleted successfully"
        assert zoe.titles("mine") == []
        assert zoe.reads("storage") == "0.00 of 50.00 MB (0.00%)"

        deadline = time.monotonic() + LOG_SECONDS
        while "DELETE_ALL_VIDEOS" not in zoe.reads("logs") and time.monotonic() < deadline:
            assert zoe.press("Refresh") == "done: refreshed"
        for action in ("REGISTER", "LOGIN", "UPLOAD_VIDEO", "STREAM_VIDEO", "DELETE_VIDEO", "DELETE_ALL_VIDEOS"):
            assert f" {action} " in zoe.reads("logs")


@pytest.mark.parametrize("name", ["o'~?{|}`^x", "jürgen~?ÿ", "~~~???~~~"])
def test_the_token_of_any_address_is_read_with_atob(visit: Visit, name: str) -> None:
    email = f"{name}{secrets.token_hex(4)}@example.test"
    with visit() as somebody:
        somebody.register(email, PASSWORD, "»名前« ~?")
        assert somebody.login(email) == "done: Login successful"
        assert somebody.reads("you") == f"»名前« ~? <{email}>"


@everywhere
def test_every_kind_of_file_has_a_thumbnail_plays_and_seeks(visit: Visit, save: Save) -> None:
    with visit() as somebody:
        somebody.join()
        for title, (make, name) in FILES.items():
            assert somebody.upload(save(name, make()), title) == "done: Video uploaded successfully", title
            assert somebody.thumbnail(title) == (320, 240), title
            assert somebody.watch(title) == (320, 240), title
            somebody.seek(1.5)
            somebody.seek(0.1)
            assert somebody.screen_corners() == UPRIGHT, title
        assert {status for status, _ in somebody.journal.ranges} == {206}


@everywhere
def test_a_film_of_a_phone_held_upright_and_its_thumbnail_are_the_same_way_up(visit: Visit, save: Save) -> None:
    with visit() as somebody:
        somebody.join()
        somebody.upload(save("phone.mp4", videos.mp4(rotate=90)), "upright")
        assert somebody.thumbnail("upright") == (240, 320)
        assert somebody.watch("upright") == (240, 320)
        assert somebody.screen_corners() == somebody.thumbnail_corners("upright") == TURNED


@everywhere
def test_what_the_browser_itself_records_can_be_uploaded_and_watched(visit: Visit) -> None:
    with visit() as somebody:
        somebody.join()
        assert somebody.page.evaluate(RECORDING, "recorded here") == "done: Video uploaded successfully"
        assert somebody.thumbnail("recorded here") == (300, 150)
        assert somebody.watch("recorded here") == (300, 150)
        somebody.seek(0.5)


@everywhere
@pytest.mark.parametrize("flags", [{"movflags": "faststart"}, {}], ids=["index in front", "index at the end"])
def test_a_far_jump_fetches_from_there(visit: Visit, folder: Path, flags: dict[str, str]) -> None:
    film = folder / "long.mp4"
    noise(film, flags)
    size = film.stat().st_size
    assert size > 12 * MB
    with visit() as somebody:
        somebody.join()
        somebody.upload(film, "long")
        assert somebody.watch("long") == (320, 180)
        before = len(somebody.journal.ranges)
        somebody.seek(35)
        somebody.seek(1)
        jumped = somebody.journal.ranges[before:]
        assert any(size // 2 < start(content_range) < size - MB for _, content_range in jumped)
        assert {status for status, _ in somebody.journal.ranges} == {206}


def test_a_script_may_fetch_what_the_page_has_already_shown(visit: Visit, save: Save) -> None:
    """A cache that forgot ``Vary: Origin`` would answer it with what ``<img>`` got, and Chromium would refuse that."""
    with visit() as somebody:
        somebody.join()
        somebody.upload(save("film.mp4", videos.mp4()), "film")
        somebody.thumbnail("film")
        somebody.watch("film")
        url = somebody.media_url("film")
        assert somebody.fetch(url.replace(".mp4", ".jpg")) == 200
        assert somebody.fetch(url) == 200


@everywhere
def test_a_deleted_film_is_gone_for_everybody(visit: Visit, save: Save) -> None:
    with visit(refusals=[404, 404]) as owner, visit(refusals=[404]) as viewer:
        owner.join()
        owner.upload(save("film.mp4", videos.mp4()), "soon gone")
        viewer.join()
        stale = viewer.card("soon gone", place="feed")
        url = owner.media_url("soon gone")
        owner.press("Delete", on=owner.card("soon gone"))
        assert owner.fetch(url, cache="no-store") == 404
        assert owner.fetch(url.replace(".mp4", ".jpg"), cache="no-store") == 404
        assert viewer.press("Watch", on=stale) == "refused: There is no such video."
        assert viewer.press("Refresh") == "done: refreshed"
        assert "soon gone" not in viewer.titles("feed")


def test_without_a_session_every_call_is_a_readable_401(visit: Visit) -> None:
    calls = [
        "USER}/api/users/user/0e7f3a52-6f5c-4a0e-9d1b-3a2b1c0d9e8f",
        "VIDEO}/api/videos/stream?start=0",
        "STORAGE}/api/storage/usage",
        "USAGE}/api/usage/daily-usage",
        "LOGGING}/api/logs/user/0e7f3a52-6f5c-4a0e-9d1b-3a2b1c0d9e8f?start=0",
    ]
    with visit(refusals=[401] * len(calls)) as nobody:
        for call in calls:
            said = nobody.page.evaluate(f"say(() => call(`${{{call}`))")
            assert said == "refused: Sign in first: this call needs a valid token.", call
        sent = [answer.request for answer in nobody.journal.answers if answer.status == 401]
        assert {request.all_headers()["authorization"] for request in sent} == {"Bearer null"}


def test_a_taken_address_and_a_wrong_password_are_told(visit: Visit) -> None:
    with visit(refusals=[409, 401, 401, 422]) as somebody:
        email = somebody.join()
        assert somebody.register(email.upper()) == "refused: User already exists with this email"
        assert somebody.login(email, "wrong horse") == "refused: Invalid credentials"
        assert somebody.login(f"x{email}") == "refused: Invalid credentials"
        assert somebody.register("nobody").startswith("refused: email: ")


def test_what_is_not_a_film_is_refused_and_leaves_nothing(visit: Visit, save: Save) -> None:
    with visit(refusals=[415, 422, 422]) as somebody:
        somebody.join()
        text = save("notes.mp4", b"Dear diary,\n" * 1000)
        assert somebody.upload(text, "diary").startswith("refused: This is not a video that can be played")
        assert somebody.upload(save("film.mp4", videos.mp4()), "  ") == "refused: title: a video needs a title."
        assert somebody.page.evaluate("upload(null, 'nothing')").startswith("refused: video: ")
        somebody.press("Refresh")
        assert somebody.titles("mine") == []
        assert somebody.reads("storage") == "0.00 of 50.00 MB (0.00%)"
        assert somebody.reads("today") == "0.00 of 100.00 MB today"


def test_a_full_storage_is_told(visit: Visit, save: Save) -> None:
    film = save("film.mp4", videos.exactly(26 * MB))
    with visit(refusals=[413]) as somebody:
        somebody.join()
        assert somebody.upload(film, "fits").startswith("done")
        assert "Exceeding total storage limit" in somebody.upload(film, "does not")
        assert somebody.titles("mine") == ["fits"]
        assert somebody.reads("storage") == "26.00 of 50.00 MB (52.00%)"


def test_a_used_up_day_is_told_whatever_was_deleted(visit: Visit, save: Save) -> None:
    film = save("film.mp4", videos.exactly(50 * MB))
    with visit(refusals=[429]) as somebody:
        somebody.join()
        for title in ("one", "two"):
            assert somebody.upload(film, title).startswith("done")
            somebody.press("Delete", on=somebody.card(title))
        assert "100.00 of 100.00 MB today (" in somebody.reads("today")
        assert "Exceeding daily bandwidth limit" in somebody.upload(film, "three")
        assert somebody.reads("storage") == "0.00 of 50.00 MB (0.00%)"


def test_of_two_uploads_at_once_one_is_told_to_wait(visit: Visit, save: Save) -> None:
    with visit(refusals=[409]) as somebody:
        somebody.join()
        somebody.choose(save("film.mp4", videos.exactly(24 * MB)))
        file = "at('upload').elements.file.files[0]"
        both = somebody.page.evaluate(f"Promise.all([upload({file}, 'one'), upload({file}, 'two')])")
        done, refused = sorted(both)
        assert done == "done: Video uploaded successfully"
        assert refused.startswith("refused: Already uploading")
        assert somebody.reads("storage") == "24.00 of 50.00 MB (48.00%)"


def test_the_answer_to_an_upload_that_is_too_large_can_be_read(visit: Visit, save: Save) -> None:
    """It comes before the body, and Chromium reads it only when it has sent all of that."""
    film = save("film.mp4", videos.exactly(60 * MB))
    with visit(refusals=[413, 413, 401]) as somebody:
        somebody.join()
        for _ in range(2):
            assert somebody.upload(film, "large") == (
                "refused: The video is larger than the 50 MB that one upload may have."
            )
        somebody.page.evaluate("token = null")
        assert somebody.upload(film, "large") == "refused: Sign in first: this call needs a valid token."


def noise(to: Path, flags: dict[str, str]) -> None:
    """40 seconds that nothing can compress, so that a browser does not hold all of it."""
    with av.open(to, "w", options=flags) as film:
        stream = film.add_stream("libx264", rate=5, options={"preset": "ultrafast", "qp": "22", "g": "10"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for _ in range(40 * 5):
            frame = VideoFrame(320, 180, "yuv420p")
            for plane in frame.planes:
                plane.update(os.urandom(plane.buffer_size))
            film.mux(stream.encode(frame))
        film.mux(stream.encode())


def start(content_range: str) -> int:
    return int(content_range.removeprefix("bytes ").partition("-")[0])
