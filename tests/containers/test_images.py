"""What is in an image and what is not, and what a container of it does on its own."""

import base64
import json
import tarfile
from contextlib import suppress
from pathlib import Path

import httpx
import pytest
import videos
from containers.engine import (
    NAMES,
    docker,
    inside,
    inspect,
    logs,
    run,
    seconds_until,
    started,
    state,
    stop,
    wait_until_healthy,
)

from storage_service.probe import CODECS

MB = 1_000_000
# Of storage's, some 75 are ffmpeg, and 15 the libraries of Google.
LARGEST = {"user": 210, "video": 190, "storage": 290, "usage": 190, "logging": 190}
SECRET = "a-secret-of-the-tests-and-of-nobody-else"
TOOLS = ("gcc", "cc", "ld", "strip", "make", "uv", "pip", "pip3", "git", "curl", "wget")
# Every library that came with a package loads, also those that no journey touches.
LOOK = """
import ctypes, importlib.util, json, os, pathlib, shutil, sys
packages = pathlib.Path(f"/app/lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages")
ours = sorted(path.name for path in packages.iterdir() if path.name.endswith("_service") or path.name == "shared")
for library in packages.rglob("*.so*"):
    ctypes.CDLL(str(library))
modules = [path for name in ours for path in (packages / name).rglob("*.py")]
print(json.dumps({
    "uid": os.getuid(),
    "tools": [tool for tool in sys.argv[1:] if shutil.which(tool)],
    "pip": bool(importlib.util.find_spec("pip")),
    "ours": ours,
    "modules": len(modules),
    "compiled": sum(pathlib.Path(importlib.util.cache_from_source(path)).exists() for path in modules),
    "mine": [str(path) for path in (pathlib.Path("/app"), packages, pathlib.Path("/")) if os.access(path, os.W_OK)],
    "data": os.access("/data", os.W_OK) and oct(os.stat("/data").st_mode & 0o777),
    "tests": [str(path) for path in packages.rglob("tests")],
}))
"""


# Confined as judges are; films of all codecs on standard input.
JUDGE = """
import base64, io, json, sys
from storage_service.probe import confine, judge
confine()
films = json.load(sys.stdin)
found = {codec: judge(io.BytesIO(base64.b64decode(film))) for codec, film in films.items()}
print(json.dumps({codec: [one.width, one.height, one.thumbnail[:11].hex()] for codec, one in found.items()}))
"""


@pytest.mark.parametrize("name", NAMES)
def test_it_is_small(images: dict[str, str], figures: list[str], name: str) -> None:
    size = inspect(images[name])["Size"] / MB
    figures.append(f"{name}-service: image {size:.0f} MB")
    assert size < LARGEST[name]


@pytest.mark.parametrize("name", NAMES)
def test_it_has_what_it_needs_and_nothing_else(images: dict[str, str], name: str) -> None:
    config = inspect(images[name])["Config"]
    assert config["User"] == "10001"
    assert config["Cmd"] == ["python", "-m", f"{name}_service"], "of exec form"
    assert not config.get("Entrypoint")
    assert not [variable for variable in config["Env"] if "SECRET" in variable or "KEY" in variable.partition("=")[0]]

    said = docker(
        "run", "--rm", "--network", "none", "--read-only", "-v", "/data", images[name], "python", "-c", LOOK, *TOOLS
    )
    found = json.loads(said)
    assert found["uid"] == 10001
    assert found["tools"] == []
    assert not found["pip"]
    assert found["ours"] == sorted([f"{name}_service", "shared"]), "no other service"
    assert found["compiled"] == found["modules"] > 0
    assert found["mine"] == []
    assert found["data"] == "0o700"
    assert found["tests"] == []


def test_videos_of_all_codecs_are_inspected_in_the_image(images: dict[str, str]) -> None:
    films = {codec: videos.webm(codec=codec) if codec.startswith("vp") else videos.mp4(codec=codec) for codec in CODECS}
    text = json.dumps({codec: base64.b64encode(film).decode() for codec, film in films.items()})
    said = docker("run", "--rm", "-i", "--network", "none", images["storage"], "python", "-c", JUDGE, text=text)
    jpeg = b"\xff\xd8\xff\xe0\0\x10JFIF\0".hex()
    assert json.loads(said) == {codec: [320, 240, jpeg] for codec in films}


