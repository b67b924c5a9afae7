"""Failures on demand: the book that decides which one strikes."""

import pytest

from proxy.sandbox.faults import Fault, FaultBook, FaultError


def book(*faults: Fault) -> FaultBook:
    it = FaultBook()
    for fault in faults:
        it.add(fault)
    return it


def strikes(it: FaultBook, at: str, *addresses: str, port: int = 587) -> str:
    fault = it.strike(at, "127.0.0.1", port, addresses or ("",))  # type: ignore[arg-type]
    return fault.reply if fault else ""


def test_an_empty_book_never_strikes() -> None:
    assert strikes(FaultBook(), "mail", "a@b") == ""


def test_a_fault_strikes_at_its_own_moment_only() -> None:
    it = book(Fault(at="mail", reply="451 no"))
    assert strikes(it, "rcpt", "a@b") == ""
    assert strikes(it, "mail", "a@b") == "451 no"


def test_a_fault_can_be_for_one_port() -> None:
    it = book(Fault(at="mail", reply="451 no", port=25))
    assert strikes(it, "mail", port=587) == ""
    assert strikes(it, "mail", port=25) == "451 no"


def test_a_fault_can_be_for_one_host() -> None:
    it = book(Fault(at="mail", reply="451 no", host="127.0.0.2"))
    assert strikes(it, "mail") == ""
    assert it.strike("mail", "127.0.0.2", 587) is not None


def test_an_address_pattern_matches_any_of_the_addresses_without_case() -> None:
    it = book(Fault(at="dot", reply="550 no", address="*@Example.com"))
    assert strikes(it, "dot", "a@else.where", "B@EXAMPLE.COM") == "550 no"
    assert strikes(it, "dot", "a@else.where") == ""


def test_skip_and_times_make_the_nth_time() -> None:
    it = book(Fault(at="rcpt", reply="450 no", skip=1, times=2))
    assert [strikes(it, "rcpt") for _ in range(5)] == ["", "450 no", "450 no", "", ""]


def test_the_next_fault_strikes_when_the_first_is_used_up() -> None:
    it = book(Fault(at="mail", reply="451 one", times=1), Fault(at="mail", reply="452 two"))
    assert [strikes(it, "mail") for _ in range(3)] == ["451 one", "452 two", "452 two"]


def test_a_removed_fault_strikes_no_more() -> None:
    it = FaultBook()
    number = it.add(Fault(at="mail", reply="451 no"))
    assert it.remove(number)
    assert strikes(it, "mail") == ""
    assert not it.remove(number)


def test_a_port_act_is_no_strike() -> None:
    it = book(Fault(at="connect", do="blackhole", port=587))
    assert it.strike("connect", "127.0.0.1", 587) is None
    assert it.port_act("127.0.0.1", 587) == "blackhole"
    assert it.port_act("127.0.0.1", 25) == ""


def test_hidden_extensions_are_those_of_the_port() -> None:
    it = book(Fault(at="ehlo", do="hide", what="starttls", port=25))
    assert it.hidden("127.0.0.1", 25) == {"STARTTLS"}
    assert it.hidden("127.0.0.1", 587) == set()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"at": "lunch", "reply": "451 no"}, "at = 'lunch'"),
        ({"at": "mail", "do": "dance"}, "do = 'dance'"),
        ({"at": "mail"}, "three digits"),
        ({"at": "mail", "reply": "45"}, "three digits"),
        ({"at": "mail", "reply": "451 no", "port": "587"}, "port = '587'"),
        ({"at": "mail", "reply": 451}, "reply = 451"),
        ({"at": "mail", "do": "refuse"}, "goes with at = 'connect'"),
        ({"at": "connect", "do": "refuse", "times": 1}, "no skip, no times"),
        ({"at": "ehlo", "do": "hide"}, "names the extension"),
        (
            {"at": "starttls", "do": "certificate", "what": "ugly"},
            "ending, expired, name or untrusted",
        ),
        ({"at": "tls", "reply": "451 no"}, "drop, reset or hang"),
    ],
)
def test_a_fault_that_could_never_strike_is_refused(values: dict[str, str], why: str) -> None:
    with pytest.raises(FaultError, match=why):
        Fault(**values)  # type: ignore[arg-type]
