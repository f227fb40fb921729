"""Tokens: what the page can read, and what opens a door."""

import base64
import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from jose import jwt
from pydantic import SecretStr

from shared.auth import ISSUER, SERVICES, USERS, Tokens, User
from shared.errors import Forbidden, Unauthorized
from shared.settings import ServiceSettings

ANNE = User(id=uuid.uuid4(), email="anne@example.test", role="user")
NOW = 1_800_000_000.0
HOSTILE = [
    *("~@b.co", "a~@b.co", "ab~@b.co", "abc~@b.co", "???@b.co", "a?>~?>~@b.co", ">>>>@b.co", "\x7f\x7f\x7f@b.co"),
    *("o'b\"\\/<&@b.co", "jürgen@bücher.test", "ÿÿÿ@ÿ.co", "日本@例え.test", "😀~?😀@b.co", "\u2028\u2029@b.co"),
]


class Time:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def tokens(settings: ServiceSettings, time: Time) -> Tokens:
    return Tokens(settings, time)


@pytest.fixture
def forge(settings: ServiceSettings) -> Callable[..., str]:
    """A token with our own secret whose claims are changed; None takes one away."""

    def make(secret: str | None = None, algorithm: str = "HS256", **changed: Any) -> str:
        claims: dict[str, Any] = {"sub": str(ANNE.id), "id": str(ANNE.id), "email": ANNE.email, "role": "user"}
        claims |= {"iss": ISSUER, "aud": USERS, "iat": int(NOW), "exp": int(NOW) + 60, "jti": "1"} | changed
        kept = {name: value for name, value in claims.items() if value is not None}
        return str(jwt.encode(kept, secret or settings.jwt_secret.get_secret_value(), algorithm=algorithm))

    return make


def atob(text: str) -> bytes:
    """The browser's: the standard alphabet, in which ``-`` and ``_`` do not stand."""
    return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)


@pytest.mark.parametrize("email", HOSTILE)
def test_the_page_can_read_the_token_of_any_email(tokens: Tokens, email: str) -> None:
    for padding in range(3):  # each of the three positions a byte can have in a group of base64
        user = User(id=uuid.uuid4(), email="x" * padding + email, role="user")
        token = tokens.for_user(user, 3600)
        payload = token.split(".")[1]
        assert not set(payload) & set("-_=")
        claims = json.loads(atob(payload).decode("ascii"))
        assert (claims["id"], claims["email"]) == (str(user.id), user.email)
        assert tokens.user(token) == user


def test_any_library_verifies_the_token(tokens: Tokens, settings: ServiceSettings) -> None:
    user = User(id=uuid.uuid4(), email="a?>~\x7fü@b.co", role="user")
    secret = settings.jwt_secret.get_secret_value()
    options = {"verify_exp": False}
    claims = jwt.decode(tokens.for_user(user, 60), secret, ["HS256"], options, audience=USERS, issuer=ISSUER)
    assert claims["email"] == user.email


def test_a_token_has_all_its_claims_and_no_user_name(tokens: Tokens) -> None:
    claims = json.loads(atob(tokens.for_user(ANNE, 3600).split(".")[1]))
    assert len(claims.pop("jti")) == 32
    assert claims == {
        "sub": str(ANNE.id),
        "id": str(ANNE.id),
        "email": ANNE.email,
        "role": "user",
        "iss": ISSUER,
        "aud": USERS,
        "iat": int(NOW),
        "exp": int(NOW) + 3600,
    }


def test_no_two_tokens_are_the_same(tokens: Tokens) -> None:
    assert tokens.for_user(ANNE, 3600) != tokens.for_user(ANNE, 3600)


def test_the_role_travels_in_the_token(tokens: Tokens) -> None:
    admin = User(id=uuid.uuid4(), email="admin@example.test", role="admin")
    opened = tokens.user(tokens.for_user(admin, 60))
    assert opened.is_admin
    assert opened.may_see(ANNE.id)
    assert not tokens.user(tokens.for_user(ANNE, 60)).is_admin
    assert not ANNE.may_see(admin.id)


def test_a_token_expires_to_the_second_also_one_that_is_known(tokens: Tokens, time: Time) -> None:
    token = tokens.for_user(ANNE, 60)
    time.now = NOW + 59.9
    assert tokens.user(token) == ANNE
    time.now = NOW + 60
    with pytest.raises(Unauthorized) as refused:
        tokens.user(token)
    assert refused.value.code == "token_expired"


