"""Users in one SQLite file."""

import sqlite3
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Self

from shared.auth import Role
from shared.clock import to_text
from shared.database import Schema, Sqlite
from user_service.store import Account

SCHEMA = Schema(
    version=1,
    script="""
    CREATE TABLE users (
        id TEXT PRIMARY KEY,
        email TEXT NOT NULL,
        password TEXT NOT NULL,
        username TEXT NOT NULL,
        created_at TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('user', 'admin')),
        uploading TEXT,
        uploading_by TEXT,
        email_key TEXT NOT NULL UNIQUE
    ) STRICT
    """,
)


class SqliteStore:
    def __init__(self, database: Sqlite) -> None:
        self._database = database

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        async with Sqlite(path, SCHEMA) as database:
            yield cls(database)

    async def add(self, account: Account) -> bool:
        row = {
            "id": str(account.id),
            "email": account.email,
            "password": account.password,
            "username": account.username,
            "created_at": to_text(account.created_at),
            "role": account.role,
            "email_key": account.email_key,
        }

        def work(connection: sqlite3.Connection) -> bool:
            connection.execute(
                """INSERT INTO users (id, email, password, username, created_at, role, email_key)
                   VALUES (:id, :email, :password, :username, :created_at, :role, :email_key)
                   ON CONFLICT DO NOTHING""",
                row,
            )
            return connection.execute("SELECT 1 FROM users WHERE id = :id", row).fetchone() is not None

        return await self._database.write(work)

    async def by_email(self, key: str) -> Account | None:
        return await self._one("SELECT * FROM users WHERE email_key = ?", key)

    async def by_id(self, user_id: uuid.UUID) -> Account | None:
        return await self._one("SELECT * FROM users WHERE id = ?", str(user_id))

    async def set_role(self, key: str, role: Role) -> bool:
        return await self._database.execute("UPDATE users SET role = ? WHERE email_key = ?", (role, key)) == 1

    async def lock_upload(self, user_id: uuid.UUID, holder: str, now: datetime, stale_before: datetime) -> bool | None:
        def work(connection: sqlite3.Connection) -> bool | None:
            taken = connection.execute(
                """UPDATE users SET uploading = :now, uploading_by = :holder
                   WHERE id = :id AND (uploading IS NULL OR uploading < :stale_before OR uploading_by = :holder)""",
                {
                    "id": str(user_id),
                    "holder": holder,
                    "now": to_text(now),
                    "stale_before": to_text(stale_before),
                },
            )
            if taken.rowcount == 1:
                return True
            known = connection.execute("SELECT 1 FROM users WHERE id = ?", (str(user_id),)).fetchone()
            return False if known else None

        return await self._database.write(work)

    async def unlock_upload(self, user_id: uuid.UUID, holder: str) -> None:
        await self._database.execute(
            "UPDATE users SET uploading = NULL, uploading_by = NULL WHERE id = ? AND uploading_by = ?",
            (str(user_id), holder),
        )

    async def ping(self) -> None:
        await self._database.ping()

    async def _one(self, query: str, value: str) -> Account | None:
        row = await self._database.fetch_one(query, (value,))
        if row is None:
            return None
        return Account(
            id=uuid.UUID(row["id"]),
            email=row["email"],
            email_key=row["email_key"],
            password=row["password"],
            username=row["username"],
            created_at=datetime.fromisoformat(row["created_at"]),
            role=row["role"],
        )
