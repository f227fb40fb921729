"""The rules of accounts: who may register, who is let in, who may upload now."""

import unicodedata
import uuid
from datetime import timedelta
from typing import Protocol

import email_validator

from shared.auth import User
from shared.clock import Clock, utc_now
from shared.contracts import Recorder
from shared.errors import Conflict, Forbidden, NotFound, Unauthorized
from user_service.passwords import Passwords
from user_service.store import Account, Store

# An account's name need not be reachable by mail: `me@app.local` and `a@example.test` are good names on a laptop.
email_validator.SPECIAL_USE_DOMAIN_NAMES.clear()

ACCOUNTS = "UserAccountService"
MIN_PASSWORD, MAX_PASSWORD = 8, 128
MAX_EMAIL = 320


class TokenIssuer(Protocol):
    def for_user(self, user: User, lifetime: float) -> str: ...


def valid_email(typed: str) -> str:
    """The address as it was typed, trimmed; raises ``ValueError``."""
    typed = typed.strip()
    try:
        email_validator.validate_email(typed, check_deliverability=False)
    except email_validator.EmailNotValidError as error:
        raise ValueError("is not a valid e-mail address") from error
    return typed


def valid_password(password: str) -> str:
    """Raises ``ValueError`` for a length outside MIN_PASSWORD … MAX_PASSWORD; any characters will do."""
    if not MIN_PASSWORD <= len(password) <= MAX_PASSWORD:
        raise ValueError(f"must have {MIN_PASSWORD} to {MAX_PASSWORD} characters")
    return password


def email_key(typed: str) -> str:
    """What two spellings of one address have in common."""
    # The last step lets no half of a character through to a database; nobody is registered under one.
    return unicodedata.normalize("NFC", typed.strip()).casefold().encode("utf-8", "backslashreplace").decode()


class UserService:
    def __init__(
        self,
        store: Store,
        passwords: Passwords,
        tokens: TokenIssuer,
        audit: Recorder,
        *,
        token_seconds: float,
        upload_lock_seconds: float,
        clock: Clock = utc_now,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._tokens = tokens
        self._audit = audit
        self._token_seconds = token_seconds
        self._lock_life = timedelta(seconds=upload_lock_seconds)
        self._clock = clock

    async def register(self, email: str, password: str, username: str | None) -> None:
        """Make an account; raises ``Conflict`` if the e-mail is taken, in whatever spelling."""
        account = Account(
            id=uuid.uuid4(),
            email=email,
            email_key=email_key(email),
            password=await self._passwords.hash(password),
            username=username or email.rpartition("@")[0],
            created_at=self._clock(),
        )
        if not await self._store.add(account):
            raise Conflict("User already exists with this email", code="email_taken")
        self._audit.record(account.id, "REGISTER", f"{account.username} registered", ACCOUNTS)

    async def login(self, email: str, password: str) -> str:
        """A token; raises ``Unauthorized`` alike for an unknown e-mail and a wrong password."""
        # Nobody's address or password is longer, and to normalise or hash megabytes would be work for free.
        account = await self._store.by_email(email_key(email)) if len(email) <= MAX_EMAIL else None
        fits = len(password) <= MAX_PASSWORD
        right = await self._passwords.verify(password if fits else "", account.password if account else None)
        if account and not (right and fits):
            self._audit.record(account.id, "LOGIN", "Failed login", ACCOUNTS)
        if not account or not right or not fits:
            raise Unauthorized("Invalid credentials", code="invalid_credentials")
        self._audit.record(account.id, "LOGIN", "Logged in", ACCOUNTS)
        return self._tokens.for_user(User(id=account.id, email=account.email, role=account.role), self._token_seconds)

    async def profile(self, viewer: User, user_id: uuid.UUID) -> Account:
        if not viewer.may_see(user_id):
            raise Forbidden("You may see your own account only.")
        account = await self._store.by_id(user_id)
        if account is None:
            raise NotFound("There is no such user.")
        return account

    async def lock_upload(self, user_id: uuid.UUID, holder: str) -> None:
        """Let ``holder`` be the user's one upload, or renew it; a holder not heard of for a lock's life has lost it."""
        now = self._clock()
        taken = await self._store.lock_upload(user_id, holder, now, now - self._lock_life)
        if taken is None:
            raise NotFound("There is no such user.", code="no_such_user")
        if not taken:
            raise Conflict("Already uploading: wait until your other upload has ended.", code="already_uploading")

    async def unlock_upload(self, user_id: uuid.UUID, holder: str) -> None:
        await self._store.unlock_upload(user_id, holder)
