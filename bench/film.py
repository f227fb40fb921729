"""The film of the bench: 50 MiB of H.264 at 1280 x 720, whose pictures are noise, so that they do not get small."""

import io
import random
import struct
from fractions import Fraction

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

WIDTH, HEIGHT, RATE = 1280, 720, 24


def make(size: int) -> bytes:
    """Exactly so many bytes, the last of them padding that the format provides for (a ``free`` box)."""
    target = io.BytesIO()
    chance = random.Random(1)
    with av.open(target, "w", format="mp4") as film:
        stream = film.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "qp": "8", "g": str(RATE)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        number = 0
        while target.tell() < size * 0.93:
            frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane in frame.planes:
                plane.update(chance.randbytes(plane.buffer_size))
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            film.mux(stream.encode(frame))
            number += 1
        film.mux(stream.encode())
    made = target.getvalue()
    padding = size - len(made)
    if padding < 8:
        raise ValueError(f"the film has {len(made)} bytes already")
    return made + struct.pack(">I4s", padding, b"free") + bytes(padding - 8)
