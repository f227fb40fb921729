"""Judges a file that a stranger sent: is it a video that a browser can be given, and what does it look like?

It runs in a process of its own (see inspection.py), without secrets and with little time and memory, because ffmpeg
reads what the stranger wrote. ffmpeg is told which demuxer to use and may open nothing else: left to guess it would
follow playlists and lists of files, which name other files and addresses.

Nothing of the service is imported here. `python -m storage_service.probe` is the process that forks the judges.
"""

import contextlib
import errno
import gc
import io
import os
import resource
import signal
import socket
import struct
import traceback
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import Any, BinaryIO, NoReturn

import av
import av.logging
from av.codec.context import Flags
from av.container import InputContainer
from av.error import FFmpegError
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from storage_service import lending
from storage_service.containers import recognise
from storage_service.verdict import NotAVideo, Probe, encode

__all__ = ["NotAVideo", "Probe", "confine", "judge", "probe", "serve_one"]

CODECS = {"h264", "hevc", "vp8", "vp9", "av1", "mpeg4"}
SMALLEST_SIDE, LARGEST_SIDE, MOST_PIXELS = 16, 8192, 8192 * 4320
LONGEST = 365 * 86400.0  # seconds; who claims more is not believed
THUMBNAIL_WIDTH, THUMBNAIL_QUANTIZER = 480, 4  # of 1 to 31; 4 is as good as what others call 80 (of 100)

CPU_SECONDS = 5
NICENESS = 5  # who waits for a page goes before who waits for a verdict
MEMORY = 256 * 2**20
"""Of address space, so that no way to allocate is left out. Python and av have 120 MiB mapped before they begin; the
first picture of a 4K film takes that to 143 (h264, hevc), 136 (vp9) or 139 (av1), with 10 bits to 156. 8K fits with 8
bits (211), and with 10 as av1 (249), not as hevc (262). In the image it is 31 less, as its ffmpeg has no encoders."""


def probe(path: str) -> Probe:
    with open(path, "rb") as file:
        return judge(file)


def judge(file: BinaryIO) -> Probe:
    """Of anything that can be read and sought in. Raises NotAVideo, or what av raises for a damaged file."""
    container = recognise(file)
    file.seek(0)
    options = {
        "format_whitelist": container.demuxer,
        "protocol_whitelist": "none",
        "enable_drefs": "0",
        "codec_whitelist": "mpeg4",  # the one whose size must be decoded; of the others the header is judged first
        "max_pixels": str(MOST_PIXELS),
    }
    with av.open(
        file, "r", format=container.demuxer, options=options, metadata_errors="replace", io_open=_refuse
    ) as film:
        stream = _video(film)
        duration = _believable((film.duration or 0) / av.time_base) if container.timed else None
        duration = duration or _believable(_measure(film))
        frame = _frame(film, stream, (duration or 0) / 10)
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)
        return Probe(container.content_type, duration, *_show(frame, aspect))


def _refuse(url: str, flags: int, options: dict[str, str]) -> NoReturn:
    raise NotAVideo("The file refers to another one.")


def _video(film: InputContainer) -> VideoStream:
    for stream in film.streams.video:
        if Disposition.attached_pic in stream.disposition:
            continue  # the cover of an audio file
        codec = stream.codec_context and stream.codec_context.codec.canonical_name
        if codec not in CODECS:
            raise NotAVideo(f"The video is encoded as {codec or 'something unknown'}, which we do not take.")
        _check_size(stream.width, stream.height)
        return stream
    raise NotAVideo("There is no video in the file.")


def _check_size(width: int, height: int) -> None:
    sides = range(SMALLEST_SIDE, LARGEST_SIDE + 1)
    if width not in sides or height not in sides or width * height > MOST_PIXELS:
        raise NotAVideo(
            f"The picture has {width} x {height} pixels; each side may have {SMALLEST_SIDE} to {LARGEST_SIDE},"
            f" and together they may have {MOST_PIXELS:,}."
        )


def _believable(seconds: float) -> float | None:
    return seconds if 0 < seconds < LONGEST else None


def _measure(film: InputContainer) -> float:
    """The duration by the packets' own times, for a recorder that could not go back and write it into the header."""
    ticks = [float(stream.time_base or 0) for stream in film.streams]
    first, last = float("inf"), 0.0
    for packet in film.demux():
        if packet.pts is not None:
            first = min(first, packet.pts * ticks[packet.stream_index])
            last = max(last, (packet.pts + (packet.duration or 0)) * ticks[packet.stream_index])
    return last - first


def _frame(film: InputContainer, stream: VideoStream, seconds: float) -> VideoFrame:
    """The key frame before `seconds`; where that is damaged, the first frame of all that can be decoded."""
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # the frames may contradict the header
    for other in film.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    with contextlib.suppress(FFmpegError):
        key = next((packet for packet in _packets(film, stream, seconds) if packet.is_keyframe), None)
        # Alone, then drained: a decoder that reorders would wait for more packets.
        if key and (frames := stream.decode(key) or stream.decode(None)):
            return frames[0]
    for packet in _packets(film, stream, 0):
        with contextlib.suppress(FFmpegError):
            if frames := stream.decode(packet):
                return frames[0]
    raise NotAVideo("Not one picture of the video can be decoded.")


def _packets(film: InputContainer, stream: VideoStream, seconds: float) -> Iterator["Packet[VideoStream]"]:
    with contextlib.suppress(FFmpegError):
        film.seek(int(seconds * av.time_base) + (film.start_time or 0))
    return film.demux(stream)


