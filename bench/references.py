"""The references: nginx, which is the limit, and Express, the peer that does the same work. Each in its best form."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import rows
from e2e.processes import free_ports
from e2e.services import Services

HERE = Path(__file__).resolve().parent

# sendfile_max_chunk 0 is the best form for files of this size: with the default of 2 MiB the ranges lose a third.
# A worker for each core; no log; open files are cached. /twice/ is an upload with two hops and with nothing in between
# that parses, checks, inspects or syncs: the limit of every backend that has two hops.
NGINX = """
worker_processes {workers};
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ worker_connections 512; multi_accept on; }}
http {{
    access_log off;
    sendfile on;
    sendfile_max_chunk 0;
    tcp_nopush on;
    keepalive_requests 1000000;
    open_file_cache max=100 inactive=600s;
    default_type video/mp4;
    client_max_body_size 64m;
    client_body_temp_path {folder}/incoming;
    client_body_buffer_size 1m;
    proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    server {{
        listen 127.0.0.1:{port} backlog=511;
        root {folder}/files;
        location /put/ {{ dav_methods PUT DELETE; }}
        location /twice/ {{
            proxy_pass http://127.0.0.1:{port}/put/;
            proxy_http_version 1.1;
            proxy_request_buffering off;
        }}
    }}
}}
"""


@dataclass
class Reference:
    name: str
    port: int
    pid: int
    folder: Path

    @property
    def processes(self) -> list[psutil.Process]:
        root = psutil.Process(self.pid)
        return [root, *root.children(recursive=True)]


def missing() -> list[str]:
    """What must be installed first, each with the command that does it."""
    found = []
    if not _nginx():
        found.append("nginx is missing: apt install nginx-light (Debian, Ubuntu; with sudo)")
    if not shutil.which("wrk"):
        found.append("wrk is missing: apt install wrk (Debian, Ubuntu; with sudo)")
    if not shutil.which("node") or not shutil.which("npm"):
        found.append("Node.js (20.19 or newer) is missing: apt install nodejs npm (Debian, Ubuntu; with sudo)")
    return found


def _nginx() -> str | None:
    return shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextmanager
def nginx(folder: Path, video: Path) -> Iterator[Reference]:
    """``video`` at ``/video.mp4``; PUT to ``/put/``, and to ``/twice/``, which passes the bytes on as they come."""
    (port,) = free_ports(1)
    (folder / "files" / "put").mkdir(parents=True)
    os.link(video, folder / "files" / "video.mp4")
    program = _nginx()
    assert program is not None
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, port=port, workers=os.cpu_count()))
    if os.geteuid() == 0:  # else its workers run as another user, which cannot write here
        _open_to_all(folder)
    with _running(
        "nginx", [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")], folder, port
    ) as it:
        yield it


EDGE = HERE.parent / "containers" / "edge.conf"
# Paths that differ from those in a container.
EDGE_PLACES = {
    "/tmp/": "{folder}/",  # noqa: S108  first, as the other folders may lie in /tmp
    "listen 8080;": "listen 127.0.0.1:{port};",
    " storage-service;": " 127.0.0.1:{storage};",
    "http://$service:3000": "http://$service",
    "/data/objects/": "{objects}/",
    "error_log stderr error;": "daemon off; error_log {folder}/error.log error;",
}


@contextmanager
def edge(folder: Path, storage: int, objects: Path) -> Iterator[Reference]:
    """No reference: the edge of docker-compose.edge.yml as it stands, before a storage-service on port ``storage``."""
    (port,) = free_ports(1)
    folder.mkdir(parents=True)
    text = EDGE.read_text()
    for there, here in EDGE_PLACES.items():
        assert there in text, f"{EDGE} has no {there!r} any more"
        text = text.replace(there, here.format(port=port, storage=storage, objects=objects, folder=folder))
    (folder / "nginx.conf").write_text(text)
    if os.geteuid() == 0:
        _open_to_all(folder)
    program = _nginx()
    assert program is not None
    command = [program, "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
    with _running("edge", command, folder, port) as it:
        yield it


def _open_to_all(folder: Path) -> None:
    (folder / "nginx.conf").write_text("user root;\n" + (folder / "nginx.conf").read_text())


@contextmanager
def express(folder: Path, services: Services, constants: Mapping[str, object]) -> Iterator[Reference]:
    """One process, as each of our services is one process. It reads the same SQLite files of videos and logs, and at
    each path of ``constants`` answers that value.
    """
    (port,) = free_ports(1)
    (folder / "uploads").mkdir(parents=True)
    environment = {
        "NODE_ENV": "production",
        "SECRET": services.secret,
        "PORT": str(port),
        "UPLOADS": str(folder / "uploads"),
        "CONSTANTS": json.dumps(constants),
        "VIDEOS": str(rows.path_of(services, "video")),
        "LOGS": str(rows.path_of(services, "logging")),
        "TOTALS": json.dumps(rows.TOTALS),
        "PUBLIC_URL": services["storage"].url,
    }
    node = shutil.which("node")
    assert node is not None
    with _running("express", [node, str(HERE / "express" / "server.js")], folder, port, environment) as it:
        yield it


@contextmanager
def _running(
    name: str, command: list[str], folder: Path, port: int, environment: Mapping[str, str] | None = None
) -> Iterator[Reference]:
    kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
    with ExitStack() as stack:
        said = stack.enter_context((folder / "said").open("wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=kept | dict(environment or {}), stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        stack.callback(_end, process)
        deadline = time.monotonic() + 20
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not start: {(folder / 'said').read_text()}")
            time.sleep(0.05)
        yield Reference(name, port, process.pid, folder)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def install_express() -> None:
    """From npm, by the lock beside it; again when the lock has changed.

    better-sqlite3 is a native module: where its prebuilt binary cannot be downloaded, npm compiles it, which takes one
    to four minutes and needs a C++ compiler, make, Python and the headers of Node.js.
    """
    folder = HERE / "express"
    lock, installed = folder / "package-lock.json", folder / "node_modules" / ".installed"
    if installed.exists() and installed.read_bytes() == lock.read_bytes():
        return
    print("bench: Express, multer, jsonwebtoken and better-sqlite3, from npm", flush=True)
    command = ["npm", "ci", "--no-audit", "--no-fund", "--loglevel=error"]
    ran = subprocess.run(command, cwd=folder, check=False, timeout=900)
    if ran.returncode:
        raise RuntimeError(
            "npm could not install Express and better-sqlite3: its lines above say why"
            " (to compile it, Debian needs: apt install g++ make python3 libnode-dev)"
        )
    installed.write_bytes(lock.read_bytes())
