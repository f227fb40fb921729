"""``python -m logging_service`` serves; ``check`` behind it tells whether all that it stands on answers."""

from logging_service.config import Settings
from logging_service.main import create_app
from logging_service.store import open_store
from shared.serving import run

if __name__ == "__main__":
    raise SystemExit(run(Settings, create_app, open_store))
