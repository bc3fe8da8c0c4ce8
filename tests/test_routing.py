"""Routing rules, and that the fast way finds what the slow way would."""

from __future__ import annotations

import logging
import random
import re

from twisted.trial.unittest import SynchronousTestCase

from cycloneish import routing
from cycloneish.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
)
from cycloneish.routing import (
    AnyMatches,
    DefaultHostMatches,
    HostMatches,
    Matcher,
    PathMatches,
    ReversibleRouter,
    ReversibleRuleRouter,
    Router,
    Rule,
    RuleRouter,
    URLSpec,
)


class Connection(HTTPConnection):
    def __init__(self):
        self.written = []

    def write_headers(self, start_line, headers, chunk=None):
        self.written.append((start_line.code, dict(headers), chunk))

    def finish(self):
        self.written.append("finish")


class Delegate(HTTPMessageDelegate):
    """Notes what happens to it."""

    def __init__(self, name="delegate"):
        self.name = name
        self.events = []

    def headers_received(self, start_line, headers):
        self.events.append(("headers", start_line.path))

    def data_received(self, chunk):
        self.events.append(("data", chunk))

    def finish(self):
        self.events.append("finish")

    def on_connection_close(self):
        self.events.append("close")


class Target(Router):
    """A router that answers with its own name and what it was given."""

    def __init__(self, name, answers=True):
        self.name = name
        self.answers = answers
        self.given = None

    def find_handler(self, request, **kwargs):
        self.given = kwargs
        return Delegate(self.name) if self.answers else None


def get(path, host="example.com", **headers):
    return HTTPServerRequest(
        start_line=RequestStartLine("GET", path, "HTTP/1.1"),
        headers=HTTPHeaders({"Host": host, **headers}),
        connection=Connection(),
    )


def found(router, path, **kwargs):
    delegate = router.find_handler(get(path, **kwargs))
    return None if delegate is None else delegate.name


class PathMatchesTest(SynchronousTestCase):
    def match(self, pattern, path):
        return PathMatches(pattern).match(get(path))

    def test_pattern_without_groups(self):
        self.assertEqual(self.match("/a", "/a"), {})
        self.assertEqual(self.match("/a", "/a?b=c"), {})
        self.assertIsNone(self.match("/a", "/ab"))
        self.assertIsNone(self.match("/a", "/b"))
        self.assertEqual(self.match("/a.*", "/abc"), {})

    def test_result_is_new_each_time(self):
        matcher = PathMatches("/a")
        matcher.match(get("/a"))["target_kwargs"] = 1
        self.assertEqual(matcher.match(get("/a")), {})

    def test_groups_by_position(self):
        self.assertEqual(self.match(r"/(\w+)/(x)?", "/a/"), {"path_args": [b"a", None], "path_kwargs": {}})

    def test_groups_by_name(self):
        self.assertEqual(
            self.match(r"/(?P<n>.+)", "/a%20b+c%C3%A9"),
            {"path_args": [], "path_kwargs": {"n": b"a b+c\xc3\xa9"}},
        )

    def test_raw_bytes_in_the_path_arrive_as_sent(self):
        self.assertEqual(self.match("/(.*)", "/\xc3\xa9")["path_args"], [b"\xc3\xa9"])
        self.assertEqual(self.match("/(.*)", "/\u20ac")["path_args"], ["€".encode()])

    def test_mixed_groups_are_refused(self):
        self.assertRaises(ValueError, PathMatches, "/(a)/(?P<b>c)")

    def test_compiled_pattern_is_used_as_it_is(self):
        self.assertEqual(self.match(re.compile("/a"), "/abc"), {})
        self.assertEqual(self.match(re.compile("/A$", re.IGNORECASE), "/a"), {})
        self.assertEqual(self.match("(?i)/A", "/a"), {})

    def test_what_is_known_about_a_pattern(self):
        for pattern, literal, prefix in [
            ("/", "/", "/"),
            ("", "", ""),
            ("^/a$", "/a", "/a"),
            (r"/a\.b\-c", "/a.b-c", "/a.b-c"),
            (r"/a\d", None, "/a"),
            ("/a.b", None, "/a"),
            ("/ab?", None, "/a"),
            (r"/a\.?", None, "/a"),
            ("/ab*", None, "/a"),
            ("/ab{2}", None, "/a"),
            ("/a|/b", None, ""),
            ("/a(b|c)", None, "/a"),
            ("/a[|]b|/c", None, ""),
            (r"/a\|b", "/a|b", "/a|b"),
            ("/a/(.*)", None, "/a/"),
            (r"/a\$", None, "/a$"),
            (".*", None, ""),
            ("(?i)/a", None, ""),
        ]:
            matcher = PathMatches(pattern)
            self.assertEqual((matcher.literal, matcher.prefix), (literal, prefix), pattern)


