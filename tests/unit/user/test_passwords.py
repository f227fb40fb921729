"""Passwords as they are really hashed."""

import asyncio
import os
import sys
import threading
from collections.abc import AsyncIterator

import pytest

from shared.errors import Unavailable
from user_service import passwords
from user_service.passwords import Argon2


@pytest.fixture
async def argon2() -> AsyncIterator[Argon2]:
    async with Argon2() as argon2:
        yield argon2


async def test_a_hash_is_argon2id_with_the_parameters_of_owasp_and_never_the_same_twice(argon2: Argon2) -> None:
    hashed = await argon2.hash("password")
    assert hashed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await argon2.hash("password") != hashed


@pytest.mark.parametrize("password", ["password", "x" * 128, "😀" * 128, "a\0bcdefg", ""])
async def test_every_character_of_a_password_counts(argon2: Argon2, password: str) -> None:
    hashed = await argon2.hash(password)
    assert await argon2.verify(password, hashed)
    assert not await argon2.verify(password + "x", hashed)
    assert not await argon2.verify(password[:-1] + "y", hashed)


@pytest.mark.parametrize("hashed", ["", "plain text", "$2b$12$abcdefghijklmnopqrstuv", "$argon2id$v=19$damaged"])
async def test_what_is_no_hash_of_ours_is_nobodys_password(argon2: Argon2, hashed: str) -> None:
    assert not await argon2.verify("plain text", hashed)


async def test_who_comes_when_too_many_wait_is_told_so_and_the_others_are_served(
    argon2: Argon2, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passwords, "MOST_WAITING", 1)
    most = os.cpu_count() or 1
    answers = await asyncio.gather(*(argon2.hash("password") for _ in range(most + 3)), return_exceptions=True)
    assert [type(answer) for answer in answers] == [str] * most + [Unavailable] * 3
    assert await argon2.verify("password", str(answers[0]))


async def test_nobody_has_no_password_not_even_the_one_that_stands_in(argon2: Argon2) -> None:
    assert not await argon2.verify("nobody", None)
    assert not await argon2.verify("", None)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a thread has no niceness of its own")
async def test_hashing_gives_way_to_everything_else(argon2: Argon2, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def spied(password: str) -> bytes:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return password.encode()

    monkeypatch.setattr(passwords, "_bytes", spied)
    before = os.getpriority(os.PRIO_PROCESS, 0)
    await argon2.hash("password")
    assert before >= 10 or seen == [10]
    assert os.getpriority(os.PRIO_PROCESS, 0) == before
