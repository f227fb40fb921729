"""As whom the bucket is spoken to, and by whom URLs are signed, for each way to be configured."""

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import google.auth
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth.credentials import AnonymousCredentials
from pydantic import ValidationError
from unit.storage.signatures import ENDPOINT, KEY, verify

from shared.settings import SettingsError
from storage_service.blobs import SignedUrl, open_blobs
from storage_service.config import LONGEST_WINDOW, Settings

SECRET = "what signs nothing here, and is long enough"


def settings(**given: Any) -> Settings:
    return Settings(**{"_env_file": None, "jwt_secret": SECRET, "gcs_bucket": "bucket", **given})


async def test_an_emulator_gets_plain_urls_without_a_key_and_signed_ones_with_it(
    key_file: Path, private: rsa.RSAPrivateKey
) -> None:
    emulator = "http://127.0.0.1:9"
    async with open_blobs(settings(storage_emulator_host=emulator)) as blobs:
        plain = await blobs.address("film", "video", "video/webm", "GET")
    assert plain == SignedUrl(
        f"{emulator}/bucket/{KEY}?response-content-disposition=inline&response-content-type=video%2Fwebm"
    )
    given = settings(storage_emulator_host=emulator, google_application_credentials=key_file)
    async with open_blobs(given) as blobs:
        signed = await blobs.address("film", "thumbnail", "image/jpeg", "GET")
    assert isinstance(signed, SignedUrl)
    assert signed.url.startswith(f"{emulator}/bucket/thumbnails/film.jpg?")
    verify(signed.url, "GET", private.public_key(), datetime.now(UTC).timestamp())


async def test_browsers_are_sent_to_where_they_reach_the_emulator(key_file: Path, private: rsa.RSAPrivateKey) -> None:
    given = settings(storage_emulator_host="http://bucket:4443", storage_emulator_public_url="http://localhost:9")
    for way in (given, given.model_copy(update={"google_application_credentials": key_file})):
        async with open_blobs(way) as blobs:
            address = await blobs.address("film", "video", "video/mp4", "GET")
        assert isinstance(address, SignedUrl)
        url = address.url
        assert url.startswith(f"http://localhost:9/bucket/{KEY}?")
    verify(url, "GET", private.public_key(), datetime.now(UTC).timestamp())


async def test_without_an_emulator_its_public_url_means_nothing(key_file: Path) -> None:
    given = settings(google_application_credentials=key_file, storage_emulator_public_url="http://localhost:9")
    async with open_blobs(given) as blobs:
        address = await blobs.address("film", "video", "video/mp4", "GET")
    assert isinstance(address, SignedUrl)
    url = address.url
    assert url.startswith(f"{ENDPOINT}/bucket/")


async def test_a_key_file_signs_for_the_real_bucket(key_file: Path, private: rsa.RSAPrivateKey) -> None:
    async with open_blobs(settings(google_application_credentials=key_file, signed_url_seconds=60)) as blobs:
        address = await blobs.address("film", "video", "video/mp4", "HEAD")
    assert isinstance(address, SignedUrl)
    url = address.url
    assert url.startswith(f"{ENDPOINT}/bucket/{KEY}?")
    assert "X-Goog-Expires=120&" in url
    verify(url, "HEAD", private.public_key(), datetime.now(UTC).timestamp())


async def test_who_has_no_account_or_only_a_persons_is_told_so_at_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google.auth, "default", lambda **_: (AnonymousCredentials(), None))
    with pytest.raises(SettingsError, match="only an account can sign"):
        async with open_blobs(settings()):
            pass
    monkeypatch.undo()
    for name in ("GOOGLE_APPLICATION_CREDENTIALS", "CLOUDSDK_CONFIG", "GOOGLE_CLOUD_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    monkeypatch.setenv("CLOUDSDK_CONFIG", "/nowhere")
    with pytest.raises(SettingsError, match="no credentials"):
        async with open_blobs(settings()):
            pass


@pytest.mark.parametrize("name", ["gs://bucket", "a/b", "Bucket", "ab", "-ab", "a b", "x" * 300])
def test_what_cannot_be_a_bucket_stops_the_start(name: str) -> None:
    with pytest.raises(ValidationError, match="without gs://"):
        settings(gcs_bucket=name)


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"type": "authorized_user"}'])
def test_what_is_no_key_file_stops_the_start_if_it_would_be_used(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "key.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValidationError, match="key file"):
        settings(google_application_credentials=path)
    assert settings(google_application_credentials=path, gcs_bucket=None)


async def test_a_key_file_that_is_damaged_stops_the_start_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text('{"type": "service_account", "private_key": "none"}')
    with pytest.raises(SettingsError, match="key file"):
        async with open_blobs(settings(google_application_credentials=path)):
            pass


@pytest.mark.parametrize("seconds", [0, 1, -900, LONGEST_WINDOW + 1])
def test_a_signed_url_lives_for_a_time_that_google_allows(seconds: int) -> None:
    with pytest.raises(ValidationError):
        settings(signed_url_seconds=seconds)


def test_a_bucket_and_a_database_elsewhere_need_no_disk_here() -> None:
    assert settings().needs_disk
    elsewhere = {"supabase_url": "http://127.0.0.1:9", "supabase_key": "sb_secret_x"}
    assert not settings(**elsewhere).needs_disk
    assert settings(**elsewhere, gcs_bucket=None).needs_disk


def test_who_has_a_folder_pays_nothing_for_googles_library(tmp_path: Path) -> None:
    program = f"""
import asyncio, sys
from storage_service.blobs import open_blobs
from storage_service.config import Settings
from storage_service.main import create_app
async def main():
    settings = Settings(_env_file=None, jwt_secret={SECRET!r}, data_dir={str(tmp_path)!r})
    create_app(settings)
    async with open_blobs(settings) as blobs:
        await blobs.ping()
asyncio.run(main())
print(*sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, cwd=tmp_path)
    loaded = done.stdout.decode().split()
    assert "storage_service.blobs.local" in loaded
    assert not [name for name in loaded if name.split(".")[0] in ("google", "requests")]
