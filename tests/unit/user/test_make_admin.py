"""``python -m user_service make-admin EMAIL``."""

import asyncio
import uuid
from datetime import UTC, datetime
from pathlib import Path

import pytest

from shared.settings import load
from user_service.__main__ import main
from user_service.config import Settings
from user_service.store import Account, open_store


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JWT_SECRET", "x" * 32)
    monkeypatch.delenv("DATA_DIR", raising=False)


async def add_anne() -> None:
    anne = Account(uuid.uuid4(), "Anne@example.test", "anne@example.test", "hash", "Anne", datetime.now(UTC))
    async with open_store(load(Settings)) as store:
        await store.add(anne)


async def role_of_anne() -> str:
    async with open_store(load(Settings)) as store:
        anne = await store.by_email("anne@example.test")
        assert anne
        return anne.role


def test_an_account_becomes_an_administrators_in_whatever_spelling(capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(add_anne())
    assert main(["make-admin", " ANNE@example.test "]) == 0
    assert asyncio.run(role_of_anne()) == "admin"
    assert "administrator" in capsys.readouterr().out


def test_nobody_cannot_become_one_and_one_line_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-admin", "nobody@example.test"]) == 1
    assert capsys.readouterr().err == "user-service: nobody is registered as nobody@example.test\n"


def test_a_wrong_setting_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JWT_SECRET", "short")
    assert main(["make-admin", "anne@example.test"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_anything_else_is_told_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["make-coffee"]) == 2
    assert capsys.readouterr().err.startswith("usage:")
