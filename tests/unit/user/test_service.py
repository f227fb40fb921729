"""The rules of accounts, over fakes."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from shared.auth import User
from shared.errors import Conflict, Forbidden, NotFound, Unauthorized
from user_service.service import UserService, email_key, valid_email
from user_service.store import Account

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


class FakeStore:
    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.lock: bool | None = True
        self.asked: tuple[Any, ...] = ()

    async def add(self, account: Account) -> bool:
        return self.accounts.setdefault(account.email_key, account) is account

    async def by_email(self, key: str) -> Account | None:
        return self.accounts.get(key)

    async def by_id(self, user_id: uuid.UUID) -> Account | None:
        return next((account for account in self.accounts.values() if account.id == user_id), None)

    async def lock_upload(self, *asked: Any) -> bool | None:
        self.asked = asked
        return self.lock


class Reversed:
    """Hashing that anybody can follow; it remembers what it had to verify."""

    def __init__(self) -> None:
        self.verified: list[tuple[str, str | None]] = []

    async def hash(self, password: str) -> str:
        return password[::-1]

    async def verify(self, password: str, hashed: str | None) -> bool:
        self.verified.append((password, hashed))
        return hashed == password[::-1]


class FakeTokens:
    def for_user(self, user: User, lifetime: float) -> str:
        return f"{user.email} {user.role} {lifetime}"


class FakeAudit:
    def __init__(self) -> None:
        self.recorded: list[tuple[uuid.UUID, str, str]] = []

    def record(self, user_id: uuid.UUID, action: str, description: str, service: str) -> None:
        assert service == "UserAccountService"
        self.recorded.append((user_id, action, description))


@pytest.fixture
def store() -> FakeStore:
    return FakeStore()


@pytest.fixture
def passwords() -> Reversed:
    return Reversed()


@pytest.fixture
def audit() -> FakeAudit:
    return FakeAudit()


@pytest.fixture
def users(store: Any, passwords: Reversed, audit: FakeAudit) -> UserService:
    return UserService(
        store, passwords, FakeTokens(), audit, token_seconds=3600, upload_lock_seconds=300, clock=lambda: NOW
    )


@pytest.mark.parametrize(
    "typed", ["anne@example.test", "  Anne@Example.Test\n", "me@app.local", "o'b+x~y?z@example.org", "a@bücher.example"]
)
def test_a_good_email_is_kept_as_typed_and_trimmed(typed: str) -> None:
    assert valid_email(typed) == typed.strip()


@pytest.mark.parametrize(
    "typed", ["", " ", "anne", "anne@", "@b.co", "a b@b.co", "a@b..co", "a@b", "a\0@b.co", "a@@b.co"]
)
def test_a_bad_email_is_named_so(typed: str) -> None:
    with pytest.raises(ValueError, match="not a valid e-mail"):
        valid_email(typed)


@pytest.mark.parametrize("typed", ["ANNE@EXAMPLE.TEST", " anne@example.test ", "Anne@Example.test\t"])
def test_spellings_of_one_email_have_one_key(typed: str) -> None:
    assert email_key(typed) == "anne@example.test"


async def test_an_account_keeps_the_spelling_and_only_a_hash(users: UserService, store: FakeStore) -> None:
    await users.register("Anne@Example.test", "password", "Anne")
    (account,) = store.accounts.values()
    assert (account.email, account.email_key) == ("Anne@Example.test", "anne@example.test")
    assert (account.password, account.username, account.role) == ("drowssap", "Anne", "user")
    assert account.created_at == NOW


async def test_without_a_user_name_it_is_the_emails_local_part(users: UserService, store: FakeStore) -> None:
    await users.register("Anne.Smith@example.test", "password", None)
    assert store.accounts["anne.smith@example.test"].username == "Anne.Smith"


async def test_a_taken_email_is_a_conflict_and_not_recorded(users: UserService, audit: FakeAudit) -> None:
    await users.register("anne@example.test", "password", None)
    with pytest.raises(Conflict, match=r"^User already exists with this email$"):
        await users.register("ANNE@example.test", "password", None)
    assert [action for _, action, _ in audit.recorded] == ["REGISTER"]


async def test_the_right_password_gives_a_token_of_the_stored_email(users: UserService, audit: FakeAudit) -> None:
    await users.register("Anne@example.test", "password", None)
    assert await users.login(" anne@EXAMPLE.test ", "password") == "Anne@example.test user 3600"
    assert audit.recorded[-1][1:] == ("LOGIN", "Logged in")


async def test_wrong_email_and_wrong_password_look_alike_and_cost_one_verification_each(
    users: UserService, passwords: Reversed
) -> None:
    await users.register("anne@example.test", "password", None)
    for email, password in (("anne@example.test", "wrong"), ("nobody@example.test", "password")):
        with pytest.raises(Unauthorized, match=r"^Invalid credentials$"):
            await users.login(email, password)
    assert passwords.verified == [("wrong", "drowssap"), ("password", None)]


async def test_a_failed_login_is_recorded_under_the_account_if_there_is_one(
    users: UserService, audit: FakeAudit, store: FakeStore
) -> None:
    await users.register("anne@example.test", "password", None)
    for email in ("anne@example.test", "nobody@example.test"):
        with pytest.raises(Unauthorized):
            await users.login(email, "wrong")
    assert audit.recorded[1:] == [(store.accounts["anne@example.test"].id, "LOGIN", "Failed login")]


async def test_a_password_longer_than_any_is_never_hashed(users: UserService, passwords: Reversed) -> None:
    await users.register("anne@example.test", "p" * 128, None)
    with pytest.raises(Unauthorized):
        await users.login("anne@example.test", "p" * 129)
    assert passwords.verified == [("", "p" * 128)]


async def test_an_account_is_shown_to_its_owner_and_to_administrators(users: UserService, store: FakeStore) -> None:
    await users.register("anne@example.test", "password", None)
    (account,) = store.accounts.values()
    for viewer in (User(id=account.id, email="", role="user"), User(id=uuid.uuid4(), email="", role="admin")):
        assert await users.profile(viewer, account.id) == account
    with pytest.raises(Forbidden):
        await users.profile(User(id=uuid.uuid4(), email="", role="user"), account.id)
    with pytest.raises(NotFound):
        await users.profile(User(id=uuid.uuid4(), email="", role="admin"), uuid.uuid4())


async def test_a_lock_is_stale_after_its_life(users: UserService, store: FakeStore) -> None:
    anne = uuid.uuid4()
    await users.lock_upload(anne, "holder")
    assert store.asked == (anne, "holder", NOW, NOW - timedelta(seconds=300))


async def test_a_second_upload_is_refused_in_the_words_the_page_knows(users: UserService, store: FakeStore) -> None:
    store.lock = False
    with pytest.raises(Conflict, match="Already uploading"):
        await users.lock_upload(uuid.uuid4(), "holder")
    store.lock = None
    with pytest.raises(NotFound):
        await users.lock_upload(uuid.uuid4(), "holder")
