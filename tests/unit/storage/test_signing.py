"""Signed URLs, checked as Google's documents say that a bucket checks them: with the public key, from the URL alone."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from google.cloud.storage import Client  # type: ignore[import-untyped]
from google.oauth2.service_account import Credentials
from unit.storage.signatures import EMAIL, ENDPOINT, KEY, verify

from shared.errors import Unavailable
from storage_service.blobs import signing
from storage_service.blobs.signing import IamSigning, SignedUrls

START = datetime(2026, 11, 25, 12, tzinfo=UTC).timestamp()  # a whole number of windows
WINDOW = 900


@pytest.fixture
def credentials(key_file: Path) -> Credentials:
    return Credentials.from_service_account_file(str(key_file))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def urls(credentials: Credentials, clock: Clock) -> Iterator[SignedUrls]:
    opened = SignedUrls(credentials, ENDPOINT, "bucket", WINDOW, clock)
    yield opened
    opened.close()


async def test_a_bucket_would_take_the_url_for_that_method_and_no_other(
    urls: SignedUrls, private: rsa.RSAPrivateKey
) -> None:
    public = private.public_key()
    for method, other in (("GET", "HEAD"), ("HEAD", "GET")):
        url = await urls.url(KEY, "video/mp4", method)  # type: ignore[arg-type]
        verify(url, method, public, START)
        for changed, how in (
            (url, other),
            (url, "PUT"),
            (url.replace("film", "another"), method),
            (url.replace("video%2Fmp4", "text%2Fhtml"), method),
            (url.replace("inline", "attachment"), method),
            (url.replace("Expires=1800", "Expires=9999"), method),
            (url.replace("storage.googleapis.com", "elsewhere.example"), method),
        ):
            with pytest.raises(InvalidSignature):
                verify(changed, how, public, START)


async def test_the_url_tells_how_the_bucket_is_to_present_it(urls: SignedUrls) -> None:
    parts = urlsplit(await urls.url(KEY, "video/mp4", "GET"))
    query = dict(parse_qsl(parts.query))
    assert (parts.scheme, parts.netloc, parts.path) == ("https", "storage.googleapis.com", "/bucket/videos/film.mp4")
    assert (query["response-content-type"], query["response-content-disposition"]) == ("video/mp4", "inline")


async def test_it_is_the_url_that_googles_library_makes(credentials: Credentials) -> None:
    bucket = Client(project="project", credentials=credentials).bucket("bucket")
    for key, content_type in ((KEY, "video/mp4"), ("videos/a-_Z9.mp4", "video/x-matroska"), ("a b/~ü", "a/b; c=d+e")):
        theirs = bucket.blob(key).generate_signed_url(
            version="v4",
            expiration=timedelta(seconds=2),
            api_access_endpoint=ENDPOINT,
            response_type=content_type,
            response_disposition="inline",
        )
        signed_at = datetime.strptime(dict(parse_qsl(urlsplit(theirs).query))["X-Goog-Date"], "%Y%m%dT%H%M%S%z")
        ours = SignedUrls(credentials, ENDPOINT, "bucket", 1, signed_at.timestamp)
        assert await ours.url(key, content_type, "GET") == theirs
        ours.close()


async def test_all_who_ask_within_a_window_get_the_same_url_and_it_lives_for_another_window(
    urls: SignedUrls, clock: Clock, private: rsa.RSAPrivateKey
) -> None:
    first = await urls.url(KEY, "video/mp4", "GET")
    for passed in (0.5, 1, WINDOW / 2, WINDOW - 0.001):
        clock.now = START + passed
        assert await urls.url(KEY, "video/mp4", "GET") == first
        verify(first, "GET", private.public_key(), clock.now + WINDOW)
    clock.now = START + WINDOW
    second = await urls.url(KEY, "video/mp4", "GET")
    assert second != first
    verify(second, "GET", private.public_key(), clock.now + 2 * WINDOW - 1)
    with pytest.raises(AssertionError):
        verify(first, "GET", private.public_key(), START + 2 * WINDOW)


async def test_two_instances_give_the_same_url(urls: SignedUrls, clock: Clock, key_file: Path) -> None:
    another = SignedUrls(Credentials.from_service_account_file(str(key_file)), ENDPOINT, "bucket", WINDOW, clock)
    clock.now += 5
    assert await another.url(KEY, "video/mp4", "GET") == await urls.url(KEY, "video/mp4", "GET")
    another.close()


@dataclass
class Machine:
    """Credentials as Cloud Run has them: a name only after a look, a token that ends, no key."""

    valid: bool = False
    service_account_email: str = "default"
    universe_domain: str = "googleapis.com"
    refreshed: int = 0

    def refresh(self, request: Any) -> None:
        self.valid, self.service_account_email = True, EMAIL
        self.refreshed += 1

    def before_request(self, request: Any, method: str, url: str, headers: dict[str, str]) -> None:
        if not self.valid:
            self.refresh(request)
        headers["Authorization"] = f"Bearer token-{self.refreshed}"


@dataclass
class Iam:
    """IAM's signBlob, which has the key."""

    private: rsa.RSAPrivateKey
    status: int = 200
    calls: list[dict[str, Any]] = field(default_factory=list)

    def __call__(self, **call: Any) -> SimpleNamespace:
        self.calls.append(call)
        message = base64.b64decode(json.loads(call["body"])["payload"])
        signature = self.private.sign(message, padding.PKCS1v15(), hashes.SHA256())
        body = {"signedBlob": base64.b64encode(signature).decode()}
        return SimpleNamespace(status=self.status, data=json.dumps(body).encode())


