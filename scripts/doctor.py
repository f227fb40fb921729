"""Whether everything that the services stand on answers, as `make run` sets them. `make doctor` calls this."""

import os
import subprocess
import sys

from services import ROOT, environment, folder, read_env, read_procfile, read_services


def main() -> int:
    services = read_services(read_procfile())
    failed = False
    for service in services:
        home = ROOT / folder(service.name)
        command = [sys.executable, "-m", f"{service.name}_service", "check"]
        failed |= subprocess.run(command, cwd=home, env=environment(service, services), check=False).returncode != 0
    secrets = {read_env(ROOT / folder(service.name) / ".env").get("JWT_SECRET") for service in services}
    if len(secrets - {None}) > 1 and not os.environ.get("JWT_SECRET"):
        failed = True
        print("FAIL  JWT_SECRET differs between the services' .env files: it must be the same in all five")
    print("Something is to be done." if failed else "All is well.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
