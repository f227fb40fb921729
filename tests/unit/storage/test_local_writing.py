"""What a disk takes a bit at a time is written whole, and in its order."""

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from storage_service.blobs import local


def test_a_disk_that_takes_a_part_of_what_it_is_given_gets_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def a_little(descriptor: int, pieces: Sequence[memoryview]) -> int:
        return os.write(descriptor, b"".join(pieces)[:3])

    monkeypatch.setattr(os, "writev", a_little)
    with (tmp_path / "film").open("wb") as file:
        local._write(file.fileno(), [b"one", b"", b"two and", b"three", b"!"], None)
    assert (tmp_path / "film").read_bytes() == b"onetwo andthree!"
