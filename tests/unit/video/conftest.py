from collections.abc import Iterator
from pathlib import Path

import pytest
from quickfolder import quick_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as path:
        yield path
