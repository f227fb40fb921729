"""``python -m video_service`` serves; ``check`` behind it tells whether all that it stands on answers."""

from shared.serving import run
from video_service.config import Settings
from video_service.main import create_app
from video_service.store import open_store

if __name__ == "__main__":
    raise SystemExit(run(Settings, create_app, open_store))
