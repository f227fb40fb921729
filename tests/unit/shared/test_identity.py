"""Which service calls, as Google vouches for it: what is taken as an identity, and how ours is come by."""

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from jose import jws
from standins.google import CERTS, IDENTITY, METADATA, Google, Key, account

from shared import identity
from shared.contracts import Grant
from shared.errors import Forbidden, Unauthorized, Unavailable
from shared.http import Peer, open_client
from shared.identity import HEADER, SERVERLESS_HEADER, Identity, bearer, open_identity
from shared.settings import ServiceSettings

US = "https://us-1.europe-west3.run.app"
PEER = "https://peer-1.europe-west3.run.app"
VIDEO = account("video")
KEYS_PATH = "/oauth2/v3/certs"


class Time:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Network(httpx.AsyncBaseTransport):
    """Leads to Google, unless a host is down or hangs; counts what is asked at the same time."""

    def __init__(self, google: Google) -> None:
        self.google = google
        self.down: set[str] = set()
        self.hanging: set[str] = set()
        self.answers: dict[str, Callable[[], httpx.Response]] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        await asyncio.sleep(0)
        if host in self.hanging:
            await asyncio.sleep(60)
        if host in self.down:
            self.google.asked.append(request.url.path)
            raise httpx.ConnectError("nobody there", request=request)
        if host in self.answers:
            self.google.asked.append(request.url.path)
            return self.answers[host]()
        return self.google.answer(request)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def google(time: Time) -> Google:
    return Google("us", time)


@pytest.fixture
def network(google: Google, monkeypatch: pytest.MonkeyPatch) -> Network:
    monkeypatch.delenv("GCE_METADATA_HOST", raising=False)
    return Network(google)


@pytest.fixture
async def us(network: Network, time: Time) -> AsyncIterator[Identity]:
    async with open_client(network) as client:
        us = Identity(client, US, frozenset({VIDEO}), time)
        yield us
        await us.close()


def forged(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    parts = (json.dumps(header).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


# ── who calls ──


@pytest.mark.parametrize("issuer", ["https://accounts.google.com", "accounts.google.com"])
async def test_a_caller_that_google_vouches_for_is_known_by_its_account(
    us: Identity, google: Google, issuer: str
) -> None:
    assert await us.caller(google.token(US, VIDEO, iss=issuer)) == VIDEO


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": PEER},
        {"aud": f"{US}/"},
        {"aud": [US]},
        {"aud": None},
        {"iss": "https://accounts.google.com.example.org"},
        {"iss": None},
        {"exp": int(Time.now)},
        {"exp": int(Time.now) - 3600},
        {"exp": None},
        {"exp": "9999999999"},
        {"iat": None},
        {"email": None},
        {"email": 7},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": None},
    ],
    ids=str,
)
async def test_what_google_says_of_something_else_is_no_identity(
    us: Identity, google: Google, changed: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized) as refused:
        await us.caller(google.token(US, VIDEO, **changed))
    assert refused.value.code == "identity_invalid"


@pytest.mark.parametrize("email", [account("stranger"), VIDEO.upper(), f"{VIDEO} ", f"x{VIDEO}"])
async def test_an_account_that_is_not_in_the_list_is_forbidden(us: Identity, google: Google, email: str) -> None:
    token = google.token(US, email)
    assert await us.verified(token) == email
    with pytest.raises(Forbidden):
        await us.caller(token)


async def test_a_token_that_google_has_not_signed_opens_nothing(us: Identity, google: Google) -> None:
    claims = json.loads(base64.urlsafe_b64decode(google.token(US, VIDEO).split(".")[1] + "=="))
    kid = google.keys[0].kid
    public = google.keys[0].public
    tokens = [
        forged({"alg": "none", "kid": kid}, claims),
        forged({"alg": "None", "kid": kid}, claims),
        forged({"kid": kid}, claims),
        # A public key is no secret: whoever takes it for one lets everybody sign.
        *(jws.sign(claims, secret, {"kid": kid}, "HS256") for secret in ("x" * 32, public.replace("PUBLIC", "SECRET"))),
        google.token(US, VIDEO, Key(kid)),
        google.token(US, VIDEO, Key("unknown")),
        google.token(US, VIDEO)[:-8],
        google.token(US, VIDEO).rsplit(".", 1)[0] + ".SIGNATURE_REMOVED_BY_GOOGLE",
        *("", "x", "x.y", "x.y.z", ".." * 9, f"{google.token(US, VIDEO)}.x", f" {google.token(US, VIDEO)}", "x" * 9999),
    ]
    for token in tokens:
        with pytest.raises(Unauthorized):
            await us.caller(token)