@pytest.mark.parametrize(
    "token",
    [
        "",
        "null",
        "undefined",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d",
        "...",
        "ü.ü.ü",
        "\0",
        "x" * 10_000,
        "eyJhbGciOiJIUzI1NiJ9..",
    ],
)
def test_a_malformed_token_is_refused(tokens: Tokens, token: str) -> None:
    with pytest.raises(Unauthorized):
        tokens.user(token)
    with pytest.raises(Unauthorized):
        tokens.service(token)


def test_a_header_that_is_deeply_nested_json_is_malformed(tokens: Tokens) -> None:
    with pytest.raises(Unauthorized):
        tokens.user(base64.urlsafe_b64encode(b"[" * 5000).decode() + ".e30.e30")


@pytest.mark.parametrize("more", ["!", "*", "=", " ", "\n", "!" * 60_000, "x" * 60_000])
def test_a_token_has_one_spelling_so_that_nobody_fills_the_memory_with_others(tokens: Tokens, more: str) -> None:
    token = tokens.for_user(ANNE, 60)
    with pytest.raises(Unauthorized):
        tokens.user(token + more)


def test_a_changed_token_is_refused(tokens: Tokens) -> None:
    header, payload, signature = tokens.for_user(ANNE, 60).split(".")
    claims = json.loads(atob(payload)) | {"role": "admin"}
    other = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    for changed in (f"{header}.{other}.{signature}", f"{header}.{payload}.{signature[::-1]}", f"{header}.{payload}."):
        with pytest.raises(Unauthorized):
            tokens.user(changed)


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
def test_a_token_without_a_signature_is_refused(tokens: Tokens, algorithm: str) -> None:
    payload = tokens.for_user(ANNE, 60).split(".")[1]
    header = base64.urlsafe_b64encode(json.dumps({"alg": algorithm, "typ": "JWT"}).encode()).decode().rstrip("=")
    for signature in ("", "e30"):
        with pytest.raises(Unauthorized):
            tokens.user(f"{header}.{payload}.{signature}")


def test_another_algorithm_with_the_right_secret_is_refused(tokens: Tokens, forge: Any) -> None:
    assert tokens.user(forge()) == ANNE
    for algorithm in ("HS384", "HS512"):
        with pytest.raises(Unauthorized):
            tokens.user(forge(algorithm=algorithm))


def test_a_foreign_token_is_refused(tokens: Tokens, forge: Any) -> None:
    with pytest.raises(Unauthorized):
        tokens.user(forge(secret="somebody else's secret of 32 bytes or more"))


@pytest.mark.parametrize("claim", ["exp", "iat", "sub", "aud", "iss", "jti"])
def test_every_claim_is_required(tokens: Tokens, forge: Any, claim: str) -> None:
    with pytest.raises(Unauthorized):
        tokens.user(forge(**{claim: None}))


@pytest.mark.parametrize(
    "changed",
    [
        {"iss": "somebody"},
        {"aud": "another-audience"},
        {"aud": [USERS, SERVICES]},
        {"role": "owner"},
        {"sub": "anne"},
        {"exp": "tomorrow"},
    ],
)
def test_a_claim_with_another_meaning_is_refused(tokens: Tokens, forge: Any, changed: dict[str, Any]) -> None:
    with pytest.raises(Unauthorized):
        tokens.user(forge(**changed))


def test_people_and_services_never_open_each_others_doors(tokens: Tokens) -> None:
    assert tokens.service(tokens.for_service()) == "some-service"
    with pytest.raises(Forbidden):
        tokens.service(tokens.for_user(ANNE, 60))
    with pytest.raises(Unauthorized):
        tokens.user(tokens.for_service())


def test_a_services_token_is_minutes_long_and_renewed_at_half_of_its_life(tokens: Tokens, time: Time) -> None:
    first = tokens.for_service()
    time.now = NOW + 149
    assert tokens.for_service() == first
    time.now = NOW + 150
    second = tokens.for_service()
    assert second != first
    time.now = NOW + 300
    with pytest.raises(Unauthorized):
        tokens.service(first)
    assert tokens.service(second) == "some-service"


def test_the_previous_secret_still_opens_and_never_signs(settings: ServiceSettings, time: Time) -> None:
    new = SecretStr("the new secret of these tests, 32 bytes and more")
    rotated = settings.model_copy(update={"jwt_secret": new, "jwt_secret_previous": settings.jwt_secret})
    old, now, later = (
        Tokens(each, time) for each in (settings, rotated, settings.model_copy(update={"jwt_secret": new}))
    )
    assert now.user(old.for_user(ANNE, 60)) == ANNE
    assert now.service(old.for_service()) == "some-service"
    assert later.user(now.for_user(ANNE, 60)) == ANNE
    with pytest.raises(Unauthorized):
        old.user(now.for_user(ANNE, 60))
    with pytest.raises(Unauthorized):
        later.user(old.for_user(ANNE, 60))