class ReverseTest(SynchronousTestCase):
    def reverse(self, pattern, *args):
        return PathMatches(pattern).reverse(*args)

    def test_fixed_patterns(self):
        self.assertEqual(self.reverse(r"/favicon\.ico"), "/favicon.ico")
        self.assertEqual(self.reverse(r"^/favicon\.ico$"), "/favicon.ico")
        self.assertEqual(self.reverse("/robots.txt"), "/robots.txt")
        self.assertEqual(self.reverse(r"/a\$"), "/a$")

    def test_groups_are_filled_and_encoded(self):
        self.assertEqual(self.reverse(r"^/api/v1/(\w+)$", "bar"), "/api/v1/bar")
        self.assertEqual(self.reverse(r"/api\.v1/([0-9]+)/icon\.png", 5), "/api.v1/5/icon.png")
        self.assertEqual(self.reverse("/(?P<a>.*)/(?P<b>.*)", "ü x", b"\xff"), "/%C3%BC%20x/%FF")
        self.assertEqual(self.reverse(r"/([^()\]]+)/([]()]+)/([a\](]x)", 1, 2, 3), "/1/2/3")
        self.assertEqual(self.reverse(r"/(\(x\))/end", 1), "/1/end")
        self.assertEqual(self.reverse("/(a(?:b|c))?/d", "ab"), "/ab/d")
        self.assertEqual(self.reverse("/100%/(x)", 1), "/100%/1")

    def test_too_clever_patterns(self):
        for pattern in [
            r"/v\d+/foo",
            "/(?:a|b)",
            "/((a)b)",
            "/a|/b",
            "/[ab]",
            "/a{2}",
            "(?i)/a",
            "/\\" + "A",
        ]:
            self.assertRaises(ValueError, self.reverse, pattern)

    def test_wrong_number_of_arguments(self):
        self.assertRaises(ValueError, self.reverse, "/(a)")
        self.assertRaises(ValueError, self.reverse, "/(a)", 1, 2)
        self.assertRaises(ValueError, self.reverse, "/a", 1)

    def test_matchers_that_have_no_url(self):
        self.assertIsNone(AnyMatches().reverse(1))
        self.assertEqual(Rule(PathMatches("/a"), None).reverse(), "/a")


class HostMatchesTest(SynchronousTestCase):
    def test_host_without_port_in_any_case(self):
        matcher = HostMatches(r"www\.example\.com")
        self.assertEqual(matcher.match(get("/", host="WWW.Example.com:8080")), {})
        self.assertIsNone(matcher.match(get("/", host="www.example.com.evil")))
        self.assertIsNone(matcher.match(get("/", host="wwwxexample.com")))

    def test_everything(self):
        for pattern in (".*", ".*$", re.compile(".*")):
            self.assertEqual(HostMatches(pattern).match(get("/", host="")), {})

    def test_default_host(self):
        class Application:
            default_host = "www.example.com"

        application = Application()
        matcher = DefaultHostMatches(application, re.compile("www.example.com$"))
        self.assertEqual(matcher.match(get("/", host="other")), {})
        self.assertIsNone(matcher.match(get("/", **{"X-Real-Ip": "1.2.3.4"})))
        application.default_host = "www.test.com"
        self.assertIsNone(matcher.match(get("/", host="www.example.com")))
        application.default_host = None
        self.assertIsNone(matcher.match(get("/", host="www.example.com")))


