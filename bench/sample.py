"""The video of the bench: 50 MiB as a phone records it, H.264 at 1920 x 1080, 30 frames and 17 Mbit a second."""

import io
import random
import struct
from fractions import Fraction

import av
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

WIDTH, HEIGHT, RATE, BITS = 1920, 1080, 30, 17_000_000


def make(size: int) -> bytes:
    """A video of exactly ``size`` bytes, the last of them padding that MP4 provides for (a ``free`` box)."""
    target = io.BytesIO()
    chance = random.Random(1)
    # Every frame shows another part of a soft noise, so that the encoder cannot predict it from the frame before.
    noise = bytes(chance.choices(range(96, 160), k=2**18)) * (WIDTH * HEIGHT // 2**18 + 2)
    with av.open(target, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "g": str(RATE)})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", BITS
        number = 0
        while target.tell() < size * 0.98:
            frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
            for plane in frame.planes:
                start = chance.randrange(2**18)
                plane.update(noise[start : start + plane.buffer_size])
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
            number += 1
        container.mux(stream.encode())
    made = target.getvalue()
    padding = size - len(made)
    if padding < 8:
        raise ValueError(f"the video has {len(made)} bytes already")
    return made + struct.pack(">I4s", padding, b"free") + bytes(padding - 8)
