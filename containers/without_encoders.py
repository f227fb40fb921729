"""Makes ffmpeg, as PyAV brings it, small: 30 of its 70 MB are encoders of films and songs, and we encode none.

libavcodec is linked with them and does not load without them, so their files cannot just go. In the place of each comes
a library of the same name that answers 0, "nothing", to whatever libavcodec may call in it: it asks x265 what that can
do when it is loaded. That it asks for no more is tried. A film of each codec, made before, must be decoded after, and
its picture written as JPEG; if another version of ffmpeg works in another way, the image is not built.

The build stage of the images runs this with their Python. Where there is no av there is nothing to do, and on a machine
that it does not know ffmpeg stays as it is.
"""

import importlib.util
import os
import platform
import subprocess
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

ENCODERS = ("libx265", "libSvtAv1Enc", "libx264", "libmp3lame")
CODECS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp8": "libvpx",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "mpeg4": "mpeg4",
}
SIDE = 64
NOTHING = {"x86_64": "xor %eax, %eax\nret\n", "aarch64": "mov x0, #0\nret\n"}


def main() -> None:
    av = importlib.util.find_spec("av")
    if av is None or av.origin is None or platform.machine() not in NOTHING:
        return
    libraries = Path(av.origin).parents[1] / "av.libs"
    with TemporaryDirectory() as folder:
        films = {codec: Path(folder, codec) for codec in CODECS}
        # Each in a process of its own, as a library is loaded once.
        with ProcessPoolExecutor(1, get_context("spawn")) as before:
            before.submit(encode, films).result()
        for encoder in ENCODERS:
            (library,) = libraries.glob(f"{encoder}-*")
            replace(library)
        with ProcessPoolExecutor(1, get_context("spawn")) as after:
            after.submit(decode, films).result()


def replace(library: Path) -> None:
    wanted = symbols("--undefined-only", *library.parent.glob("libavcodec-*")) & symbols("--defined-only", library)
    names = "".join(f".globl {symbol}\n.type {symbol}, %function\n{symbol}:\n" for symbol in sorted(wanted))
    code = library.with_suffix(".o")
    subprocess.run(["as", "-o", code], input=names + NOTHING[platform.machine()], check=True, text=True)
    library.unlink()
    subprocess.run(["ld", "-shared", "-z", "noexecstack", "-soname", library.name, "-o", library, code], check=True)
    code.unlink()


def symbols(which: str, *libraries: Path) -> set[str]:
    listed = subprocess.run(
        ["nm", "--dynamic", "--format=just-symbols", which, *map(str, libraries)],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(listed.stdout.split())


def encode(films: dict[str, Path]) -> None:
    import av  # noqa: PLC0415

    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # where x265 and SVT-AV1 tell all about themselves
    for codec, path in films.items():
        with av.open(path, "w", format="matroska") as film:
            stream = film.add_stream(CODECS[codec], rate=24)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, "yuv420p"
            film.mux(stream.encode(av.VideoFrame(SIDE, SIDE, "yuv420p")))
            film.mux(stream.encode())


def decode(films: dict[str, Path]) -> None:
    import av  # noqa: PLC0415

    for codec, path in films.items():
        with av.open(path) as film:
            assert film.streams.video[0].codec_context.codec.canonical_name == codec
            picture = next(film.decode(video=0)).reformat(SIDE, SIDE, "yuvj420p")
        encoder = av.VideoCodecContext.create("mjpeg", "w")
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = SIDE, SIDE, "yuvj420p", Fraction(1)
        assert encoder.encode(picture) + encoder.encode()


if __name__ == "__main__":
    main()
