"""``python -m video_service`` serves."""

from shared.serving import serve
from video_service.config import Settings
from video_service.main import create_app

if __name__ == "__main__":
    serve(Settings, create_app)
