"""``python -m storage_service`` serves; ``check`` behind it tells whether all that it stands on answers."""

from shared.serving import run
from storage_service.blobs.trial import trials
from storage_service.config import Settings
from storage_service.main import create_app
from storage_service.store import open_store

if __name__ == "__main__":
    raise SystemExit(run(Settings, create_app, open_store, trials))