async def test_a_token_that_was_signed_with_the_public_key_as_a_secret_opens_nothing(
    us: Identity, google: Google
) -> None:
    claims = json.loads(base64.urlsafe_b64decode(google.token(US, VIDEO).split(".")[1] + "=="))
    key = google.keys[0]
    for secret in (key.public, json.dumps(key.shown()), key.shown()["n"]):
        unsigned = forged({"alg": "HS256", "typ": "JWT", "kid": key.kid}, claims).rsplit(".", 1)[0]
        signature = hmac.new(secret.encode(), unsigned.encode(), hashlib.sha256).digest()
        with pytest.raises(Unauthorized):
            await us.caller(f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")


async def test_an_identity_expires_to_the_second_also_one_that_is_known(
    us: Identity, google: Google, time: Time
) -> None:
    token = google.token(US, VIDEO)
    time.now += 3599
    assert await us.caller(token) == VIDEO
    time.now += 1
    with pytest.raises(Unauthorized):
        await us.caller(token)


async def test_a_known_token_is_not_verified_again_and_keys_are_kept(
    us: Identity, google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = google.token(US, VIDEO)
    assert await us.caller(token) == VIDEO
    monkeypatch.setattr(identity.jwt, "decode", None)  # would fail
    for _ in range(10):
        assert await us.caller(token) == VIDEO
    assert google.asked == [KEYS_PATH]


async def test_a_token_of_a_key_that_google_takes_back_is_known_no_more(
    us: Identity, google: Google, time: Time
) -> None:
    google.lifetime = 100_000
    old = google.token(US, VIDEO)
    assert await us.caller(old) == VIDEO
    google.rotate("second")
    assert await us.caller(old) == VIDEO
    time.now += 20_001  # as Cache-Control said
    with pytest.raises(Unauthorized):
        await us.caller(old)


async def test_a_new_key_is_taken_as_soon_as_a_token_names_it(us: Identity, google: Google, time: Time) -> None:
    assert await us.caller(google.token(US, VIDEO)) == VIDEO
    google.rotate("second")
    time.now += identity.REFETCH_SECONDS
    assert await us.caller(google.token(US, VIDEO)) == VIDEO
    assert google.asked == [KEYS_PATH] * 2


async def test_strangers_cannot_make_us_ask_google_for_each_of_their_tokens(
    us: Identity, google: Google, time: Time
) -> None:
    strange = Key("strange")
    for number in range(50):
        strange.kid = f"strange-{number}"
        with pytest.raises(Unauthorized):
            await us.caller(google.token(US, VIDEO, strange))
        time.now += 0.5
    assert len(google.asked) == 1
    assert await us.caller(google.token(US, VIDEO)) == VIDEO


async def test_many_at_once_ask_for_the_keys_once(us: Identity, google: Google) -> None:
    tokens = [google.token(US, VIDEO, sub=str(number)) for number in range(20)]
    assert await asyncio.gather(*map(us.caller, tokens)) == [VIDEO] * 20
    assert google.asked == [KEYS_PATH]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        httpx.Response(500),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"key": 1}),
    ],
    ids=["down", "500", "html", "list", "other"],
)
async def test_without_googles_keys_nobody_can_tell_and_soon_it_is_tried_again(
    us: Identity, google: Google, network: Network, time: Time, answer: httpx.Response | None
) -> None:
    if answer is None:
        network.down.add(CERTS)
    else:
        network.answers[CERTS] = lambda: answer
    token = google.token(US, VIDEO)
    with pytest.raises(Unavailable):
        await us.caller(token)
    network.down.clear()
    network.answers.clear()
    time.now += identity.RETRY_SECONDS
    assert await us.caller(token) == VIDEO


async def test_keys_that_are_known_outlast_google_for_a_day(
    us: Identity, google: Google, network: Network, time: Time
) -> None:
    google.lifetime = 200_000
    token = google.token(US, VIDEO)
    assert await us.caller(token) == VIDEO
    network.down.add(CERTS)
    time.now += identity.LAST_SECONDS - 1
    assert await us.caller(token) == VIDEO
    time.now += 1
    with pytest.raises(Unavailable):
        await us.caller(token)


async def test_google_that_hangs_is_not_waited_for_long(
    us: Identity, google: Google, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "SECONDS", 0.05)
    network.hanging = {CERTS, METADATA}
    async with asyncio.timeout(2):
        with pytest.raises(Unavailable):
            await us.caller(google.token(US, VIDEO))
        with pytest.raises(Unavailable):
            await us.token(PEER)


@pytest.mark.parametrize("value", [None, "", "Bearer", "x.y.z", "Basic x.y.z"])
def test_what_is_no_bearer_in_our_header_is_refused_by_name(value: str | None) -> None:
    if value == "Bearer":
        assert bearer(value) == ""
        return
    with pytest.raises(Unauthorized) as refused:
        bearer(value)
    assert refused.value.code == "identity_required"


# ── who we are ──


