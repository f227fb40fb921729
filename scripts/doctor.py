"""Whether everything that the services stand on answers, as their settings have it. `make doctor` calls this."""

import os
import subprocess
import sys
from pathlib import Path

from dotenv import dotenv_values

ROOT = Path(__file__).resolve().parent.parent
SERVICES = ("user", "video", "storage", "usage", "logging")


def main() -> int:
    secrets = set()
    failed = False
    for name in SERVICES:
        folder = ROOT / f"{name}-service"
        secrets.add(os.environ.get("JWT_SECRET") or dotenv_values(folder / ".env").get("JWT_SECRET"))
        checked = subprocess.run([sys.executable, "-m", f"{name}_service", "check"], cwd=folder, check=False)
        failed |= checked.returncode != 0
    if len(secrets - {None, ""}) > 1:
        failed = True
        print("FAIL  JWT_SECRET differs between the services' .env files: it must be the same in all five")
    print("Something is to be done." if failed else "All is well.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
