"""What a judge says of a file, called in the tests' own process; test_inspection.py is about the process around it."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import BinaryIO

import av
import pytest
import videos
from av.error import FFmpegError
from PIL import Image, ImageCms
from unit.storage.lender import Lender

from storage_service import containers
from storage_service.probe import NotAVideo, Probe, judge

COLOURS = {"red": videos.RED, "blue": videos.BLUE, "green": videos.GREEN}


def judged(film: bytes) -> Probe:
    """A film that is lent must get the same verdict as one that is at hand: every test here is about both."""
    at_hand = verdict(io.BytesIO(film))
    with Lender(film).lend() as raw, io.BufferedReader(raw) as lent:
        assert str(verdict(lent)) == str(at_hand)
    if isinstance(at_hand, Exception):
        raise at_hand
    return at_hand


def verdict(file: BinaryIO) -> Probe | Exception:
    try:
        return judge(file)
    except (NotAVideo, FFmpegError) as refusal:
        return refusal


def thumbnail(found: Probe) -> Image.Image:
    image = Image.open(io.BytesIO(found.thumbnail))
    assert image.format == "JPEG"
    return image.convert("RGB")


def colour(image: Image.Image, x: float, y: float) -> str:
    """The name of the colour at this place, in fractions of the sides."""
    pixel = image.getpixel((int(image.width * x), int(image.height * y)))
    assert isinstance(pixel, tuple)
    return min(COLOURS, key=lambda name: sum(abs(a - b) for a, b in zip(COLOURS[name], pixel, strict=True)))


@pytest.mark.parametrize(
    ("film", "content_type"),
    [
        pytest.param(lambda: videos.mp4(codec="h264"), "video/mp4", id="h264"),
        pytest.param(lambda: videos.mp4(codec="hevc"), "video/mp4", id="hevc"),
        pytest.param(lambda: videos.mp4(codec="av1"), "video/mp4", id="av1"),
        pytest.param(lambda: videos.mp4(codec="mpeg4"), "video/mp4", id="mpeg4"),
        pytest.param(lambda: videos.mp4(audio=True), "video/mp4", id="with sound"),
        pytest.param(lambda: videos.mp4(moov_at_end=False), "video/mp4", id="index in front"),
        pytest.param(lambda: videos.mp4(fragmented=True), "video/mp4", id="fragmented"),
        pytest.param(videos.mov, "video/quicktime", id="mov"),
        pytest.param(lambda: videos.webm(codec="vp8"), "video/webm", id="vp8"),
        pytest.param(lambda: videos.webm(codec="vp9", audio=True), "video/webm", id="vp9"),
        pytest.param(lambda: videos.webm(live=True, audio=True), "video/webm", id="MediaRecorder"),
        pytest.param(videos.mkv, "video/x-matroska", id="matroska"),
    ],
)
def test_a_film_is_told_by_its_type_length_size_and_picture(film: Callable[[], bytes], content_type: str) -> None:
    found = judged(film())
    assert (found.content_type, found.width, found.height) == (content_type, 320, 240)
    assert found.duration == pytest.approx(2, abs=0.05)
    image = thumbnail(found)
    assert image.size == (320, 240)
    assert (colour(image, 0.5, 0.25), colour(image, 0.5, 0.75)) == ("red", "blue")


def test_quicktime_from_before_ftyp_is_quicktime() -> None:
    film = videos.mov()
    without_ftyp = film[int.from_bytes(film[:4]) :]  # the index is last and counts from the front, so put in as much
    padding = len(film) - len(without_ftyp)
    assert judged(padding.to_bytes(4) + b"wide" + bytes(padding - 8) + without_ftyp).content_type == "video/quicktime"


@pytest.mark.parametrize(
    ("rotate", "above_below_left_right"),
    [
        (0, ("red", "blue", None, None)),
        (90, (None, None, "blue", "red")),
        (180, ("blue", "red", None, None)),
        (270, (None, None, "red", "blue")),
    ],
)
def test_the_thumbnail_is_the_right_side_up(rotate: int, above_below_left_right: tuple[str | None, ...]) -> None:
    found = judged(videos.mp4(rotate=rotate))
    image = thumbnail(found)
    assert image.size == (found.width, found.height) == ((240, 320) if rotate in (90, 270) else (320, 240))
    places = [(0.5, 0.1), (0.5, 0.9), (0.1, 0.5), (0.9, 0.5)]
    for (x, y), expected in zip(places, above_below_left_right, strict=True):
        assert expected in (None, colour(image, x, y))


MATRICES = [(1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0)]
MATRICES += [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0)]


@pytest.mark.parametrize(("width", "height"), [(320, 240), (1280, 720), (33, 17), (18, 35)])
@pytest.mark.parametrize("matrix", MATRICES)
def test_each_corner_of_the_thumbnail_is_where_the_display_matrix_puts_it(
    matrix: tuple[int, int, int, int], width: int, height: int
) -> None:
    a, b, c, d = matrix
    found = judged(videos.turned(matrix, width, height, codec="mpeg4"))
    image = thumbnail(found)
    assert (found.width, found.height) == ((width, height) if a else (height, width))
    scale = min(1, 480 / found.width)
    assert image.size == (round(found.width * scale), round(found.height * scale))
    for x, y, expected in [(-1, -1, "red"), (1, -1, "green"), (-1, 1, "blue"), (1, 1, "blue")]:
        right, down = a * x + c * y, b * x + d * y  # as the standard has it
        assert colour(image, 0.5 + right * 0.25, 0.5 + down * 0.25) == expected


def test_a_mirrored_film_is_mirrored_and_not_turned() -> None:
    image = thumbnail(judged(videos.mp4(mirrored=True)))
    assert (colour(image, 0.5, 0.1), colour(image, 0.5, 0.9)) == ("red", "blue")


@pytest.mark.parametrize(
    ("aspect", "rotate", "shown", "small"),
    [
        (Fraction(2), 0, (640, 240), (480, 180)),
        (Fraction(1, 2), 0, (320, 480), (320, 480)),
        (Fraction(2), 90, (240, 640), (240, 640)),
    ],
)
def test_pixels_that_are_not_square_widen_or_heighten_the_picture(
    aspect: Fraction, rotate: int, shown: tuple[int, int], small: tuple[int, int]
) -> None:
    found = judged(videos.mp4(aspect=aspect, rotate=rotate))
    assert (found.width, found.height) == shown
    assert thumbnail(found).size == small


def test_a_thumbnail_is_at_most_480_wide() -> None:
    assert thumbnail(judged(videos.mp4(seconds=0.2, width=1280, height=720))).size == (480, 270)


@pytest.mark.parametrize(
    ("codec", "width", "height", "size"),
    [("h264", 8192, 16, (480, 1)), ("h264", 16, 8192, (16, 8192)), ("mpeg4", 17, 17, (17, 17))],
)
def test_a_low_a_narrow_and_a_tiny_film_have_thumbnails(
    codec: str, width: int, height: int, size: tuple[int, int]
) -> None:
    assert thumbnail(judged(videos.mp4(seconds=0.1, width=width, height=height, codec=codec))).size == size


@pytest.mark.parametrize("matrix", ["ITU601", "ITU709", "BT2020"])
@pytest.mark.parametrize("reach", ["MPEG", "JPEG"])
def test_the_colours_are_those_of_the_film_whichever_way_it_states_them(matrix: str, reach: str) -> None:
    image = thumbnail(judged(videos.mp4(seconds=0.2, codec="hevc", colours=(matrix, reach))))
    for y, expected in ((0.25, videos.RED), (0.75, videos.BLUE)):
        assert image.getpixel((160, int(240 * y))) == pytest.approx(expected, abs=6)


def test_the_thumbnail_is_a_plain_jpeg_to_which_the_film_adds_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for film in (videos.mp4(rotate=90), videos.with_profile(profile)):
        with av.open(io.BytesIO(film)) as opened:
            given = next(opened.decode(video=0)).side_data
            assert given.get("DISPLAYMATRIX") or given.get("ICC_PROFILE"), "so there is something to be left out"
        found = judged(film).thumbnail
        assert found[:4] + found[6:11] == b"\xff\xd8\xff\xe0JFIF\0"
        assert found.endswith(b"\xff\xd9")
        assert set(segments(found)) == {JFIF, QUANTIZATION, HUFFMAN, BASELINE, SCAN}


JFIF, QUANTIZATION, HUFFMAN, BASELINE, SCAN = 0xE0, 0xDB, 0xC4, 0xC0, 0xDA


def segments(jpeg: bytes) -> list[int]:
    """The markers, up to the picture's data."""
    markers, at = [0], 2
    while markers[-1] != SCAN:
        markers.append(jpeg[at + 1])
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4])
    return markers[1:]