async def test_our_identity_is_fetched_once_for_each_peer_and_renewed_before_its_end(
    us: Identity, google: Google, time: Time
) -> None:
    first = await us.token(PEER)
    assert await us.token(PEER) == first
    await us.token("https://another")
    assert google.audiences == [PEER, "https://another"]
    time.now += 3600 - identity.RENEW_SECONDS
    assert await us.token(PEER) == first, "no call waits for what is renewed in time"
    for _ in range(9):
        await asyncio.sleep(0)
    assert await us.token(PEER) != first
    assert google.audiences[2:] == [PEER]


async def test_many_at_once_share_one_fetch(us: Identity, google: Google) -> None:
    assert len(set(await asyncio.gather(*(us.token(PEER) for _ in range(20))))) == 1
    assert google.audiences == [PEER]


async def test_who_goes_away_takes_the_fetch_from_nobody(us: Identity, google: Google) -> None:
    impatient = asyncio.create_task(us.token(PEER))
    patient = asyncio.create_task(us.token(PEER))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient
    assert google.audiences == [PEER]


async def test_a_metadata_server_that_is_down_is_a_503_and_is_asked_again(
    us: Identity, google: Google, network: Network
) -> None:
    network.down.add(METADATA)
    with pytest.raises(Unavailable) as refused:
        await us.token(PEER)
    assert "metadata server" in refused.value.reason
    assert google.asked == [IDENTITY] * 2, "once more, as a connection may just have broken"
    network.down.clear()
    assert await us.token(PEER)


@pytest.mark.parametrize(
    "answer",
    [httpx.Response(404), httpx.Response(503), httpx.Response(200, text="x"), httpx.Response(200, text="e30.e30.x")],
    ids=["404", "503", "text", "no exp"],
)
async def test_a_metadata_server_that_gives_no_token_is_a_503(
    us: Identity, network: Network, answer: httpx.Response
) -> None:
    network.answers[METADATA] = lambda: answer
    with pytest.raises(Unavailable):
        await us.token(PEER)


async def test_a_token_in_hand_outlasts_the_metadata_server_until_its_end(
    us: Identity, network: Network, time: Time
) -> None:
    first = await us.token(PEER)
    network.down.add(METADATA)
    time.now += 3600 - identity.LEEWAY_SECONDS - 1
    assert await us.token(PEER) == first
    time.now += 1
    with pytest.raises(Unavailable):
        await us.token(PEER)


async def test_a_call_to_a_peer_carries_our_identity_for_its_origin_in_both_headers(
    us: Identity, google: Google
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"service": "peer", "granted": 1})

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with open_client(httpx.MockTransport(answer), us) as client:
        peer = Peer(client, "peer", f"{PEER}/under", lambda: "ours")
        await peer.call("GET", "/a?b=c")
        assert await peer.state() == "ok"
        await peer.send("/body", body(), Grant)
    assert google.audiences == [PEER]
    token = await us.token(PEER)
    assert len(seen) == 3
    for request in seen:
        assert request.headers["Authorization"] == "Bearer ours"
        assert request.headers[HEADER] == request.headers[SERVERLESS_HEADER] == f"Bearer {token}"


async def test_a_peer_is_not_called_without_our_identity_and_its_state_says_why(us: Identity, network: Network) -> None:
    network.down.add(METADATA)

    def answer(_: httpx.Request) -> httpx.Response:
        raise AssertionError("called all the same")

    async with open_client(httpx.MockTransport(answer), us) as client:
        peer = Peer(client, "peer", PEER, lambda: "ours")
        with pytest.raises(Unavailable) as refused:
            await peer.call("GET", "/")
        assert refused.value.headers["Retry-After"]
        assert "metadata server" in await peer.state()


async def test_a_peer_that_does_not_take_our_identity_says_which_settings_to_look_at(us: Identity) -> None:
    for code, advice in (("identity_invalid", "SERVICE_URL"), ("unauthorized", "JWT_SECRET")):
        refusal = httpx.Response(401, json={"message": "No.", "code": code})
        async with open_client(httpx.MockTransport(lambda _, refusal=refusal: refusal), us) as client:
            assert advice in await Peer(client, "peer", PEER, lambda: "ours").state()


async def test_the_metadata_server_is_looked_for_where_googles_libraries_look(
    google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    with google.serving("us") as host:
        monkeypatch.setenv("GCE_METADATA_HOST", host)
        async with open_client() as client:
            us = Identity(client, US, frozenset(), google.now)
            token = await us.token(PEER)
            await us.close()
    assert json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))["aud"] == PEER


async def test_without_the_two_settings_there_is_no_identity(settings: ServiceSettings, network: Network) -> None:
    async with open_identity(settings, network) as none:
        assert none is None
    with_both = settings.model_copy(update={"service_url": US, "internal_callers": f"{VIDEO},{account('usage')}"})
    async with open_identity(with_both, network) as some:
        assert some is not None
        assert await some.token(PEER)