class RuleRouterTest(SynchronousTestCase):
    def test_first_rule_that_matches_wins(self):
        router = RuleRouter(
            [
                ("/a/(.*)", Target("pattern")),
                ("/a/b", Target("hidden")),
                ("/c", Target("literal")),
                ("/.*", Target("rest")),
                ("/d", Target("hidden")),
            ]
        )
        self.assertEqual(found(router, "/a/b"), "pattern")
        self.assertEqual(found(router, "/c"), "literal")
        self.assertEqual(found(router, "/d"), "rest")
        self.assertEqual(found(router, "/other"), "rest")
        self.assertIsNone(found(router, "*"))

    def test_rule_whose_target_declines_is_passed_over(self):
        router = RuleRouter([("/a", Target("1", False)), ("/.*", Target("2", False)), ("/a", Target("3"))])
        self.assertEqual(found(router, "/a"), "3")

    def test_forms_of_a_rule(self):
        pattern = Target("pattern")
        matcher = Target("matcher")
        router = RuleRouter(
            [
                Rule(PathMatches("/rule"), Target("rule")),
                ["/list", Target("list")],
                (re.compile("/pattern/(.*)"), pattern, {"k": 1}, "name"),
                (PathMatches("/matcher"), matcher, {}),
                URLSpec("/spec", Target("spec")),
            ]
        )
        for name in ("rule", "list", "matcher", "spec"):
            self.assertEqual(found(router, "/" + name), name)
        self.assertEqual(matcher.given, {})
        self.assertEqual(found(router, "/pattern/x"), "pattern")
        self.assertEqual(pattern.given, {"path_args": [b"x"], "path_kwargs": {}, "target_kwargs": {"k": 1}})
        for wrong in (("/a",), ("/a", 1, {}, "n", 5), Target, "/a", None):
            error = self.assertRaises(ValueError, router.add_rules, [wrong])
            self.assertIn(repr(wrong), str(error))

    def test_a_pattern_that_is_no_expression_is_named(self):
        error = self.assertRaises(re.error, PathMatches, "/shop/(")
        self.assertIn("route '/shop/(': missing )", str(error))

    def test_list_of_rules_as_target(self):
        router = RuleRouter(
            [
                (HostMatches("api.example.com"), [("/a", Target("api"))]),
                ("/a", Target("www")),
            ]
        )
        self.assertEqual(found(router, "/a", host="api.example.com"), "api")
        self.assertEqual(found(router, "/a"), "www")
        self.assertIsNone(found(router, "/b", host="api.example.com"))

    def test_dotted_name_as_target(self):
        self.assertIs(Rule(AnyMatches(), "cycloneish.routing.Router").target, Router)
        self.assertRaises(ImportError, Rule, AnyMatches(), "cycloneish.routing.Nothing")

    def test_connection_delegate_as_target(self):
        calls = []

        class Answer(HTTPServerConnectionDelegate):
            def start_request(self, server_conn, request_conn):
                calls.append((server_conn, request_conn))
                return Delegate("answer")

        request = get("/")
        request.server_connection = "server"
        router = RuleRouter([(AnyMatches(), Answer())])
        self.assertEqual(router.find_handler(request).name, "answer")
        self.assertEqual(calls, [("server", request.connection)])

    def test_function_as_target(self):
        requests = []
        router = RuleRouter([("/(.*)", lambda request, **params: requests.append((request, params)))])
        delegate = router.start_request(None, Connection())
        headers = HTTPHeaders({"Host": "a", "Content-Type": "application/x-www-form-urlencoded"})
        delegate.headers_received(RequestStartLine("POST", "/f", "HTTP/1.1"), headers)
        delegate.data_received(b"a=1&")
        delegate.data_received(b"b=2")
        delegate.finish()
        ((request, params),) = requests
        self.assertEqual(request.body, b"a=1&b=2")
        self.assertEqual(request.arguments, {"a": [b"1"], "b": [b"2"]})
        self.assertEqual(params, {"path_args": [b"f"], "path_kwargs": {}})

    def test_malformed_form_never_reaches_the_function(self):
        called = []
        delegate = RuleRouter([(".*", called.append)]).start_request(None, Connection())
        headers = HTTPHeaders({"Host": "a", "Content-Type": "multipart/form-data; boundary=b"})
        delegate.headers_received(RequestStartLine("POST", "/f", "HTTP/1.1"), headers)
        delegate.data_received(b"x")
        self.assertRaises(HTTPInputError, delegate.finish)
        self.assertEqual(called, [])

    def test_function_is_not_called_for_a_lost_connection(self):
        called = []
        delegate = RuleRouter([(".*", called.append)]).start_request(None, Connection())
        delegate.headers_received(RequestStartLine("GET", "/f", "HTTP/1.0"), HTTPHeaders())
        delegate.on_connection_close()
        self.assertEqual(called, [])
        # Without a head there is nothing to call it with.
        routing._CallableAdapter(called.append, Connection()).finish()
        self.assertEqual(called, [])

    def test_target_of_another_kind_matches_nothing(self):
        self.assertIsNone(found(RuleRouter([("/", 5)]), "/"))

    def test_request_without_connection(self):
        request = HTTPServerRequest("GET", "/")
        self.assertRaises(RuntimeError, RuleRouter([("/", lambda r: None)]).find_handler, request)

    def test_matcher_of_ones_own_is_always_asked(self):
        class MethodMatches(Matcher):
            def match(self, request):
                return {} if request.method == "GET" else None

        class Loose(PathMatches):
            def match(self, request):
                return {}

        self.assertEqual(found(RuleRouter([(MethodMatches(), Target("get"))]), "/any"), "get")
        self.assertEqual(found(RuleRouter([(Loose("/a"), Target("loose"))]), "/b"), "loose")
        self.assertRaises(NotImplementedError, Matcher().match, None)

    def test_rules_may_be_changed_in_any_way(self):
        router = RuleRouter([("/a", Target("1"))])
        rule = lambda name: Rule(PathMatches("/a"), Target(name))  # noqa: E731
        self.assertEqual(found(router, "/a"), "1")

        def change(function, expected):
            function(router.rules)
            self.assertEqual(found(router, "/a"), expected)

        change(lambda rules: rules.insert(0, rule("2")), "2")
        change(lambda rules: rules.pop(0), "1")
        change(lambda rules: rules.append(rule("3")), "1")
        change(lambda rules: rules.reverse(), "3")
        change(lambda rules: rules.sort(key=lambda one: one.target.name), "1")
        change(lambda rules: rules.remove(rules[0]), "3")
        change(lambda rules: rules.__setitem__(0, rule("4")), "4")
        change(lambda rules: rules.__delitem__(0), None)
        change(lambda rules: rules.extend([rule("5")]), "5")
        change(lambda rules: rules.clear(), None)
        router.rules += [rule("6")]
        self.assertEqual(found(router, "/a"), "6")
        router.rules = [rule("7")]
        self.assertEqual(found(router, "/a"), "7")
        router.add_rules([("/b", Target("8"))])
        self.assertEqual(found(router, "/b"), "8")

    def test_agrees_with_trying_every_rule_in_order(self):
        chance = random.Random(2)
        pieces = [
            "/a",
            "/b",
            "/ab",
            "/a/b",
            "/(.*)",
            "/a/(.*)",
            "/a?",
            "/a|/b",
            r"/\w",
            ".*b",
            "/(a|b)/?",
            "",
        ]
        paths = ["/", "/a", "/b", "/ab", "/a/b", "/c", "", "/a/", "/b/", "/abb", "*"]
        for _ in range(300):
            chosen = [chance.choice(pieces) for _ in range(chance.randint(0, 8))]
            rules = [(one, Target(str(n), chance.random() < 0.8)) for n, one in enumerate(chosen)]
            router = RuleRouter(rules)
            for path in paths:
                expected = None
                for pattern, target in rules:
                    if target.answers and re.match(pattern + "$", path):
                        expected = target.name
                        break
                self.assertEqual(found(router, path), expected, (chosen, path))

    def test_a_thousand_literal_rules_are_not_tried_one_by_one(self):
        router = RuleRouter([(f"/page/{n}", Target(str(n))) for n in range(1000)] + [("/.*", Target("rest"))])
        self.assertEqual(found(router, "/page/999"), "999")
        self.assertEqual(len(router.candidates("/page/500")), 2)
        self.assertEqual(len(router.candidates("/other")), 1)


