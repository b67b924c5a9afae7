"""The server's half of the login mechanisms, against the examples of their documents."""

import pytest

from proxy.sandbox import sasl

TOKEN = "5a4db0c5-0000-4000-8000-000000000000"


def passwords(user: str) -> str | None:
    return {TOKEN: TOKEN, "tim": "tanstaaftanstaaf", "chris": "secret"}.get(user)


def talk(mechanism: str, *responses: bytes, nonce: str = "n", host: str = "h") -> str:
    """Answer each challenge with the next response; return who was let in."""
    exchange = sasl.MECHANISMS[mechanism](passwords, nonce, host)
    next(exchange)
    try:
        for response in responses:
            exchange.send(response)
    except StopIteration as end:
        return str(end.value)
    raise AssertionError("the exchange went on")


def test_plain_takes_the_token_as_user_and_password() -> None:
    assert talk("PLAIN", f"\0{TOKEN}\0{TOKEN}".encode()) == TOKEN


@pytest.mark.parametrize("proof", [b"", b"a\0b", f"\0{TOKEN}\0x".encode(), b"\0nobody\0x"])
def test_plain_refuses_all_else(proof: bytes) -> None:
    with pytest.raises(sasl.LoginRefused):
        talk("PLAIN", proof)


def test_login_asks_for_user_then_password() -> None:
    assert talk("LOGIN", TOKEN.encode(), TOKEN.encode()) == TOKEN


def test_login_refuses_a_wrong_password_and_names_the_user() -> None:
    with pytest.raises(sasl.LoginRefused) as refused:
        talk("LOGIN", b"chris", b"guess")
    assert refused.value.user == "chris"


def test_cram_md5_takes_the_example_of_rfc_2195() -> None:
    response = b"tim b913a602c7eda7a495b4e6e7334d3890"
    nonce, host = "1896.697170952", "postoffice.reston.mci.net"
    assert talk("CRAM-MD5", response, nonce=nonce, host=host) == "tim"


def test_cram_md5_refuses_the_answer_to_another_challenge() -> None:
    with pytest.raises(sasl.LoginRefused):
        talk("CRAM-MD5", b"tim b913a602c7eda7a495b4e6e7334d3890", nonce="another")


# The example of RFC 2831 §4, an IMAP login.
RFC_2831 = {
    "username": "chris",
    "realm": "elwood.innosoft.com",
    "nonce": "OA6MG9tEQGm2hh",
    "nc": "00000001",
    "cnonce": "OA6MHXh6VqTrRk",
    "digest-uri": "imap/elwood.innosoft.com",
    "qop": "auth",
}


def test_digest_computes_the_values_of_rfc_2831() -> None:
    response = sasl.digest_response(RFC_2831, "secret", "AUTHENTICATE")
    assert response == "d388dad90d4bbd760a152321f2143af7"
    assert sasl.digest_response(RFC_2831, "secret", "") == "ea40f60335c427b5527b84dbabcdfffd"


def digest(**changes: str) -> bytes:
    given = RFC_2831 | {"digest-uri": "smtp/elwood.innosoft.com"} | changes
    given.setdefault("response", sasl.digest_response(given, "secret", "AUTHENTICATE"))
    return ",".join(f'{key}="{value}"' for key, value in given.items()).encode()


def test_digest_md5_lets_in_and_proves_itself_in_turn() -> None:
    exchange = sasl.digest_md5(passwords, "OA6MG9tEQGm2hh", "elwood.innosoft.com")
    assert b'nonce="OA6MG9tEQGm2hh"' in next(exchange)
    uri = {"digest-uri": "smtp/elwood.innosoft.com"}
    expected = sasl.digest_response(RFC_2831 | uri, "secret", "")
    assert exchange.send(digest()) == f"rspauth={expected}".encode()
    with pytest.raises(StopIteration) as end:
        exchange.send(b"")
    assert end.value.value == "chris"


@pytest.mark.parametrize(
    "changes",
    [
        {"nonce": "replayed"},
        {"nc": "00000002"},
        {"qop": "auth-int"},
        {"digest-uri": "imap/elwood.innosoft.com"},
        {"response": "0" * 32},
        {"username": "nobody"},
    ],
)
def test_digest_md5_refuses_what_does_not_fit(changes: dict[str, str]) -> None:
    with pytest.raises(sasl.LoginRefused):
        talk("DIGEST-MD5", digest(**changes), nonce="OA6MG9tEQGm2hh")


def test_digest_md5_refuses_an_answer_without_its_parts() -> None:
    with pytest.raises(sasl.LoginRefused):
        talk("DIGEST-MD5", b'username="chris"')
