"""What the README prints is what happens: its session, word by word, against five running services."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from e2e.services import Services

ROOT = Path(__file__).resolve().parents[2]
LOCAL_PORTS = {"3001": "user", "3002": "video", "3003": "storage", "3004": "usage", "3005": "logging"}


@pytest.mark.skipif(shutil.which("curl") is None, reason="the session of the README is made of curl, which is not here")
def test_the_session_in_the_readme_works_as_printed(services: Services, tmp_path: Path) -> None:
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / ".venv").symlink_to(Path(sys.executable).parents[1])
    ran = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=session(services),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    said = ran.stdout
    assert ran.returncode == 0, said + ran.stderr
    assert "the same bytes" in said
    assert "206 100 bytes" in said
    assert '"title":"My first clip"' in said
    assert '"totalUsageMb":0.0' in said
    assert '"action_type":"UPLOAD_VIDEO"' in said
    assert "Video deleted successfully" in said
    assert not [path for path in tmp_path.iterdir() if not path.is_symlink()], "it cleans up after itself"


def session(services: Services) -> str:
    """The block after the README's marker, with the ports of these services."""
    block = re.search(r"test_readme\.py[^\n]*\n```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert block, "the README has lost its session"
    return re.sub(
        r"localhost:(300[1-5])", lambda port: services[LOCAL_PORTS[port[1]]].url.removeprefix("http://"), block[1]
    )
