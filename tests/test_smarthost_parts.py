"""The pure parts under a connection: replies, dot-stuffing, AUTH mechanisms, endpoints."""

import base64
import contextlib
import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.replies import MAX_LINE, MAX_REPLY, MAX_TEXT, Reply, ReplyReader
from worker.smarthost import sasl
from worker.smarthost.endpoints import FADE_S, Endpoint, Endpoints
from worker.smarthost.sasl import Login, SaslFault
from worker.smarthost.transaction import dot_stuffed

# -- replies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"250 2.0.0 Ok\r\n", [Reply(250, "2.0.0 Ok")]),
        (b"250-a\r\n250-b\r\n250 c\r\n", [Reply(250, "a\nb\nc")]),
        (b"250\r\n", [Reply(250, "")]),
        (b"250 \r\n", [Reply(250, "")]),
        (b"250 no carriage return\n", [Reply(250, "no carriage return")]),
        (b"250 a\r\n354 b\r\n", [Reply(250, "a"), Reply(354, "b")]),
        (b"250 gr\xc3\xbc\xc3\x9f \xff\r\n", [Reply(250, "grüß \\xff")]),
        (b"250-half", []),
    ],
)
def test_replies_are_read(octets: bytes, expected: list[Reply]) -> None:
    reader = ReplyReader()
    assert reader.feed(octets) == expected
    assert not reader.fault


@pytest.mark.parametrize(
    "octets",
    [b"\r\n", b"25\r\n", b"abc\r\n", b"2500 x\r\n", b"100 x\r\n", b"600 x\r\n", b"-12 x\r\n"],
)
def test_what_is_no_reply_is_told_with_a_piece_of_it(octets: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 ok\r\n" + octets + b"250 late\r\n") == [Reply(250, "ok")]
    assert reader.fault.startswith("not an SMTP reply: ")
    assert reader.feed(b"250 later\r\n") == []


def test_a_reply_has_bounds() -> None:
    reader = ReplyReader()
    reader.feed(b"250 " + b"x" * MAX_LINE)
    assert "without end" in reader.fault
    reader = ReplyReader()
    for _ in range(MAX_REPLY // 100 + 2):
        reader.feed(b"250-" + b"x" * 100 + b"\r\n")
    assert "without end" in reader.fault


def test_the_kept_text_of_a_reply_is_bounded() -> None:
    [reply] = ReplyReader().feed(b"550 " + b"x" * 5000 + b"\r\n")
    assert len(reply.text) == MAX_TEXT


@pytest.mark.parametrize(
    ("text", "enhanced"),
    [
        ("2.0.0 Ok", "2.0.0"),
        ("2.0.0", "2.0.0"),
        ("2.0.0: Ok", ""),
        ("5.7.1 contradicts", ""),
        ("Ok 2.0.0", ""),
        ("2.1000.0 Ok", ""),
        ("", ""),
    ],
)
def test_the_enhanced_code_opens_the_text(text: str, enhanced: str) -> None:
    assert Reply(250, text).enhanced == enhanced


def test_a_reply_is_quoted_on_one_line() -> None:
    assert str(Reply(550, "5.1.1 a\n5.1.1 b")) == "550 5.1.1 a 5.1.1 b"
    assert str(Reply(250, "")) == "250"


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=5))
def test_how_octets_are_cut_changes_nothing(octets: bytes, cuts: list[int]) -> None:
    whole, pieces = ReplyReader(), ReplyReader()
    octets = b"250-a\r\n" + octets + b"\r\n250 b\r\n"
    expected = whole.feed(octets)
    places = [0, *sorted(min(cut, len(octets)) for cut in cuts), len(octets)]
    found = [reply for a, b in itertools.pairwise(places) for reply in pieces.feed(octets[a:b])]
    assert found == expected
    assert pieces.fault == whole.fault


# -- dot-stuffing ----------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([b".", b"..", b"a", b"\r\n", b"\n", b"\r", b"MAIL"]), max_size=30))
def test_stuffed_content_cannot_end_early_and_comes_back_whole(parts: list[bytes]) -> None:
    content = b"".join(parts)
    wire = dot_stuffed(content)
    canonical = re.sub(rb"\r\n|\r|\n", b"\r\n", content)
    if canonical and not canonical.endswith(b"\r\n"):
        canonical += b"\r\n"
    # However a server reads line ends, no line is a lone dot.
    assert not any(line == b"." for line in re.split(rb"\r\n|\r|\n", wire))
    lines = wire.split(b"\r\n")
    assert b"\r\n".join(line[1:] if line.startswith(b".") else line for line in lines) == canonical


# -- AUTH ------------------------------------------------------------------------------------------


def test_plain_sends_both_at_once_as_in_rfc_4616() -> None:
    conversation = sasl.start("PLAIN", Login("tim", "tanstaaftanstaaf"), "h", "c")
    assert conversation.initial == b"\0tim\0tanstaaftanstaaf"
    assert conversation.complete


def test_cram_md5_matches_the_example_of_rfc_2195() -> None:
    conversation = sasl.start("CRAM-MD5", Login("tim", "tanstaaftanstaaf"), "h", "c")
    assert conversation.initial is None
    challenge = b"<1896.697170952@postoffice.reston.mci.net>"
    assert conversation.respond(challenge) == b"tim b913a602c7eda7a495b4e6e7334d3890"
    assert conversation.complete


