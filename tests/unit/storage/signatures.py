"""A service account's key, and the check that a bucket makes of what was signed with it."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

EMAIL = "storage@project.iam.gserviceaccount.com"
ENDPOINT = "https://storage.googleapis.com"
KEY = "videos/film.mp4"


def write_key_file(path: Path, private: rsa.RSAPrivateKey) -> None:
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    key = {"private_key": pem.decode(), "client_email": EMAIL, "token_uri": "http://127.0.0.1:9/token"}
    path.write_text(json.dumps({"type": "service_account", **key}))


def verify(url: str, method: str, public: rsa.RSAPublicKey, at: float) -> None:
    """https://cloud.google.com/storage/docs/authentication/canonical-requests; raises for what a bucket refuses."""
    parts = urlsplit(url)
    asked, _, signature = parts.query.rpartition("&X-Goog-Signature=")
    query = dict(parse_qsl(asked, strict_parsing=True))
    names = [pair.split("=")[0] for pair in asked.split("&")]
    assert names == sorted(names)
    scope = query["X-Goog-Credential"].partition("/")[2]
    canonical = "\n".join(
        [method, parts.path, asked, f"host:{parts.netloc}", "", query["X-Goog-SignedHeaders"], "UNSIGNED-PAYLOAD"]
    )
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    message = "\n".join([query["X-Goog-Algorithm"], query["X-Goog-Date"], scope, digest])
    public.verify(bytes.fromhex(signature), message.encode(), padding.PKCS1v15(), hashes.SHA256())
    assert scope == f"{query['X-Goog-Date'][:8]}/auto/storage/goog4_request"
    begins = datetime.strptime(query["X-Goog-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()
    assert begins <= at < begins + int(query["X-Goog-Expires"])
