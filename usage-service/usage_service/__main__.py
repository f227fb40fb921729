"""``python -m usage_service`` serves; ``check`` behind it tells whether all that it stands on answers."""

from shared.serving import run
from usage_service.config import Settings
from usage_service.main import create_app
from usage_service.store import open_store

if __name__ == "__main__":
    raise SystemExit(run(Settings, create_app, open_store))