@pytest.fixture
def iam(private: rsa.RSAPrivateKey) -> Iam:
    return Iam(private)


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
async def without_key(iam: Iam, machine: Machine, clock: Clock) -> AsyncIterator[SignedUrls]:
    opened = SignedUrls(IamSigning(machine, iam), ENDPOINT, "bucket", WINDOW, clock)
    yield opened
    opened.close()


async def test_without_a_key_iam_signs_in_the_name_of_the_machines_account(
    without_key: SignedUrls, iam: Iam, private: rsa.RSAPrivateKey
) -> None:
    url = await without_key.url(KEY, "video/mp4", "GET")
    verify(url, "GET", private.public_key(), START)
    assert dict(parse_qsl(urlsplit(url).query))["X-Goog-Credential"].startswith(f"{EMAIL}/")
    [call] = iam.calls
    assert call["url"].endswith(f"/serviceAccounts/{EMAIL}:signBlob")
    assert call["headers"]["Authorization"] == "Bearer token-1"


async def test_iam_is_asked_once_a_window_for_each_film(
    without_key: SignedUrls, iam: Iam, clock: Clock, machine: Machine
) -> None:
    for _ in range(3):
        await without_key.url(KEY, "video/mp4", "GET")
    await without_key.url("videos/another.mp4", "video/mp4", "GET")
    assert (len(iam.calls), machine.refreshed) == (2, 1)
    clock.now += WINDOW
    machine.valid = False
    await without_key.url(KEY, "video/mp4", "GET")
    assert (len(iam.calls), machine.refreshed) == (3, 2)


async def test_urls_that_are_known_are_bounded(
    without_key: SignedUrls, iam: Iam, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(signing, "MOST_KNOWN", 2)
    for number in (1, 2, 3, 3, 2, 1):
        await without_key.url(f"videos/{number}.mp4", "video/mp4", "GET")
    assert len(iam.calls) == 4, "the third put out the first"


async def test_an_iam_that_refuses_is_a_503_and_asked_again_the_next_time(without_key: SignedUrls, iam: Iam) -> None:
    iam.status = 403
    with pytest.raises(Unavailable):
        await without_key.url(KEY, "video/mp4", "GET")
    iam.status = 200
    await without_key.url(KEY, "video/mp4", "GET")


async def test_two_who_ask_at_once_get_the_same_url_even_if_iam_changes_its_key_meanwhile(
    without_key: SignedUrls, monkeypatch: pytest.MonkeyPatch
) -> None:
    signatures = iter([b"\1", b"\2"])
    monkeypatch.setattr(IamSigning, "sign_bytes", lambda *_: next(signatures))
    first, second = await asyncio.gather(*(without_key.url(KEY, "video/mp4", "GET") for _ in range(2)))
    assert next(signatures, None) is None, "both were signed"
    assert first == second
