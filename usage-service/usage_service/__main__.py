"""``python -m usage_service`` serves."""

from shared.serving import serve
from usage_service.config import Settings
from usage_service.main import create_app

if __name__ == "__main__":
    serve(Settings, create_app)
