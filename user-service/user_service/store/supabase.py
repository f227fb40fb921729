"""Users in Supabase: see ``supabase/migrations/…_users.sql``."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Self

from pydantic import AwareDatetime, BaseModel

from shared.auth import Role
from shared.supabase import Done, Supabase
from user_service.config import Settings
from user_service.store import Account

MIGRATIONS = ["20261125000000_foundation", "20261125000100_users"]


class _User(BaseModel):
    id: uuid.UUID
    email: str
    email_key: str
    password: str
    username: str
    created_at: AwareDatetime
    role: Role

    def account(self) -> Account:
        return Account(
            id=self.id,
            email=self.email,
            email_key=self.email_key,
            password=self.password,
            username=self.username,
            created_at=self.created_at.astimezone(UTC),
            role=self.role,
        )


class _Found(BaseModel):
    user: _User | None


class _Added(BaseModel):
    added: bool


class _Changed(BaseModel):
    found: bool


class _Taken(BaseModel):
    taken: bool | None


class SupabaseStore:
    def __init__(self, database: Supabase) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: Settings) -> AsyncIterator[Self]:
        async with Supabase.open(settings, MIGRATIONS) as database:
            yield cls(database)

    async def add(self, account: Account) -> bool:
        row = {
            "id": account.id,
            "email": account.email,
            "email_key": account.email_key,
            "password": account.password,
            "username": account.username,
            "created_at": account.created_at,
            "role": account.role,
        }
        return (await self._database.call("users_add", _Added, p_user=row)).added

    async def by_email(self, key: str) -> Account | None:
        if "\0" in key:  # which PostgreSQL cannot hold, nor look for
            return None
        user = (await self._database.call("users_by_email", _Found, p_key=key)).user
        return user.account() if user else None

    async def by_id(self, user_id: uuid.UUID) -> Account | None:
        user = await self._database.find("users", _User, "id", str(user_id))
        return user.account() if user else None

    async def set_role(self, key: str, role: Role) -> bool:
        return (await self._database.call("users_set_role", _Changed, p_key=key, p_role=role)).found

    async def lock_upload(self, user_id: uuid.UUID, holder: str, now: datetime, stale_before: datetime) -> bool | None:
        answer = await self._database.call(
            "users_lock_upload",
            _Taken,
            p_user_id=user_id,
            p_holder=holder,
            p_now=now,
            p_stale_before=stale_before,
        )
        return answer.taken

    async def unlock_upload(self, user_id: uuid.UUID, holder: str) -> None:
        await self._database.call("users_unlock_upload", Done, p_user_id=user_id, p_holder=holder)

    async def ping(self) -> None:
        await self._database.ping()
