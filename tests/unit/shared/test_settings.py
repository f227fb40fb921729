"""Settings: where they come from, and how a wrong one stops the start."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
from jose import jwt

from shared.settings import Megabytes, Seconds, ServiceSettings, SettingsError, Url, load

SECRET = "s" * 32


class Settings(ServiceSettings):
    service: ClassVar[str] = "some-service"
    port: int = 3009
    peer_url: Url = "http://127.0.0.1:3001"
    limit_mb: Megabytes = 50
    life_seconds: Seconds = 60


@pytest.fixture(autouse=True)
def _nothing_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)


def refusal(**given: Any) -> str:
    with pytest.raises(SettingsError) as refused:
        load(Settings, **{"jwt_secret": SECRET, **given})
    return str(refused.value)


def test_the_environment_wins_over_the_env_file_and_an_empty_value_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".env").write_text(f"JWT_SECRET={SECRET}\nPORT=4001\nLIMIT_MB=7\nPEER_URL=\nUNKNOWN=1\n")
    monkeypatch.setenv("PORT", "4002")
    monkeypatch.setenv("LIMIT_MB", "")
    settings = load(Settings)
    assert (settings.port, settings.limit_mb, settings.peer_url) == (4002, 7, "http://127.0.0.1:3001")


def test_a_missing_secret_is_one_line_that_says_where_to_look() -> None:
    with pytest.raises(SettingsError) as refused:
        load(Settings)
    assert str(refused.value) == "some-service: JWT_SECRET is missing (see some-service/.env.example)"


@pytest.mark.parametrize("name", ["jwt_secret", "jwt_secret_previous"])
@pytest.mark.parametrize("value", ["hunter2", "x" * 31])
def test_a_short_secret_is_refused_and_never_shown(name: str, value: str) -> None:
    text = refusal(**{name: value})
    assert f"{name.upper()} must be at least 32 bytes" in text
    assert value not in text
    assert "\n" not in text


def test_a_secret_is_counted_in_bytes() -> None:
    assert load(Settings, jwt_secret="ü" * 16)


def test_settings_that_are_printed_show_no_secret() -> None:
    assert SECRET not in repr(load(Settings, jwt_secret=SECRET, jwt_secret_previous=SECRET))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("port", value) for value in ("abc", "3001.5")),
        *(("peer_url", value) for value in ("127.0.0.1:3001", "ftp://x", "http://", "http://x?a=b", "http://[::1")),
        *(("peer_url", value) for value in ("http://me:word@x", "http://a..b", f"http://{'x' * 64}.example")),
        *(("frontend_url", value) for value in ("localhost:3000", "http://x/page", ",", "http://x, nonsense")),
        *(("limit_mb", value) for value in ("0", "-1", "nan", "inf", "1e9", "ten")),
        *(("life_seconds", value) for value in ("0", "-5", "nan", "inf")),
        ("log_format", "xml"),
    ],
)
def test_an_unusable_value_is_one_line_that_names_its_setting(name: str, value: str) -> None:
    text = refusal(**{name: value})
    assert text.startswith(f"some-service: {name.upper()} ")
    assert text.endswith("(see some-service/.env.example)")
    assert "\n" not in text


def test_a_service_has_a_url_and_callers_or_neither() -> None:
    assert "INTERNAL_CALLERS is missing" in refusal(service_url="https://us.example")
    assert "SERVICE_URL is missing" in refusal(internal_callers="a@b.example")
    assert "SERVICE_URL" in refusal(service_url="https://us.example/path", internal_callers="a@b.example")
    for wrong in (",", "video-service", "a@b.example c@d.example", "serviceAccount:a@"):
        assert "INTERNAL_CALLERS" in refusal(service_url="https://us.example", internal_callers=wrong)
    given = {"service_url": "https://Us.Example/", "internal_callers": " a@b.example, c@d.example,"}
    settings = load(Settings, jwt_secret=SECRET, **given)
    assert settings.service_url == "https://us.example"
    assert settings.callers == {"a@b.example", "c@d.example"}
    assert load(Settings, jwt_secret=SECRET).callers == set()


def test_a_url_with_an_impossible_port_is_unusable() -> None:
    assert "PEER_URL" in refusal(peer_url="http://x:99999")


def test_each_wrong_setting_has_its_line() -> None:
    assert refusal(port="abc", limit_mb="-1").count("\n") == 1


def test_half_of_supabase_is_refused_and_its_key_never_shown() -> None:
    assert "SUPABASE_KEY is missing" in refusal(supabase_url="http://x")
    text = refusal(supabase_key="the-service-role-key")
    assert "SUPABASE_URL is missing" in text
    assert "the-service-role-key" not in text


def test_a_supabase_key_that_anybody_may_have_is_refused_and_a_secret_one_is_taken() -> None:
    def key(role: str) -> str:
        return str(jwt.encode({"role": role}, "x" * 32))

    for public in (key("anon"), key("authenticated"), "sb_publishable_abc"):
        assert "SUPABASE_KEY is a key for browsers" in refusal(supabase_url="http://x", supabase_key=public)
    for secret in (key("service_role"), "sb_secret_abc"):
        settings = load(Settings, jwt_secret=SECRET, supabase_url="http://x", supabase_key=secret)
        assert not settings.needs_disk
        assert secret not in repr(settings)


@pytest.mark.parametrize("key", ["sb_secret_…", "two words", "a\nb", "schlüssel"])
def test_what_cannot_be_a_supabase_key_is_one_line_that_does_not_show_it(key: str) -> None:
    text = refusal(supabase_url="http://x", supabase_key=key)
    assert "SUPABASE_KEY" in text
    assert key not in text


def test_urls_and_origins_are_taken_without_their_last_slash() -> None:
    origins = " http://localhost:3000/ ,https://app.example , "
    settings = load(Settings, jwt_secret=SECRET, peer_url="http://peer:1/", frontend_url=origins)
    assert settings.peer_url == "http://peer:1"
    assert settings.origins == ["http://localhost:3000", "https://app.example"]
