"""``python -m logging_service`` serves."""

from logging_service.config import Settings
from logging_service.main import create_app
from shared.serving import serve

if __name__ == "__main__":
    serve(Settings, create_app)
