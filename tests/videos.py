"""Makes the files that people upload, the good and the malicious, with nothing but PyAV.

Every film is red above and blue below, so that a test can see which way is up. Each is encoded once per process.
"""

import functools
import io
import os
import pathlib
import random
import struct
import sys
import tempfile
import zipfile
from fractions import Fraction

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image

RED, BLUE, GREEN = (220, 20, 20), (20, 20, 220), (20, 160, 20)
RATE = 24

ENCODERS: dict[str, tuple[str, dict[str, str]]] = {
    "h264": ("libx264", {"preset": "ultrafast", "profile": "baseline", "g": str(RATE)}),
    "hevc": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none"}),
    "mpeg4": ("mpeg4", {"g": str(RATE)}),
    "vp8": ("libvpx", {"deadline": "realtime", "cpu-used": "8", "g": str(RATE)}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "g": str(RATE)}),
    "av1": ("libsvtav1", {"preset": "12"}),
    "mjpeg": ("mjpeg", {}),
}
os.environ.setdefault("SVT_LOG", "0")  # or the AV1 encoder writes to stderr


def mp4(
    seconds: float = 2,
    width: int = 320,
    height: int = 240,
    codec: str = "h264",
    audio: bool = False,
    moov_at_end: bool = True,
    rotate: int = 0,
    *,
    mirrored: bool = False,
    fragmented: bool = False,
    aspect: Fraction = Fraction(1),
    intro: float = 0,
    corner: bool = False,
    colours: tuple[str, str] | None = None,
) -> bytes:
    """`rotate`: the degrees by which a player turns it clockwise, as a film of a phone held upright asks for.

    `fragmented`: with its index in pieces, as browsers record. `aspect`: a pixel's width to its height. `intro`: how
    many seconds at the beginning are all green. `corner`: whether the upper right quarter is green, so that a test can
    see left and right as well. `colours`: PyAV's names of the matrix and the range, where the film is to state them.
    """
    flags = "frag_keyframe+empty_moov" if fragmented else "" if moov_at_end else "faststart"
    options = (("movflags", flags),) if flags else ()
    return _film("mp4", options, codec, seconds, width, height, audio, rotate, mirrored, aspect, intro, corner, colours)


