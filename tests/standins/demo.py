"""A project to try things on, until Ctrl-C:  PYTHONPATH=tests .venv/bin/python -m standins.demo [12|13]"""

import sys
import threading

from standins.keys import Keys
from standins.postgres import Postgres
from standins.postgrest import PostgREST
from standins.serving import Served


def main() -> None:
    keys = Keys()
    version = 12 if "12" in sys.argv[1:] else 13
    with Postgres() as postgres:
        database = postgres.create_database()
        with Served(PostgREST(database.as_authenticator, keys.secret, version=version)) as standin:
            sys.stdout.write(f"export SUPABASE_URL={standin.url}\nexport SUPABASE_KEY={keys.service}\n")
            sys.stdout.write(f"# anon key: {keys.anon}\n# owner: {database.as_owner}\n")
            sys.stdout.flush()
            threading.Event().wait()


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