class DelegateTest(SynchronousTestCase):
    START = RequestStartLine("GET", "/a", "HTTP/1.1")

    def test_everything_goes_to_the_delegate_that_was_found(self):
        delegate = Delegate()

        class One(Router):
            def find_handler(self, request, **kwargs):
                self.request = request
                return delegate

        router = One()
        connection = Connection()
        proxy = router.start_request("server", connection)
        proxy.headers_received(self.START, HTTPHeaders({"Host": "a"}))
        proxy.data_received(b"x")
        proxy.finish()
        proxy.on_connection_close()
        self.assertEqual(delegate.events, [("headers", "/a"), ("data", b"x"), "finish", "close"])
        self.assertIs(router.request.connection, connection)
        self.assertEqual(router.request.server_connection, "server")

    def test_nothing_found_is_404(self):
        connection = Connection()
        proxy = RuleRouter().start_request(None, connection)
        proxy.headers_received(self.START, HTTPHeaders({"Host": "a"}))
        proxy.data_received(b"x")
        proxy.finish()
        self.assertEqual(connection.written, [(404, {"Content-Length": "0"}, None), "finish"])

    def test_connection_lost_before_the_head(self):
        proxy = RuleRouter().start_request(None, Connection())
        proxy.on_connection_close()
        self.assertIsNone(proxy.data_received(b"x"))
        proxy.finish()

    def test_bad_request_is_the_engines_to_answer(self):
        proxy = RuleRouter().start_request(None, Connection())
        self.assertRaises(HTTPInputError, proxy.headers_received, self.START, HTTPHeaders())

    def test_abstract_routers(self):
        self.assertRaises(NotImplementedError, Router().find_handler, None)
        self.assertRaises(NotImplementedError, ReversibleRouter().reverse_url, "a")


