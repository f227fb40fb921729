"""What travels from a judge to the service, and what the service believes of it."""

import pytest

from storage_service.verdict import NotAVideo, Probe, decode, encode


def test_a_verdict_arrives_as_it_was_sent() -> None:
    found = Probe("video/webm", None, 320, 240, b"\xff\xd8\xff")
    assert decode(encode(found)) == found
    with pytest.raises(NotAVideo, match="It sings"):
        decode(encode(NotAVideo("It sings.")))
    with pytest.raises(FileNotFoundError):
        decode(encode(FileNotFoundError(2, "No such file")))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x80\x04]",
        b"[]",
        b"{}",
        b'{"content_type": "text/html", "duration": null, "width": 1, "height": 1, "thumbnail": ""}',
        b'{"content_type": "video/mp4", "duration": NaN, "width": 1, "height": 1, "thumbnail": ""}',
        b'{"content_type": "video/mp4", "duration": null, "width": "1", "height": 1, "thumbnail": ""}',
    ],
)
def test_a_judge_that_was_taken_over_cannot_answer_what_it_likes(answer: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode(answer)