def test_nothing_of_the_builder_is_in_any_layer(images: dict[str, str], canary: str, tmp_path: Path) -> None:
    """Also not in one that a later layer covers: no .env, no secret, no data, no tests of ours."""
    for image in images.values():
        assert canary not in docker("history", "--no-trunc", image)
    archive = tmp_path / "images.tar"
    docker("save", "--output", archive, *images.values(), seconds=240)
    layers = 0
    with tarfile.open(archive) as images_tar:
        for member in images_tar:
            if not member.isfile():
                continue
            file = images_tar.extractfile(member)
            assert file is not None
            contents = file.read()
            assert canary.encode() not in contents, member.name
            file.seek(0)
            # Which of its files are layers is told by none of their names in all the engines' formats.
            with suppress(tarfile.ReadError), tarfile.open(fileobj=file) as layer:
                names = layer.getnames()
                layers += 1
                ours = [path for path in names if "_service/" in path or path.startswith(("app/", "data/", "source/"))]
                assert not [path for path in ours if Path(path).name.startswith(".env") or "/tests/" in path]
                assert not [path for path in names if path.startswith(("data/", "source/"))]
    archive.unlink()
    assert layers > len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_starts_in_seconds_listens_on_its_port_and_ends_by_sigterm(
    images: dict[str, str], own_network: str, figures: list[str], name: str
) -> None:
    """As the README runs one; as process 1, with no init."""
    with started(images[name], own_network, "-e", f"JWT_SECRET={SECRET}", "-e", "PORT=3000") as (container, port):

        def answers() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/health", trust_env=False, timeout=2).status_code == 200
            return False

        first = seconds_until(answers)
        wait_until_healthy(container)
        (check,) = [look for look in state(container)["Health"]["Log"] if look["ExitCode"] == 0][:1]
        docs = httpx.get(f"http://127.0.0.1:{port}/docs", trust_env=False, timeout=5)
        assert docs.status_code == 200
        took = stop(container)
        figures.append(
            f"{name}-service: answers after {first:.1f} s, ends {took:.1f} s after SIGTERM"
            f" (a health check took {seconds_of(check):.2f} s)"
        )
        assert first < 15
        assert took < 8


def test_it_listens_on_another_port_when_told(images: dict[str, str], own_network: str) -> None:
    with started(images["logging"], own_network, "-e", f"JWT_SECRET={SECRET}", "-e", "PORT=8080") as (container, _):
        wait_until_healthy(container)
        inside(container, "import socket; socket.create_connection(('127.0.0.1', 8080), 2)")


@pytest.mark.parametrize("name", NAMES)
def test_without_a_secret_it_says_so_and_ends(images: dict[str, str], own_network: str, name: str) -> None:
    with started(images[name], own_network) as (container, _):
        assert docker("wait", container).strip() == "2"
        assert logs(container) == f"{name}-service: JWT_SECRET is missing (see {name}-service/.env.example)\n"


def test_an_administrator_is_made_by_the_same_command(images: dict[str, str], own_network: str) -> None:
    with started(images["user"], own_network, "-e", f"JWT_SECRET={SECRET}") as (container, port):
        wait_until_healthy(container)
        account = {"email": "ada@example.test", "password": "correct horse battery", "username": "Ada"}
        registered = httpx.post(
            f"http://127.0.0.1:{port}/api/users/register", json=account, trust_env=False, timeout=10
        )
        assert registered.status_code == 201
        said = docker("exec", container, "python", "-m", "user_service", "make-admin", "ada@example.test")
        assert "is an administrator" in said


def seconds_of(check: dict[str, str]) -> float:
    """Of a health check, whose times have nine digits behind the point."""
    start, end = (run("date", "--date", check[when], "+%s.%N").strip() for when in ("Start", "End"))
    return float(end) - float(start)
