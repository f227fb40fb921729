"""``python -m user_service`` serves; ``check`` behind it tells whether all that it stands on answers.

``make-admin EMAIL`` behind it makes an administrator.
"""

import asyncio
import sys

from shared.database import DatabaseError
from shared.errors import Unavailable
from shared.serving import run
from shared.settings import SettingsError, load
from user_service.config import Settings
from user_service.main import create_app
from user_service.service import email_key
from user_service.store import open_store


async def make_admin(email: str) -> bool:
    async with open_store(load(Settings)) as store:
        return await store.set_role(email_key(email), "admin")


def main(arguments: list[str]) -> int:
    match arguments:
        case ["make-admin", email]:
            try:
                found = asyncio.run(make_admin(email))
            except (SettingsError, DatabaseError) as error:
                sys.stderr.write(f"{error}\n")
                return 2
            except Unavailable as error:
                sys.stderr.write(f"user-service: the database does not answer: {error.reason}\n")
                return 3
            if not found:
                sys.stderr.write(f"user-service: nobody is registered as {email}\n")
                return 1
            sys.stdout.write(f"{email} is an administrator from the next login on\n")
            return 0
        case _:
            return run(Settings, create_app, open_store, arguments=arguments, also="make-admin EMAIL")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