def test_the_thumbnail_is_of_the_key_frame_before_a_tenth_of_the_film() -> None:
    assert colour(thumbnail(judged(videos.mp4(seconds=20, width=64, height=64, intro=1))), 0.5, 0.1) == "red"
    assert colour(thumbnail(judged(videos.mp4(seconds=20, width=64, height=64, intro=2.5))), 0.5, 0.1) == "green"


def test_a_key_frame_that_cannot_be_decoded_costs_only_the_better_thumbnail() -> None:
    assert thumbnail(judged(videos.absurd_frame(frames=1))).size == (320, 240)


def test_a_film_of_an_exact_size_still_plays() -> None:
    for size in (10_000, 1_000_000):
        film = videos.exactly(size)
        assert len(film) == size
        assert judged(film).duration == pytest.approx(1)


REFUSALS: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "neither"),
    "noise": (lambda: videos.random_bytes(10_000), "neither"),
    "a playlist": (videos.playlist, "neither"),
    "a list of files": (videos.concat_file, "neither"),
    "a picture": (lambda: b"\x89PNG\r\n\x1a\n" + bytes(100), "neither"),
    "a film without its index": (videos.without_moov, "no index"),
    "a film cut short": (videos.truncated, "cut short"),
    "a webm cut short": (lambda: videos.webm()[:-100], "cut short"),
    "a webm of MediaRecorder cut short": (lambda: videos.webm(live=True)[:-100], "cut short"),
    "a box that claims more than there is": (lambda: videos.mp4() + b"\0\0\1\0free", "cut short"),
    "a box that claims less than itself": (lambda: videos.mp4() + b"\0\0\0\4free", "cut short"),
    "three bytes behind": (lambda: videos.mp4() + b"\0\0\0", "not part of a video"),
    "something called webm": (lambda: videos.webm().replace(b"webm", b"wepm", 1), "neither that nor WebM"),
    "sound alone": (videos.audio_only, "no video"),
    "sound with a cover": (videos.cover_art_audio, "no video"),
    "a codec that browsers do not play": (lambda: videos.mp4(codec="mjpeg"), "mjpeg"),
    "noise for pictures": (videos.undecodable, "Not one picture"),
    "pictures in another file": (videos.external_reference, "Not one picture"),
    "a header that claims 65535 x 65535": (videos.absurd_dimensions, "65535 x 65535"),
    "a header that claims 8 x 8": (lambda: videos.absurd_dimensions(8, 8), "8 x 8"),
    "pictures of 16383 x 16383": (videos.absurd_frame, "Not one picture"),
    "a film 9008 wide": (lambda: videos.mp4(seconds=0.2, width=9008, height=16), "9008 x 16"),
    "pixels 200 times as wide as high": (lambda: videos.mp4(aspect=Fraction(200)), "64000 x 240"),
    "an index of 150 million pictures": (videos.header_only_huge, "Not one picture"),
    **{kind: (partial(videos.html_polyglot, kind), "neither|not part|cut short") for kind in videos.POLYGLOTS},
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_is_not_a_video_is_refused_in_a_sentence(kind: str) -> None:
    film, why = REFUSALS[kind]
    with pytest.raises(NotAVideo, match=why) as refusal:
        judged(film())
    assert str(refusal.value)[0].isupper()
    assert str(refusal.value).endswith(".")


