"""Passwords as they are really hashed."""

from collections.abc import AsyncIterator

import pytest

from user_service.passwords import Argon2


@pytest.fixture
async def argon2() -> AsyncIterator[Argon2]:
    async with Argon2() as passwords:
        yield passwords


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


async def test_nobody_has_no_password_not_even_the_one_that_stands_in(argon2: Argon2) -> None:
    assert not await argon2.verify("nobody", None)
    assert not await argon2.verify("", None)
