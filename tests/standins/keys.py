"""Keys as a Supabase project has them: JWTs that name a database role, signed with the project's own secret."""

import secrets
import time

from jose import jwt

Claims = dict[str, object]
YEAR = 365 * 24 * 3600


class Keys:
    """A project's secret, which is PostgREST's alone and no service's, and what is signed with it."""

    def __init__(self, secret: str | None = None) -> None:
        self.secret = secret or secrets.token_urlsafe(48)
        self.anon = self.sign("anon")
        self.service = self.sign("service_role")

    def sign(self, role: str, *, seconds: float = YEAR, **claims: object) -> str:
        """Negative ``seconds``: expired so long ago."""
        now = int(time.time())
        content: Claims = {"iss": "supabase", "role": role, "iat": now - YEAR, "exp": int(now + seconds)}
        return str(jwt.encode(content | claims, self.secret, algorithm="HS256"))

    def user(self, subject: str) -> str:
        """The key of somebody who has signed in."""
        return self.sign("authenticated", seconds=3600, sub=subject, aud="authenticated")
