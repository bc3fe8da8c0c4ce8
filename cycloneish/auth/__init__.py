"""Signing in through others, and the authentication of HTTP itself.

Tornado's mixins for OAuth 1.0a, OAuth 2.0, OpenID, Google, Facebook and Twitter, one for GitHub, and
decorators for basic, digest and bearer authentication.  This file only hands names on; each subject has its
own module.
"""

from __future__ import annotations

from cycloneish.auth.basic import basic_auth, bearer_auth, same_secret
from cycloneish.auth.digest import DigestAuth
from cycloneish.auth.errors import AuthError
from cycloneish.auth.facebook import FacebookGraphMixin
from cycloneish.auth.github import GitHubMixin
from cycloneish.auth.google import GoogleOAuth2Mixin
from cycloneish.auth.oauth1 import OAuthMixin
from cycloneish.auth.oauth2 import OAuth2Mixin
from cycloneish.auth.openid import OpenIdMixin
from cycloneish.auth.twitter import TwitterMixin

__all__ = [
    "AuthError",
    "DigestAuth",
    "FacebookGraphMixin",
    "GitHubMixin",
    "GoogleOAuth2Mixin",
    "OAuth2Mixin",
    "OAuthMixin",
    "OpenIdMixin",
    "TwitterMixin",
    "basic_auth",
    "bearer_auth",
    "same_secret",
]
