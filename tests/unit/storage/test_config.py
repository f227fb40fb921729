"""What storage-service makes of its settings."""

from pathlib import Path
from typing import Any

import pytest

from shared.settings import MIB
from storage_service.config import Settings


@pytest.mark.parametrize(
    ("given", "sized_below"), [({}, None), ({"HTTP2": "true"}, 32 * MIB), ({"K_SERVICE": "storage-service"}, 32 * MIB)]
)
def test_on_cloud_run_an_answer_of_32_mib_goes_without_its_length(
    given: Any, sized_below: int | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("HTTP2", "K_SERVICE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert Settings(jwt_secret="x" * 32).sized_below == sized_below  # type: ignore[arg-type, call-arg]
