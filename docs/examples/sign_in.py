# sign_in.py: sign in with Facebook, and upload a picture there.
#   FACEBOOK_KEY=… FACEBOOK_SECRET=… COOKIE_SECRET=… cycloneish run --app sign_in:make_app
# GRAPH_URL and DIALOG_URL lead elsewhere, as the tests do.
import os

from cycloneish.auth import FacebookGraphMixin
from cycloneish.escape import json_decode, json_encode, xhtml_escape
from cycloneish.web import Application, RequestHandler, authenticated


class Facebook(RequestHandler, FacebookGraphMixin):
    def initialize(self) -> None:
        self._OAUTH_AUTHORIZE_URL = os.environ.get("DIALOG_URL", FacebookGraphMixin._OAUTH_AUTHORIZE_URL)
        self._FACEBOOK_BASE_URL = os.environ.get("GRAPH_URL", FacebookGraphMixin._FACEBOOK_BASE_URL)
        self._OAUTH_ACCESS_TOKEN_URL = self._FACEBOOK_BASE_URL + "/oauth/access_token"

    def get_current_user(self):
        cookie = self.get_signed_cookie("user")
        return json_decode(cookie) if cookie else None


class Home(Facebook):
    @authenticated
    def get(self):
        self.write(
            "<!doctype html><meta charset=utf-8><title>Pictures</title>"
            f'<p id="who">Hello, {xhtml_escape(self.current_user["name"])}</p>'
            f'<form method="post" action="/photos" enctype="multipart/form-data">{self.xsrf_form_html()}'
            '<input id="picture" type="file" name="picture"><input id="caption" name="caption">'
            '<button id="upload">Upload</button></form>'
        )


class Login(Facebook):
    async def get(self):
        redirect_uri = f"{self.request.protocol}://{self.request.host}/login"
        key, secret = self.settings["facebook_api_key"], self.settings["facebook_secret"]
        if not self.get_argument("code", None):
            self.authorize_redirect(redirect_uri, key, scope=["public_profile"])
            return
        user = await self.get_authenticated_user(redirect_uri, key, secret, self.get_argument("code"))
        kept = {"name": user["name"], "access_token": user["access_token"]}
        self.set_signed_cookie("user", json_encode(kept), httponly=True, samesite="Lax")
        self.redirect("/")


class Photos(Facebook):
    @authenticated
    async def post(self):
        picture = self.request.files["picture"][0]
        photo = await self.facebook_request(
            "/me/photos",
            self.current_user["access_token"],
            {"caption": self.get_body_argument("caption", "")},
            files={"source": (picture.filename, picture.body, picture.content_type)},
        )
        number = xhtml_escape(str(photo["id"]))
        self.write(f'<!doctype html><title>Done</title><p id="photo">Picture {number} is there.</p>')


def make_app():
    return Application(
        [("/", Home), ("/login", Login), ("/photos", Photos)],
        login_url="/login",
        xsrf_cookies=True,
        cookie_secret=os.environ["COOKIE_SECRET"],
        facebook_api_key=os.environ["FACEBOOK_KEY"],
        facebook_secret=os.environ["FACEBOOK_SECRET"],
    )
