"""Signing in with GitHub, offered where the program was told its key there.

``ROUNDTABLE_GITHUB_KEY`` and ``ROUNDTABLE_GITHUB_SECRET`` in the environment switch it on; register
``https://…/sign-in/github`` as the address that GitHub sends people back to.
"""

from __future__ import annotations

import os
import re
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from cycloneish.auth import GitHubMixin
from cycloneish.demo.handlers import Page
from cycloneish.demo.models import Member
from cycloneish.web import HTTPError

MOST_NAMESAKES = 50


def github_settings() -> dict[str, Any]:
    """The setting of the application, empty where nothing is configured."""
    key, secret = (os.environ.get(f"ROUNDTABLE_GITHUB_{name}") for name in ("KEY", "SECRET"))
    return {"github_oauth": {"key": key, "secret": secret}} if key and secret else {}


class GitHubHandler(GitHubMixin, Page):
    """Sends the browser to GitHub, and takes it back."""

    def initialize(self) -> None:
        # A GitHub of one's own, or one that a test plays.
        own = os.environ.get("ROUNDTABLE_GITHUB_URL")
        if own:
            self._OAUTH_AUTHORIZE_URL = own + "/authorize"
            self._OAUTH_ACCESS_TOKEN_URL = own + "/token"
            self._GITHUB_BASE_URL = own

    async def get(self) -> None:
        if "github_oauth" not in self.settings:
            raise HTTPError(404)
        back = f"{self.request.protocol}://{self.request.host}/sign-in/github"
        code = self.get_query_argument("code", None)
        if code is None:
            self.authorize_redirect(back, self.settings["github_oauth"]["key"], scope=["read:user"])
            return
        user = await self.get_authenticated_user(back, code)
        member = await self.member(int(user["id"]), str(user["login"]))
        self.sign_in(member.id)

    async def member(self, number: int, login: str) -> Member:
        """Whose account this is; a new one gets the name that it has there, or one like it."""
        known = await self.db.scalar(select(Member).where(Member.github == number))
        if known is not None:
            return known  # type: ignore[no-any-return]
        name = re.sub(r"[^\w.-]", "", login)[:25] or "github"
        for attempt in range(1, MOST_NAMESAKES):
            member = Member(github=number, name=name if attempt == 1 else f"{name}-{attempt}")
            self.db.add(member)
            try:
                await self.db.commit()
            except IntegrityError:  # the name is taken
                await self.db.rollback()
            else:
                return member
        raise HTTPError(409, "no name is left for %s", login)