UPRIGHT = {
    (1, 0, 0, 1): (),
    (0, 1, -1, 0): ("transpose=clock",),
    (-1, 0, 0, -1): ("hflip", "vflip"),
    (0, -1, 1, 0): ("transpose=cclock",),
    (-1, 0, 0, 1): ("hflip",),
    (1, 0, 0, -1): ("vflip",),
    (0, 1, 1, 0): ("transpose=cclock_flip",),
    (0, -1, -1, 0): ("transpose=clock_flip",),
}
"""ffmpeg's filters by the signs of a display matrix (a, b, c, d); y grows downward."""


def _show(frame: VideoFrame, aspect: Fraction) -> tuple[int, int, bytes]:
    """Width and height on the screen, and the thumbnail as JPEG."""
    _check_size(frame.width, frame.height)
    width = round(frame.width * aspect) if aspect > 1 else frame.width  # a side may grow, none shrinks
    height = round(frame.height / aspect) if aspect < 1 else frame.height
    _check_size(width, height)
    turns = _turns(frame)
    shown = (height, width) if any(turn.startswith("transpose") for turn in turns) else (width, height)
    scale = min(1.0, THUMBNAIL_WIDTH / shown[0])
    small = _scale(frame, max(1, round(width * scale)), max(1, round(height * scale)))
    return *shown, _jpeg(_filter(small, ("sidedata=delete", *turns)))  # or a profile of colours would go along


def _scale(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """In the colours of JPEG: the j is for the full range."""
    try:
        return frame.reformat(width, height, "yuvj420p", None, "ITU601", threads=1)
    except FFmpegError:  # colours that swscale does not know, as YCgCo and ICtCp: they come out wrong, but they do
        return frame.reformat(width, height, "yuvj420p", "ITU709", "ITU601", threads=1)


def _filter(frame: VideoFrame, filters: Iterable[str]) -> VideoFrame:
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    steps = (graph.add(name, options or None) for name, _, options in (each.partition("=") for each in filters))
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    graph.vpush(frame)
    return graph.vpull()


def _jpeg(frame: VideoFrame) -> bytes:
    encoder = VideoCodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, "yuvj420p"
    encoder.time_base = encoder.sample_aspect_ratio = Fraction(1)  # without the second there is no JFIF in front
    encoder.qmin = encoder.qmax = THUMBNAIL_QUANTIZER
    encoder.flags |= Flags.bitexact  # without the version of ffmpeg
    encoder.thread_count = 1
    return b"".join(map(bytes, encoder.encode(frame)))


def _turns(frame: VideoFrame) -> tuple[str, ...]:
    try:
        matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # side data newer than PyAV; this way mirrored films are shown unmirrored
        return {90: ("transpose=cclock",), -90: ("transpose=clock",), 180: ("hflip", "vflip")}.get(frame.rotation, ())
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix)) if matrix else (1, 0, 0, 0, 1)
    return UPRIGHT.get(tuple((n > 0) - (n < 0) for n in (a, b, c, d)), ())


def confine() -> None:
    limits = {
        "RLIMIT_CPU": (CPU_SECONDS, CPU_SECONDS + 1),
        "RLIMIT_AS": (MEMORY, MEMORY),
        "RLIMIT_FSIZE": (0, 0),
        "RLIMIT_CORE": (0, 0),
        "RLIMIT_NOFILE": (16, 16),
    }
    for name, limit in limits.items():
        # Missing or not kept on macOS, where the wall clock remains; refused where a stricter one holds already.
        with contextlib.suppress(AttributeError, OSError, ValueError):
            resource.setrlimit(getattr(resource, name), limit)


def serve_one(connection: socket.socket) -> None:
    """Says that it is ready, is given one file, answers. None comes when the service closes or dies."""
    confine()
    with contextlib.suppress(ConnectionError), connection.makefile("rb") as incoming:
        connection.sendall(b"%d\n" % os.getpid())
        match incoming.read(1):
            case lending.PATH:
                path = os.fsdecode(incoming.read())
                connection.sendall(encode(_verdict(lambda: probe(path))))
            case lending.LENT:
                (size,) = lending.SIZE.unpack(incoming.read(lending.SIZE.size))
                file = io.BufferedReader(lending.LentFile(connection, size))
                connection.sendall(encode(_verdict(lambda: judge(file))))


def _verdict(look: Callable[[], Probe]) -> Probe | NotAVideo | OSError:
    try:
        return look()
    except NotAVideo as refusal:
        return refusal
    except (FFmpegError, MemoryError, ValueError, ArithmeticError):
        return NotAVideo("The file could not be read as a video.")
    except OSError as error:  # ours, not the stranger's
        return error
    except Exception:  # ours as well: a video must not be refused for it
        traceback.print_exc()
        return OSError(errno.EIO, "the judge failed")


def main() -> None:
    """Forks a judge for each connection that arrives on standard input, until that closes."""
    # A group's signals are meant for the service, which lets us go when it is done; the kernel reaps the judges.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD):
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    av.logging.set_level(None)
    gc.freeze()  # else a collection in a judge would copy the pages that it shares with us
    control = socket.socket(fileno=0)
    while descriptors := socket.recv_fds(control, 1, 1)[1]:
        with socket.socket(fileno=descriptors[0]) as connection:
            if os.fork() == 0:
                control.close()
                try:
                    serve_one(connection)
                except Exception:
                    traceback.print_exc()
                finally:
                    os._exit(0)


if __name__ == "__main__":
    main()