def turned(matrix: tuple[int, int, int, int], width: int = 320, height: int = 240, codec: str = "h264") -> bytes:
    """A film with a green corner that is shown by this display matrix: a, b, c and d of the standard (ISO 14496-12)."""
    film = bytearray(mp4(0.2, width, height, codec, corner=True))
    a, b, c, d = (number << 16 for number in matrix)
    struct.pack_into(">9i", film, film.rindex(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return bytes(film)


def with_profile(profile: bytes) -> bytes:
    """A film that brings its own profile of colours (ICC)."""
    film = mov()
    box = film[(at := film.rindex(b"pasp") - 4) : at + 16]
    colr = struct.pack(">I4s4s", 12 + len(profile), b"colr", b"prof") + profile
    return _within(film, [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"], box, box + colr)


def mov(seconds: float = 2, codec: str = "h264") -> bytes:
    return _film("mov", (), codec, seconds)


def webm(seconds: float = 2, codec: str = "vp8", audio: bool = False, live: bool = False) -> bytes:
    """`live`: as MediaRecorder writes, with no duration, no index, and no length of the Segment and its Clusters."""
    return _film("webm", (("live", "1"),) if live else (), codec, seconds, audio=audio)


def mkv(seconds: float = 2, codec: str = "h264") -> bytes:
    return _film("matroska", (), codec, seconds)


def exactly(size: int) -> bytes:
    """A film that plays and has this many bytes, 4,000 or more; the last are padding that the format provides for."""
    film = mp4(seconds=1, width=128, height=96)
    padding = size - len(film)
    return film + struct.pack(">I4s", padding, b"free") + bytes(padding - 8)


@functools.cache
def audio_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as song:
        _silence(song, song.add_stream("aac", rate=48000), seconds=1)
    return file.getvalue()


@functools.cache
def cover_art_audio() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as song:
        sound = song.add_stream("aac", rate=48000)
        cover = song.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 320, 240, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        song.mux(cover.encode(_frame(320, 240, "yuvj420p")))
        song.mux(cover.encode())
        _silence(song, sound, seconds=1)
    return file.getvalue()


def without_moov() -> bytes:
    """What a phone leaves whose battery died: all pictures, and no index."""
    film = mp4(moov_at_end=True)
    return film[: film.rindex(b"moov") - 4]


def truncated() -> bytes:
    """An upload that broke off in the pictures; the index stands in front of them."""
    film = mp4(moov_at_end=False)
    return film[: len(film) * 3 // 4]


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def playlist() -> bytes:
    return b"#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"


def concat_file() -> bytes:
    return b"ffconcat version 1.0\nfile '/etc/passwd'\n"


def external_reference(target: str = "/etc/passwd") -> bytes:
    """A film whose pictures are in another file, named in the way of the old Macintosh."""
    name = target.replace("/", ":").encode()
    record = bytes(150) + struct.pack(">HH", 2, len(name)) + name.ljust(len(name) + len(name) % 2, b"\0") + b"\xff" * 4
    alias = struct.pack(">I4sI", 12 + len(record), b"alis", 0) + record
    return _within(mov(), [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"], b"\0\0\0\x0curl \0\0\0\1", alias)


HTML = b"<!doctype html><script>alert(document.domain)</script>"
POLYGLOTS = ("a page that looks like a box", "a page in front", "a page behind", "a page behind webm", "a zip behind")


def html_polyglot(kind: str = "a page behind") -> bytes:
    """A film for ffmpeg, and a page (or an archive) for those who look for one."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("index.html", HTML)
    return {
        "a page that looks like a box": b"<!--ftypisom\0\0\2\0isom" + mp4() + b"-->" + HTML,
        "a page in front": HTML + mp4(),
        "a page behind": mp4() + HTML,
        "a page behind webm": webm(live=True) + HTML,
        "a zip behind": mp4() + archive.getvalue(),
    }[kind]


def absurd_dimensions(width: int = 65535, height: int = 65535) -> bytes:
    """A small film whose header says that it is a large one."""
    film = bytearray(mp4())
    struct.pack_into(">HH", film, film.index(b"avc1", film.rindex(b"stsd")) + 28, width, height)
    return bytes(film)


def absurd_frame(width: int = 16383, height: int = 16383, frames: int = -1) -> bytes:
    """A film whose header is modest, and whose (first) key frames ask for 400 MB each."""
    start = struct.Struct("<3sHH")
    return webm().replace(start.pack(b"\x9d\x01\x2a", 320, 240), start.pack(b"\x9d\x01\x2a", width, height), frames)


def header_only_huge(samples: int = 150_000_000) -> bytes:
    """A few kilobytes whose index claims so many pictures that a list of them takes gigabytes."""
    film = bytearray(mp4())
    struct.pack_into(">II", film, film.rindex(b"stsz") + 8, 1, samples)
    return bytes(film)


def undecodable() -> bytes:
    """Everything is in its place, and the pictures are noise."""
    film = mp4(moov_at_end=False)
    start = film.index(b"mdat") + 4
    return film[:start] + random_bytes(len(film) - start)


@functools.cache
def _film(
    container: str,
    options: tuple[tuple[str, str], ...],
    codec: str,
    seconds: float,
    width: int = 320,
    height: int = 240,
    audio: bool = False,
    rotate: int = 0,
    mirrored: bool = False,
    aspect: Fraction = Fraction(1),
    intro: float = 0,
    corner: bool = False,
    colours: tuple[str, str] | None = None,
) -> bytes:
    with (
        tempfile.NamedTemporaryFile() as file,  # with a name, since `faststart` reads again what it wrote
        av.open(file.name, "w", format=container, options=dict(options)) as film,
    ):
        encoder, encoder_options = ENCODERS[codec]
        stream = film.add_stream(encoder, rate=RATE, options=encoder_options)
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        if rotate or mirrored:
            stream.set_display_rotation(-rotate, hflip=mirrored)
        sound = film.add_stream("libopus" if container == "webm" else "aac", rate=48000) if audio else None
        frames = {green: _frame(width, height, stream.pix_fmt, green, corner, colours) for green in (True, False)}
        if colours:
            stream.codec_context.colorspace, stream.codec_context.color_range = (
                frames[False].colorspace,
                frames[False].color_range,
            )
        for number in range(round(seconds * RATE)):
            frame = frames[number < intro * RATE]
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
        film.mux(stream.encode())
        if isinstance(sound, AudioStream):
            _silence(film, sound, seconds)
        film.close()
        return file.read()


def _frame(
    width: int,
    height: int,
    pixels: str,
    green: bool = False,
    corner: bool = False,
    colours: tuple[str, str] | None = None,
) -> VideoFrame:
    image = Image.new("RGB", (width, height), GREEN if green else RED)
    image.paste(GREEN if green else BLUE, (0, height // 2, width, height))
    if corner:
        image.paste(GREEN, (width // 2, 0, width, height // 2))
    frame: VideoFrame = VideoFrame.from_image(image)  # type: ignore[no-untyped-call]
    matrix, reach = colours or (None, None)
    return frame.reformat(format=pixels, dst_colorspace=matrix, dst_color_range=reach)


def _silence(container: OutputContainer, stream: AudioStream, seconds: float) -> None:
    for number in range(round(seconds * 50)):
        frame = AudioFrame(format="fltp" if stream.name == "aac" else "s16", layout="stereo", samples=960)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate, frame.pts, frame.time_base = 48000, number * 960, Fraction(1, 48000)
        container.mux(stream.encode(frame))
    container.mux(stream.encode())


def _within(film: bytes, path: list[bytes], old: bytes, new: bytes) -> bytes:
    """Replaces what stands in a box, and corrects the lengths of all boxes around it. The index must stand last."""
    edited, at = bytearray(film), 0
    for name in path:
        at = film.index(name, at)
        struct.pack_into(">I", edited, at - 4, struct.unpack_from(">I", film, at - 4)[0] + len(new) - len(old))
    at = film.index(old, at)
    return bytes(edited[:at] + new + edited[at + len(old) :])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python tests/videos.py FILE.mp4")
    pathlib.Path(sys.argv[1]).write_bytes(mp4())
