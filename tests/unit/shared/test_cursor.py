"""A cursor is the same place again after its way through a URL, and no other text is one."""

import base64
import string

import pytest

from shared.cursor import Cursor

TIME = "2026-11-26T12:00:00.000001Z"


def spelled(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


@pytest.mark.parametrize("time", [TIME, "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"])
@pytest.mark.parametrize("seq", [0, 1, 42, 2**63 - 1])
def test_it_is_the_same_place_again(time: str, seq: int) -> None:
    encoded = Cursor(time, seq).encoded()
    assert set(encoded) <= {*string.ascii_letters, *string.digits, "-", "_"}, "it goes into a URL as it is"
    assert Cursor.parse(encoded) == Cursor(time, seq)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "null",
        "ä",
        "A" * 10_000,
        Cursor(TIME, 7).encoded() + "=",
        Cursor(TIME, 7).encoded() + "\n",
        Cursor(TIME, 7).encoded()[:-1],
        spelled(TIME),
        spelled(f"{TIME} -1"),
        spelled(f"{TIME} +1"),
        spelled(f"{TIME} 01"),
        spelled(f"{TIME} {2**63}"),
        spelled(f"{TIME} {'9' * 5000}"),
        spelled(f"{TIME} 1 1"),
        spelled(f"{TIME} ٣"),
        spelled("2026-11-26T12:00:00Z 1"),
        spelled("2026-02-30T12:00:00.000001Z 1"),
        spelled("2026-11-26T12:00:00.000001+00:00 1"),
        spelled("0001-01-01T00:00:00.000000+14:00 1"),
        spelled("2026-11-26T12:00:00.000001 1"),
        spelled("now 1"),
        spelled(" "),
    ],
)
def test_any_other_text_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="must be what a page gave as `next`"):
        Cursor.parse(text)
