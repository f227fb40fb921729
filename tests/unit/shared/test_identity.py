"""Google's ID tokens: which callers are let in, and how our own token is fetched and renewed."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
from standins.google import CERTS, CERTS_PATH, IDENTITY, METADATA, Google, Key, account

from shared import identity
from shared.auth import HEADER, bearer, open_identity
from shared.errors import Forbidden, Unauthorized, Unavailable
from shared.http import Peer, open_client
from shared.identity import SERVERLESS_HEADER, Identity
from shared.settings import ServiceSettings

US = "https://us-1.europe-west3.run.app"
PEER = "https://peer-1.europe-west3.run.app"
VIDEO = account("video")
NOW = int(time.time())


class Clock:
    """Starts at the real time, as google-auth reads the real clock when it verifies a token and when it renews ours."""

    def __init__(self) -> None:
        self.now = int(time.time())

    def __call__(self) -> float:
        return self.now


class Network(httpx.AsyncBaseTransport):
    """Leads to the fake Google, unless a host is down, hangs or answers something else."""

    def __init__(self, google: Google) -> None:
        self.google = google
        self.down: set[str] = set()
        self.hanging: set[str] = set()
        self.answers: dict[str, httpx.Response] = {}

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        await asyncio.sleep(0)
        if host in self.hanging:
            await asyncio.sleep(60)
        if host in self.down or host in self.answers:
            self.google.asked.append(request.url.path)
            if host in self.down:
                raise httpx.ConnectError("connection refused", request=request)
            return self.answers[host]
        return self.google.answer(request)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def google(clock: Clock) -> Google:
    return Google("us", clock)


@pytest.fixture
def network(google: Google) -> Network:
    return Network(google)


@pytest.fixture
async def us(network: Network, clock: Clock) -> AsyncIterator[Identity]:
    async with open_client(network) as client, aclosing(Identity(client, US, frozenset({VIDEO}), clock)) as us:
        yield us


def forged(header: dict[str, Any], claims: dict[str, Any], secret: str = "") -> str:
    def encoded(part: bytes) -> str:
        return base64.urlsafe_b64encode(part).rstrip(b"=").decode()

    signed = f"{encoded(json.dumps(header).encode())}.{encoded(json.dumps(claims).encode())}"
    return f"{signed}.{encoded(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


# ── callers ──


@pytest.mark.parametrize("issuer", ["https://accounts.google.com", "accounts.google.com"])
async def test_a_caller_with_googles_token_is_known_by_its_account(us: Identity, google: Google, issuer: str) -> None:
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
        {"exp": NOW - 3600},
        {"exp": None},
        {"exp": "9999999999"},
        {"iat": NOW + 3600},
        {"iat": "0"},
        {"iat": None},
        {"email": None},
        {"email": 7},
        {"email_verified": False},
        {"email_verified": "true"},
        {"email_verified": 1},
        {"email_verified": None},
    ],
    ids=str,
)
async def test_googles_token_with_other_claims_is_refused(
    us: Identity, google: Google, changed: dict[str, Any]
) -> None:
    with pytest.raises(Unauthorized) as refused:
        await us.caller(google.token(US, VIDEO, **changed))
    assert refused.value.code == "identity_invalid"


async def test_a_clock_of_google_that_is_a_little_ahead_refuses_no_caller(us: Identity, google: Google) -> None:
    assert await us.caller(google.token(US, VIDEO, iat=int(time.time()) + 5)) == VIDEO


@pytest.mark.parametrize("email", [account("stranger"), VIDEO.upper(), f"{VIDEO} ", f"x{VIDEO}"])
async def test_an_account_that_is_not_in_the_list_is_forbidden(us: Identity, google: Google, email: str) -> None:
    token = google.token(US, email)
    assert await us.verified(token) == email
    with pytest.raises(Forbidden) as refused:
        await us.caller(token)
    assert refused.value.code == "identity_forbidden"


async def test_a_token_that_google_has_not_signed_is_refused(us: Identity, google: Google) -> None:
    claims = json.loads(base64.urlsafe_b64decode(google.token(US, VIDEO).split(".")[1] + "=="))
    key = google.keys[0]
    algorithms = ["none", "None", "HS256", "RS256", "ES256", "ES384", 7, [], None]
    tokens = [
        *(forged({"alg": algorithm, "kid": key.kid}, claims) for algorithm in algorithms),
        *(forged({"alg": "RS256"} | kid, claims) for kid in ({}, {"kid": None}, {"kid": [key.kid]}, {"kid": {}})),
        forged({"kid": key.kid}, claims),
        # What Google shows is not secret, and must not be taken for the secret of an HMAC.
        forged({"alg": "HS256", "kid": key.kid}, claims, key.certificate),
        google.token(US, VIDEO, Key(key.kid)),
        google.token(US, VIDEO, Key("unknown")),
        google.token(US, VIDEO)[:-8],
        google.token(US, VIDEO).rsplit(".", 1)[0] + ".SIGNATURE_REMOVED_BY_GOOGLE",
        *("", "x", "x.y", "x.y.z", ".." * 9, f"{google.token(US, VIDEO)}.x", f" {google.token(US, VIDEO)}", "x" * 9999),
        f"{base64.urlsafe_b64encode(b'[' * 3000).decode()}.e30.x",
    ]
    for token in tokens:
        with pytest.raises(Unauthorized) as refused:
            await us.caller(token)
        assert refused.value.code == "identity_invalid"
    assert google.asked == [CERTS_PATH]


async def test_an_identity_expires_to_the_second_also_one_that_is_known(
    us: Identity, google: Google, clock: Clock
) -> None:
    token, late = google.token(US, VIDEO, exp=clock.now + 600), google.token(US, VIDEO, exp=clock.now - 1)
    with pytest.raises(Unauthorized):  # the clock skew is for iat alone
        await us.caller(late)
    clock.now += 599
    assert await us.caller(token) == VIDEO
    clock.now += 1
    with pytest.raises(Unauthorized):
        await us.caller(token)


async def test_a_known_token_is_not_verified_again(
    us: Identity, google: Google, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = google.token(US, VIDEO)
    assert await us.caller(token) == VIDEO
    monkeypatch.setattr(identity.jwt, "decode", None)  # would fail
    assert await us.caller(token) == VIDEO
    assert google.asked == [CERTS_PATH]


async def test_after_an_hour_a_withdrawn_key_is_unknown_and_a_new_one_known(
    us: Identity, google: Google, clock: Clock
) -> None:
    google.lifetime = 100_000
    old = google.token(US, VIDEO)
    assert await us.caller(old) == VIDEO
    google.rotate("second")
    assert await us.caller(old) == VIDEO
    clock.now += identity.CERTS_FRESH_SECONDS
    assert await us.caller(google.token(US, VIDEO, iat=NOW)) == VIDEO
    with pytest.raises(Unauthorized):
        await us.caller(old)
    assert google.asked == [CERTS_PATH] * 2


async def test_strangers_cannot_make_us_ask_google_for_each_of_their_tokens(
    us: Identity, google: Google, clock: Clock
) -> None:
    strange = Key("strange")
    for number in range(20):
        strange.kid = f"strange-{number}"
        with pytest.raises(Unauthorized):
            await us.caller(google.token(US, VIDEO, strange, iat=NOW))
        clock.now += 60
    assert len(google.asked) == 1
    assert await us.caller(google.token(US, VIDEO, iat=NOW)) == VIDEO


async def test_many_at_once_ask_for_the_certificates_once(us: Identity, google: Google) -> None:
    tokens = [google.token(US, VIDEO, sub=str(number)) for number in range(20)]
    assert await asyncio.gather(*map(us.caller, tokens)) == [VIDEO] * 20
    assert google.asked == [CERTS_PATH]


@pytest.mark.parametrize(
    "answer",
    [
        None,
        httpx.Response(500),
        httpx.Response(302, headers={"Location": "https://example.org"}),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"keys": [{}]}),
    ],
    ids=["down", "500", "302", "html", "list", "none", "other"],
)
async def test_without_certificates_it_is_a_503_and_soon_tried_again(
    us: Identity, google: Google, network: Network, clock: Clock, answer: httpx.Response | None
) -> None:
    if answer is None:
        network.down.add(CERTS)
    else:
        network.answers[CERTS] = answer
    token = google.token(US, VIDEO)
    for _ in range(3):
        with pytest.raises(Unavailable) as refused:
            await us.caller(token)
        assert refused.value.code == "identity_unavailable"
    assert google.asked == [CERTS_PATH], "not for each call"
    network.down.clear()
    network.answers.clear()
    clock.now += identity.RETRY_SECONDS
    assert await us.caller(token) == VIDEO


async def test_known_certificates_outlast_google_for_a_day(
    us: Identity, google: Google, network: Network, clock: Clock
) -> None:
    google.lifetime = 200_000
    token = google.token(US, VIDEO)
    assert await us.caller(token) == VIDEO
    network.down.add(CERTS)
    clock.now += identity.CERTS_KEEP_SECONDS - 1
    assert await us.caller(token) == VIDEO
    clock.now += 1
    with pytest.raises(Unavailable):
        await us.caller(token)


async def test_google_that_hangs_is_not_waited_for_long(
    us: Identity, google: Google, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "TIMEOUT_SECONDS", 0.05)
    network.hanging = {CERTS, METADATA}
    async with asyncio.timeout(2):
        calls = [us.caller(google.token(US, VIDEO)), *(us.token(PEER) for _ in range(50))]
        assert {type(error) for error in await asyncio.gather(*calls, return_exceptions=True)} == {Unavailable}


@pytest.mark.parametrize("value", [None, "", "x.y.z", "Basic x.y.z"])
def test_what_is_no_bearer_in_our_header_is_refused_by_name(value: str | None) -> None:
    with pytest.raises(Unauthorized) as refused:
        bearer(value)
    assert refused.value.code == "identity_required"


# ── our own token ──


async def test_our_token_is_fetched_once_for_each_peer(us: Identity, google: Google) -> None:
    first = await us.token(PEER)
    assert await us.token(PEER) == first
    assert await us.token("https://another") != first
    assert google.audiences == [PEER, "https://another"]


async def test_our_token_is_renewed_before_its_end_and_no_call_waits_for_it(
    us: Identity, google: Google, network: Network
) -> None:
    google.lifetime = 200
    first = await us.token(PEER)
    google.lifetime = 3600
    network.hanging.add(METADATA)
    async with asyncio.timeout(1):
        assert [await us.token(PEER) for _ in range(20)] == [first] * 20
    await us.aclose()
    network.hanging.clear()
    for _ in range(2000):
        if (renewed := await us.token(PEER)) != first:
            break
        await asyncio.sleep(0.001)
    assert renewed != first
    assert google.audiences == [PEER] * 2


async def test_a_token_in_hand_outlasts_the_metadata_server_until_its_end(
    us: Identity, google: Google, network: Network
) -> None:
    google.lifetime = 200
    first = await us.token(PEER)
    network.down.add(METADATA)
    for _ in range(9):
        assert await us.token(PEER) == first
        await asyncio.sleep(0.001)
    google.lifetime = 0
    network.down.clear()
    ended = await us.token("https://another")
    assert await us.token("https://another") == ended, "asked again each time"
    assert google.audiences == [PEER, *["https://another"] * 2]


async def test_many_at_once_share_one_fetch(us: Identity, google: Google) -> None:
    assert len(set(await asyncio.gather(*(us.token(PEER) for _ in range(20))))) == 1
    assert google.audiences == [PEER]


async def test_a_caller_that_goes_away_does_not_cancel_the_fetch_for_others(us: Identity, google: Google) -> None:
    impatient = asyncio.create_task(us.token(PEER))
    patient = asyncio.create_task(us.token(PEER))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient
    assert google.audiences == [PEER]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (None, "ConnectError"),
        (httpx.Response(404), "404"),
        (httpx.Response(503), "503"),
        (httpx.Response(200, text="x"), "MalformedError"),
        (httpx.Response(200, text="e30.e30.x"), "Error"),
        (httpx.Response(200, content=b"e30.e30.x"), "KeyError"),
    ],
    ids=["down", "404", "503", "text", "no exp", "no type"],
)
async def test_a_metadata_server_that_gives_no_token_is_a_503_at_once_and_is_asked_again(
    us: Identity, google: Google, network: Network, answer: httpx.Response | None, reason: str
) -> None:
    if answer is None:
        network.down.add(METADATA)
    else:
        network.answers[METADATA] = answer
    async with asyncio.timeout(0.9):  # google-auth alone would try again for 15 s, the first time after 0.5 s or more
        with pytest.raises(Unavailable) as refused:
            await us.token(PEER)
    assert refused.value.code == "identity_unavailable"
    assert refused.value.reason.startswith("the metadata server")
    assert reason in refused.value.reason
    assert google.asked == [IDENTITY]
    network.down.clear()
    network.answers.clear()
    assert await us.token(PEER)


async def test_a_call_to_a_peer_carries_our_identity_for_its_origin_in_both_headers(
    us: Identity, google: Google
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"service": "peer"})

    async with open_client(httpx.MockTransport(answer), us) as client:
        peer = Peer(client, "peer", f"{PEER}/under", lambda: "ours")
        await peer.call("GET", "/a?b=c")
        assert await peer.state() == "ok"
    assert google.audiences == [PEER]
    token = await us.token(PEER)
    assert len(seen) == 2
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


async def test_without_the_two_settings_there_is_no_identity(settings: ServiceSettings, network: Network) -> None:
    async with open_identity(settings, network) as none:
        assert none is None
    with_both = settings.model_copy(update={"service_url": US, "internal_callers": f"{VIDEO},{account('usage')}"})
    async with open_identity(with_both, network) as some:
        assert some is not None
        assert await some.token(PEER)