def test_only_a_bounded_number_of_parts_is_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "MOST_PARTS", 100)
    with pytest.raises(NotAVideo, match="more than 100 parts"):
        judged(videos.mp4() + b"\0\0\0\x08free" * 100)
    with pytest.raises(NotAVideo, match="more than 100 parts"):
        judged(videos.webm(live=True) + b"\xec\x80" * 100)


def test_no_file_but_the_one_given_is_opened(tmp_path: Path) -> None:
    careless = {"enable_drefs": "1", "use_absolute_path": "1"}
    with av.open(io.BytesIO(videos.external_reference("/etc/passwd")), "r", format="mov", options=careless) as film:
        assert next(film.demux(video=0)).size  # so the attack is one
    trap = tmp_path / "trap"
    os.mkfifo(trap)  # who opens it waits forever
    (tmp_path / "film").write_bytes(videos.external_reference(str(trap)))
    subprocess.run([sys.executable, "-c", JUDGING, tmp_path / "film"], capture_output=True, check=True, timeout=10)


@pytest.mark.parametrize("make", [videos.undecodable, videos.header_only_huge, videos.external_reference])
def test_ffmpeg_says_nothing_on_stderr(make: Callable[[], bytes], tmp_path: Path) -> None:
    (tmp_path / "film").write_bytes(make())
    done = subprocess.run([sys.executable, "-c", JUDGING, tmp_path / "film"], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"Not one picture of the video can be decoded.\n", b"")


JUDGING = """
import sys
from storage_service import probe
try:
    print(probe.probe(sys.argv[1]))
except probe.NotAVideo as refusal:
    print(refusal)
"""


def test_a_judge_loads_nothing_of_the_service() -> None:
    listing = "import storage_service.probe, sys; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True).stdout.split())
    assert b"av" in loaded
    assert not loaded & {b"fastapi", b"shared", b"pydantic", b"asyncio", b"multiprocessing", b"numpy"}


def test_a_confined_process_has_little_of_everything(tmp_path: Path) -> None:
    trying = """
import resource
from storage_service import probe
probe.confine()
def write():
    with open("file", "wb") as file:
        file.write(b"x")
for take in (write, lambda: bytearray(200 * 2**20), lambda: [open("file") for _ in range(20)]):
    try:
        take()
    except (MemoryError, OSError) as error:
        print(type(error).__name__, getattr(error, "strerror", ""))
print(resource.getrlimit(resource.RLIMIT_CPU), resource.getrlimit(resource.RLIMIT_CORE))
"""
    done = subprocess.run([sys.executable, "-c", trying], capture_output=True, check=True, cwd=tmp_path)
    assert done.stdout.decode().splitlines() == [
        "OSError File too large",
        "MemoryError ",
        "OSError Too many open files",
        "(5, 6) (0, 0)",
    ]
