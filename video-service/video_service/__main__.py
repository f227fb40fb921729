"""``python -m video_service`` serves; ``check`` behind it tells whether all that it stands on answers."""

from shared.serving import Server, run, serve_http1
from video_service.config import Settings
from video_service.http2_server import serve_http1_and_http2
from video_service.main import create_app
from video_service.store import open_store


def choose_server(settings: Settings) -> Server:
    return serve_http1_and_http2 if settings.http2 else serve_http1


if __name__ == "__main__":
    raise SystemExit(run(Settings, create_app, open_store, choose_server=choose_server))
