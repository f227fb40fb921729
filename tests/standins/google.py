"""What Google knows of accounts, as far as our services ask: it signs identities, and shows its keys.

The same answers come by a transport (``answer``) and over real sockets (``serving``).
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from jose import jwt

METADATA = "metadata.google.internal"
CERTS = "www.googleapis.com"
CERTS_PATH = "/oauth2/v1/certs"
IDENTITY = "/computeMetadata/v1/instance/service-accounts/default/identity"


def account(name: str) -> str:
    return f"{name}@my-project.iam.gserviceaccount.com"


class Key:
    def __init__(self, kid: str) -> None:
        self.kid = kid
        private = rsa.generate_private_key(65_537, 2048)
        self.private = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ).decode()
        # As Google shows it: an X.509 certificate that signs itself.
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "federated-signon.system.gserviceaccount.com")])
        certificate = (
            x509.CertificateBuilder(name, name, private.public_key(), x509.random_serial_number())
            .not_valid_before(datetime.now(UTC) - timedelta(days=1))
            .not_valid_after(datetime.now(UTC) + timedelta(days=15))
            .sign(private, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()


class Google:
    """``asked`` lists the paths that were asked for; ``as_whom`` is the account of the machine that asks."""

    def __init__(self, as_whom: str = "nobody", now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.as_whom = as_whom
        self.keys = [Key("first")]
        self.lifetime = 3600
        self.asked: list[str] = []
        self.audiences: list[str] = []

    def rotate(self, kid: str) -> Key:
        """Sign with another key from now on, and show no more the one before."""
        self.keys = [Key(kid)]
        return self.keys[0]

    def token(self, audience: str, account: str, key: Key | None = None, /, **changed: Any) -> str:
        """As the metadata server gives it; None takes a claim away."""
        key = key or self.keys[-1]
        now = int(self.now())
        claims: dict[str, Any] = {
            "aud": audience,
            "azp": "100000000000000000001",
            "email": account,
            "email_verified": True,
            "exp": now + self.lifetime,
            "iat": now,
            "iss": "https://accounts.google.com",
            "sub": "100000000000000000001",
        }
        kept = {name: value for name, value in (claims | changed).items() if value is not None}
        return str(jwt.encode(kept, key.private, algorithm="RS256", headers={"kid": key.kid}))

    def answer(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path
        self.asked.append(path)
        if request.url.host == CERTS and path == CERTS_PATH:
            return httpx.Response(200, json=self.certs())
        if request.url.host == METADATA and path == IDENTITY:
            return self.identity(request.headers.get("metadata-flavor"), request.url.params)
        return httpx.Response(404)

    def certs(self) -> dict[str, str]:
        return {key.kid: key.certificate for key in self.keys}

    def identity(self, flavor: str | None, params: Any) -> httpx.Response:
        if flavor != "Google" or params.get("format") != "full":
            return httpx.Response(403)
        self.audiences.append(params["audience"])
        headers = {"Content-Type": "text/html", "Metadata-Flavor": "Google"}
        return httpx.Response(200, text=self.token(params["audience"], account(self.as_whom)), headers=headers)

    @contextmanager
    def serving(self, as_whom: str) -> Iterator[str]:
        """The metadata server of one machine, and the keys, at ``host:port``."""
        google = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                params = {name: values[0] for name, values in parse_qs(parts.query).items()}
                if parts.path == "/certs":
                    status, text = 200, json.dumps(google.certs())
                elif parts.path == IDENTITY and self.headers["Metadata-Flavor"] == "Google":
                    status, text = 200, google.token(params["audience"], account(as_whom))
                else:
                    status, text = 404, ""
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            server.daemon_threads = True
            thread = Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"127.0.0.1:{server.server_port}"
            finally:
                server.shutdown()
                thread.join()
