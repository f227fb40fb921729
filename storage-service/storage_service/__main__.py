"""``python -m storage_service`` serves."""

from shared.serving import serve
from storage_service.config import Settings
from storage_service.main import create_app

if __name__ == "__main__":
    serve(Settings, create_app)