class ReversibleRuleRouterTest(SynchronousTestCase):
    def test_names_are_found_here_and_below(self):
        router = ReversibleRuleRouter(
            [
                ("/a/(.*)", Target("a"), {}, "a"),
                ("/n/.*", [("/n/(.*)", Target("n"), None, "nested")]),
                ("/plain", RuleRouter()),
                URLSpec("/u", Target("u"), name="u"),
            ]
        )
        self.assertEqual(router.reverse_url("a", "x y"), "/a/x%20y")
        self.assertEqual(router.reverse_url("nested", 1), "/n/1")
        self.assertEqual(router.reverse_url("u"), "/u")
        self.assertIsNone(router.reverse_url("nothing"))

    def test_second_rule_of_a_name_takes_over_with_a_warning(self):
        with self.assertLogs(routing.app_log, logging.WARNING) as logs:
            router = ReversibleRuleRouter([("/1", Target("1"), {}, "n"), ("/2", Target("2"), {}, "n")])
        self.assertIn("Multiple handlers named n", logs.output[0])
        self.assertEqual(router.reverse_url("n"), "/2")

    def test_reprs_name_the_target(self):
        self.assertIn("'/u$'", repr(URLSpec("/u", Target, {"k": 1}, "u")))
        self.assertIn("name='u'", repr(Rule(AnyMatches(), Target, name="u")))
