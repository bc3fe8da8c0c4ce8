"""ID tokens of OpenID Connect: signature and claims (OpenID Connect Core, section 3.1.3.7).

Called by the mixin for Google.  Signatures are checked with ``cryptography``, which pyOpenSSL brings;
without it a token is refused.
"""

from __future__ import annotations

import hmac
import json
import time
from base64 import urlsafe_b64decode
from collections.abc import Collection
from typing import Any

from cycloneish.auth.errors import AuthError

__all__ = ["verify_id_token"]

#: Seconds by which clocks may differ.
_LEEWAY = 60
#: Seconds that the keys of a provider are believed, and that an unknown key does not fetch them again.
_KEYS_AGE = 3600
_KEYS_PAUSE = 60

#: Keys by URL, with the time at which they were fetched.
_keys: dict[str, tuple[float, dict[str, dict[str, Any]]]] = {}


def _decoded(part: str) -> bytes:
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


async def verify_id_token(
    token: str, client_id: str, issuers: Collection[str], nonce: str | None, jwks_url: str, client: Any
) -> dict[str, Any]:
    """Verify an ID token.

    :param client_id: has to be its audience.
    :param issuers: one of these has to have made it.
    :param nonce: has to be in it, where one was sent along.
    :param jwks_url: where the keys of the provider are.
    :param client: fetches them.
    :returns: the claims.
    :raises AuthError: the token is not good.
    """
    try:
        head, body, signature = token.split(".")
        header, claims = json.loads(_decoded(head)), json.loads(_decoded(body))
        signed = _decoded(signature)
        algorithm, key_id = header["alg"], header.get("kid", "")
    except (ValueError, KeyError, TypeError, AttributeError):
        raise AuthError("the ID token is malformed") from None
    if algorithm not in ("RS256", "ES256") or not isinstance(claims, dict) or not isinstance(key_id, str):
        raise AuthError("the ID token is not signed as it should be")
    key = await _key(jwks_url, key_id, client)
    _verify_signature(algorithm, key, f"{head}.{body}".encode("ascii"), signed)
    _verify_claims(claims, client_id, issuers, nonce)
    return claims


def _verify_claims(
    claims: dict[str, Any], client_id: str, issuers: Collection[str], nonce: str | None
) -> None:
    now = time.time()
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if claims.get("iss") not in issuers:
        raise AuthError("the ID token is of another issuer")
    if client_id not in audiences or claims.get("azp", client_id) != client_id:
        raise AuthError("the ID token is for another application")
    if len(audiences) > 1 and "azp" not in claims:
        raise AuthError("the ID token does not say which application it is for")
    expires, issued = claims.get("exp"), claims.get("iat")
    if not isinstance(expires, int | float) or expires + _LEEWAY < now:
        raise AuthError("the ID token has expired")
    if not isinstance(issued, int | float) or issued - _LEEWAY > now:
        raise AuthError("the ID token is of the future")
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise AuthError("the ID token is not for this attempt to sign in")
    if not isinstance(claims.get("sub"), str):
        raise AuthError("the ID token does not say for whom it is")


async def _key(url: str, key_id: str, client: Any) -> dict[str, Any]:
    fetched, keys = _keys.get(url, (0.0, {}))
    age = time.monotonic() - fetched
    if not keys or age > _KEYS_AGE or (key_id not in keys and age > _KEYS_PAUSE):
        response = await client.fetch(url)
        try:
            listed = json.loads(response.body)["keys"]
            keys = {key.get("kid", ""): key for key in listed if key.get("use", "sig") == "sig"}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise AuthError("the keys of the provider are malformed") from None
        _keys[url] = time.monotonic(), keys
    try:
        return keys[key_id]
    except (KeyError, TypeError):
        raise AuthError("the ID token is signed with a key that is not the provider's") from None


def _number(key: dict[str, Any], name: str) -> int:
    return int.from_bytes(_decoded(key[name]), "big")


def _verify_signature(algorithm: str, key: dict[str, Any], signed: bytes, signature: bytes) -> None:
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256
    except ImportError as error:
        raise ImportError("verifying ID tokens needs: pip install 'cycloneish[tls]'") from error
    try:
        if algorithm == "RS256" and key["kty"] == "RSA":
            rsa.RSAPublicNumbers(_number(key, "e"), _number(key, "n")).public_key().verify(
                signature, signed, padding.PKCS1v15(), SHA256()
            )
        elif algorithm == "ES256" and key["kty"] == "EC" and key["crv"] == "P-256" and len(signature) == 64:
            numbers = ec.EllipticCurvePublicNumbers(_number(key, "x"), _number(key, "y"), ec.SECP256R1())
            pair = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
            numbers.public_key().verify(encode_dss_signature(*pair), signed, ec.ECDSA(SHA256()))
        else:
            raise AuthError("the ID token is not signed as its key says")
    except (InvalidSignature, ValueError, KeyError, TypeError):
        raise AuthError("the signature of the ID token is wrong") from None