def test_login_gives_user_then_password() -> None:
    conversation = sasl.start("LOGIN", Login("u", "p"), "h", "c")
    assert not conversation.complete
    assert conversation.respond(b"Username:") == b"u"
    assert conversation.respond(b"whatever") == b"p"
    assert conversation.complete
    with pytest.raises(SaslFault):
        conversation.respond(b"more?")


RFC_2831_CHALLENGE = (
    b'realm="elwood.innosoft.com",nonce="OA6MG9tEQGm2hh",qop="auth",'
    b"algorithm=md5-sess,charset=utf-8"
)


def rfc_2831() -> sasl.DigestMd5:
    return sasl.DigestMd5(Login("chris", "secret"), "imap/elwood.innosoft.com", "OA6MHXh6VqTrRk")


def test_digest_md5_matches_the_example_of_rfc_2831() -> None:
    conversation = rfc_2831()
    response = conversation.respond(RFC_2831_CHALLENGE)
    assert b"response=d388dad90d4bbd760a152321f2143af7" in response.split(b",")
    assert b'username="chris"' in response.split(b",")
    assert not conversation.complete
    assert conversation.respond(b"rspauth=ea40f60335c427b5527b84dbabcdfffd") == b""
    assert conversation.complete


@pytest.mark.parametrize("proof", [b"", b"rspauth=", b"rspauth=" + b"0" * 32, b"x=y"])
def test_digest_md5_insists_on_the_servers_proof(proof: bytes) -> None:
    conversation = rfc_2831()
    conversation.respond(RFC_2831_CHALLENGE)
    with pytest.raises(SaslFault):
        conversation.respond(proof)
    assert not conversation.complete


@pytest.mark.parametrize(
    "challenge",
    [
        b"",
        b"nonce",
        b'nonce="a',
        b'nonce="a",nonce="b",algorithm=md5-sess',
        b'nonce="a"',
        b'nonce="a",algorithm=md5',
        b'nonce="a",algorithm=md5-sess,qop="auth-conf"',
        b'nonce="",algorithm=md5-sess',
        b"\xff\x00",
    ],
)
def test_digest_md5_answers_no_challenge_that_it_cannot_read(challenge: bytes) -> None:
    with pytest.raises(SaslFault):
        rfc_2831().respond(challenge)


def test_digest_md5_copes_with_quoting_and_an_absent_realm() -> None:
    login = Login('us"er\\', "p")
    conversation = sasl.DigestMd5(login, "smtp/h", "c")
    challenge = b' nonce="a\\"b" , qop="auth-int, auth" , algorithm=md5-sess, '
    response = conversation.respond(challenge)
    assert b'username="us\\"er\\\\"' in response
    assert b'nonce="a\\"b"' in response
    assert b"realm=" not in response


@given(st.binary(max_size=200))
def test_no_challenge_does_worse_than_end_the_login(challenge: bytes) -> None:
    for name in sasl.MECHANISMS:
        conversation = sasl.start(name, Login("grün", "pässword€"), "host", "c" * 32)
        with contextlib.suppress(SaslFault):
            assert isinstance(conversation.respond(challenge), bytes)
        base64.b64encode(conversation.initial or b"")


def test_the_first_wanted_mechanism_that_is_offered_is_chosen() -> None:
    wanted = ("PLAIN", "CRAM-MD5", "LOGIN")
    assert sasl.choose(wanted, ["login", "cram-md5"]) == "CRAM-MD5"
    assert sasl.choose(wanted, ["XOAUTH2"]) is None
    assert sasl.choose(wanted, []) is None


# -- endpoints -------------------------------------------------------------------------------------


def ports(endpoints: Endpoints, now: float) -> list[int]:
    return [endpoint.port for endpoint in endpoints.order(now)]


FRESH = Endpoints("h", (587, 2525, 25))


def test_ports_come_as_configured_at_first() -> None:
    assert FRESH.order(0) == (Endpoint("h", 587), Endpoint("h", 2525), Endpoint("h", 25))
    assert not FRESH.all_down


def test_a_port_that_failed_comes_last() -> None:
    assert ports(FRESH.after_failure(587, 0), 1) == [2525, 25, 587]


def test_a_port_that_works_stays_first_even_when_the_others_failures_fade() -> None:
    endpoints = FRESH.after_failure(587, 0).after_success(2525, 1)
    assert ports(endpoints, 1) == [2525, 25, 587]
    assert ports(endpoints, FADE_S + 1) == [2525, 587, 25]


def test_among_ports_that_work_the_configured_order_holds() -> None:
    endpoints = FRESH.after_success(25, 0).after_success(587, 1)
    assert ports(endpoints, 2) == [587, 25, 2525]


def test_a_success_wipes_out_a_failure() -> None:
    endpoints = FRESH.after_failure(587, 0).after_success(587, 1)
    assert not endpoints.is_down(587)
    assert ports(endpoints, 2) == [587, 2525, 25]


def test_all_down_until_one_works() -> None:
    endpoints = FRESH
    for port in endpoints.ports:
        assert not endpoints.all_down
        endpoints = endpoints.after_failure(port, 0)
    assert endpoints.all_down
    assert ports(endpoints, 1) == [587, 2525, 25]
    assert not endpoints.after_success(25, 1).all_down


def test_an_endpoint_is_written_as_people_do() -> None:
    assert str(Endpoint("smtp.example.com", 587)) == "smtp.example.com:587"
    assert str(Endpoint("::1", 25)) == "[::1]:25"
