"""What legacy programs send and Postmark would damage or refuse: mended, and nothing else."""

import base64

import pytest

from proxy.mail.envelope import Client
from proxy.submission import Refusal
from tests.support.mail import (
    MESSAGE_ID,
    accepted,
    body,
    envelope,
    field,
    fields,
    hand_in,
    policy,
    read,
    refusal,
    text,
)

HEADER = (
    "From: App <app@example.com>\nTo: bob@example.net\nSubject: s\n"
    "Date: Fri, 20 Nov 2026 09:43:01 +0000\nMessage-ID: <x@y>\nMIME-Version: 1.0\n"
)


def crlf(text: str, charset: str = "utf-8") -> bytes:
    return text.replace("\n", "\r\n").encode(charset)


def mended(header: str, content: bytes, given=None):
    """Submit HEADER with more fields, and a body of octets; expect a 7-bit result."""
    taken = accepted(crlf(HEADER + header + "\n") + content, given)
    assert taken.job.body.isascii()
    return taken


def test_a_message_that_needs_nothing_comes_through_octet_by_octet():
    content = crlf(
        "X-Odd:no space\nX-Folded: a\n\tb\n  c\nReceived: by x\n"
        + HEADER
        + "X-Empty:\n\nbody  \n.\n"
    )
    taken = accepted(content)
    assert taken.repairs == ()
    assert taken.job.body.endswith(content)
    added = taken.job.body.removesuffix(content).decode().splitlines()
    assert [line.partition(":")[0] for line in added if line[0] != " "] == [
        "Received",
        "X-PM-Message-Stream",
        "X-PM-Metadata-franker-id",
        "X-PM-KeepID",
    ]


def test_received_names_the_client_and_never_the_recipient():
    received = field(accepted(HEADER + "\nx\n").job.body, "Received")
    assert received == (
        "from box (127.0.0.1) by box.office.example with ESMTP id 01m7zzzzzzzzzzzzzzzzzzzzz0; "
        "Fri, 20 Nov 2026 09:43:01 +0000"
    )
    assert " for " not in received
    assert "bob" not in received


@pytest.mark.parametrize("helo", ["x\r\nBcc: a@b", "a b (c)", "é" * 300, "\udcff", ""])
def test_no_greeting_can_break_received(helo):
    octets = accepted(HEADER + "\nx\n", of=envelope(client=Client("10.0.0.1", helo))).job.body
    assert fields(octets, "Bcc") == []
    assert field(octets, "Received").startswith("from ")
    assert len(field(octets, "Received")) < 260


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        (b"a\nb\n", ("line_ends",)),
        (b"a\rb\r", ("line_ends",)),
        (b"a\r\r\nb\r\n", ("line_ends",)),
        (b"a\r\nb\n", ("line_ends",)),
        (b"a\r\nb", ("line_ends",)),
        (b"a\0\r\nb\r\n", ("nul",)),
        (b"a\0\nb\n", ("nul", "line_ends")),
    ],
)
def test_line_ends_become_canonical_and_nul_goes(content, kinds):
    taken = accepted(crlf(HEADER + "\n") + content)
    assert body(taken.job.body) == b"a\r\nb\r\n"
    assert taken.repairs == kinds


def test_a_message_with_bare_line_feeds_is_read_as_one_with_line_ends():
    octets = accepted((HEADER + "Bcc: secret@example.org\n\nbody\n").encode()).job.body
    assert fields(octets, "Bcc") == []
    assert field(octets, "Subject") == "s"
    assert body(octets) == b"body\r\n"


@pytest.mark.parametrize(
    ("written", "charset", "declared"),
    [
        ("Grüße aus Köln\n", "utf-8", "utf-8"),
        ("Grüße aus Köln\n", "windows-1252", "windows-1252"),
        ("Preis: 5 €\n", "windows-1252", "windows-1252"),
    ],
)
def test_undeclared_8_bit_text_becomes_quoted_printable_with_its_charset(
    written, charset, declared
):
    taken = mended("", crlf(written, charset))
    assert field(taken.job.body, "Content-Transfer-Encoding") == "quoted-printable"
    assert read(taken.job.body).get_content_charset() == declared
    assert text(taken.job.body) == written
    assert taken.repairs == ("8bit",)


def test_the_charset_of_undeclared_text_is_that_of_the_configuration():
    taken = mended("", crlf("Zażółć\n", "iso-8859-2"), policy(listen={"charset": "iso-8859-2"}))
    assert text(taken.job.body) == "Zażółć\n"


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("text/plain; charset=iso-8859-2", "iso-8859-2"),
        ('text/plain; format=flowed; charset="ISO-8859-2"', "iso-8859-2"),
        ("text/plain; charset=utf-8", "utf-8"),
        ("text/html; charset=iso-8859-2", "iso-8859-2"),
    ],
)
def test_declared_8_bit_text_keeps_its_charset_and_becomes_quoted_printable(content_type, charset):
    header = f"Content-Type: {content_type}\nContent-Transfer-Encoding: 8bit\n"
    octets = mended(header, crlf("łódź\n", charset)).job.body
    assert field(octets, "Content-Type") == content_type
    assert field(octets, "Content-Transfer-Encoding") == "quoted-printable"
    assert text(octets) == "łódź\n"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "text/plain; charset=us-ascii",
        "text/plain; charset=unknown-8bit",
        "text/plain charset=",
        "text",
        "",
        "; ;",
    ],
)
def test_a_charset_that_cannot_be_right_is_replaced(content_type):
    octets = mended(f"Content-Type: {content_type}\n", crlf("Grüße\n")).job.body
    assert text(octets) == "Grüße\n"
    assert read(octets).get_content_charset() == "utf-8"


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain; a*0*=utf8'en'b; charset*=us-ascii'en'utf-8",
        "text/plain; charset*0=ut; charset*1=f-8",
        "Text/Plain;CHARSET=UTF-8;;",
        'text/plain; charset="utf-8"; name="a;b\\"c"',
    ],
)
def test_a_declared_charset_is_read_however_it_is_written(content_type):
    octets = mended(f"Content-Type: {content_type}\n", crlf("Grüße\n")).job.body
    assert field(octets, "Content-Type") == content_type
    assert b"Gr=C3=BC=C3=9Fe" in octets


@pytest.mark.parametrize("charset", ["punycode", "idna", "hex", "unicode_escape", "x" * 300])
def test_html_that_names_no_charset_of_mail_is_not_believed(charset):
    page = crlf(f"<meta charset={charset}>Grüße\n")
    octets = mended("Content-Type: text/html\n", page).job.body
    assert read(octets).get_content_charset() == "utf-8"


def test_html_that_names_its_charset_is_believed():
    page = '<html><meta http-equiv="Content-Type" content="text/html; charset=iso-8859-2">łódź\n'
    octets = mended("Content-Type: text/html\n", crlf(page, "iso-8859-2")).job.body
    assert read(octets).get_content_charset() == "iso-8859-2"
    assert "łódź" in text(octets)


def test_8_bit_data_becomes_base64():
    data = bytes(range(128, 256)) * 9
    octets = mended("Content-Type: application/pdf\n", data).job.body
    assert field(octets, "Content-Transfer-Encoding") == "base64"
    assert read(octets).get_payload(decode=True) == data + b"\r\n"


@pytest.mark.parametrize(
    "written", ["x" * 999 + "\n", "word " * 400 + "\n", "a\n" + "b" * 5000 + "\nc\n"]
)
def test_lines_over_998_octets_become_quoted_printable(written):
    taken = mended("", crlf(written))
    assert text(taken.job.body) == written
    assert taken.repairs == ("long_lines",)


def test_a_line_of_998_octets_is_left_alone():
    assert accepted(HEADER + "\n" + "x" * 998 + "\n").repairs == ()


def test_base64_in_one_endless_line_is_wrapped():
    data = bytes(range(256)) * 40
    header = "Content-Type: image/png\nContent-Transfer-Encoding: base64\n"
    octets = mended(header, base64.b64encode(data) + b"\r\n").job.body
    assert read(octets).get_payload(decode=True) == data


def test_quoted_printable_with_8_bit_text_in_it_is_encoded_again():
    header = (
        "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n"
    )
    octets = mended(header, crlf("=C3=BC and ü, joined=\n up =3D\n")).job.body
    assert text(octets) == "ü and ü, joined up =\n"


MULTIPART = """\
Content-Type: multipart/mixed; boundary="=_b"
Content-Transfer-Encoding: 8bit

preamble
--=_b
Content-Type: multipart/alternative; boundary=inner

--inner
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: 8bit

Grüße
--inner
Content-Type: text/html; charset=utf-8

<p>plain ascii, spaces kept   </p>
--inner--

--=_b
Content-Type: application/octet-stream; name="Übersicht.bin"
Content-Disposition: attachment; filename="Übersicht.bin"

ä-data
--=_b
Content-Type: text/calendar

BEGIN:VCALENDAR
--=_b--
epilogue
"""


def test_a_multipart_is_mended_in_the_parts_that_need_it_and_nowhere_else():
    taken = accepted(crlf(HEADER + MULTIPART))
    octets = taken.job.body
    assert octets.isascii()
    assert taken.repairs == ("8bit",)
    assert field(octets, "Content-Transfer-Encoding") == "7bit"
    message = read(octets)
    plain, _, data, _ = [part for part in message.walk() if not part.is_multipart()]
    assert text(plain) == "Grüße"
    assert plain["Content-Transfer-Encoding"] == "quoted-printable"
    assert data.get_payload(decode=True) == "ä-data".encode()
    assert data.get_filename() == "Übersicht.bin"
    assert data["Content-Transfer-Encoding"] == "base64"
    untouched = crlf(
        "\n--inner\nContent-Type: text/html; charset=utf-8\n\n"
        "<p>plain ascii, spaces kept   </p>\n--inner--\n\n--=_b\n"
    )
    assert untouched in octets
    assert octets.endswith(
        crlf("--=_b\nContent-Type: text/calendar\n\nBEGIN:VCALENDAR\n--=_b--\nepilogue\n")
    )


@pytest.mark.parametrize(
    "boundary", ["boundary*=utf-8''=_b", 'BOUNDARY = "=_b"', 'boundary="=_b "']
)
def test_a_boundary_is_found_however_it_is_written(boundary):
    octets = accepted(crlf(HEADER + MULTIPART.replace('boundary="=_b"', boundary))).job.body
    assert b"Gr=C3=BC=C3=9Fe" in octets
    assert field(octets, "Content-Type").startswith("multipart/mixed")


def test_a_multipart_without_its_last_boundary_keeps_all_its_text():
    cut = MULTIPART.split("--inner--")[0]
    octets = accepted(crlf(HEADER + cut)).job.body
    assert octets.isascii()
    assert (
        "Grüße" in next(iter(read(octets).walk_text())) if False else b"Gr=C3=BC=C3=9Fe" in octets
    )


def test_a_multipart_without_parts_is_text():
    header = "Content-Type: multipart/mixed; boundary=b\n"
    octets = mended(header, crlf("Grüße\n")).job.body
    assert read(octets).get_content_type() == "text/plain"
    assert text(octets) == "Grüße\n"


def in_parts(count: int, part: str, last: str = "") -> bytes:
    """Return a multipart of `count` parts of which the last has 8-bit text."""
    header = HEADER + "Content-Type: multipart/mixed; boundary=b\n\n"
    return crlf(header + f"--b\n{part}" * (count - 1) + f"--b\n{last}\nGrüße\n--b--\n")


def test_a_message_in_1000_parts_is_mended():
    assert accepted(in_parts(1000, "\ntext\n")).repairs == ("8bit",)


def test_a_message_in_more_parts_than_can_be_mended_quickly_is_refused_in_plain_words():
    outcome = hand_in(in_parts(1001, "\ntext\n"))
    assert isinstance(outcome, Refusal)
    assert outcome.reason == "parts"
    assert str(outcome) == (
        "554 5.6.0 The message has 8-bit text or long lines, and is in too many pieces to have "
        "them encoded here: over 1000 MIME parts, or over 10000 header fields in them; send it "
        "7-bit (quoted-printable, base64)"
    )


def test_parts_within_parts_count_too():
    inner = in_parts(600, "\ntext\n").decode().replace("\r\n", "\n").split("\n\n", 1)[1]
    kind = "Content-Type: multipart/mixed; boundary=b\n\n"
    outer = HEADER + kind.replace("=b", "=outer")
    content = outer + f"--outer\n{kind}{inner}" * 2 + "--outer--\n"
    assert refusal(content).startswith("554 5.6.0 ")


def test_a_message_whose_parts_have_more_fields_than_can_be_mended_quickly_is_refused():
    attached = "Content-Type: message/rfc822\n\n" + "X-Field: ä\n" * 5000
    assert refusal(in_parts(2, "\ntext\n", attached * 2)).startswith("554 5.6.0 ")
    assert accepted(in_parts(2, "\ntext\n", attached)).repairs == ("8bit",)


def test_any_number_of_parts_passes_when_nothing_is_to_be_mended():
    content = in_parts(3000, "\ntext\n").replace("Grüße".encode(), b"Gruss")
    assert accepted(content).repairs == ()


def test_what_nobody_is_shown_of_a_multipart_gets_short_lines_and_keeps_the_others():
    header = HEADER + "Content-Type: multipart/mixed; boundary=b\n\n"
    preamble = "short\n\n" + "ä" * 1100 + "\n" + "y" * 998 + "\n" + "z" * 999 + "\n\n"
    octets = accepted(crlf(header + preamble + "--b\n\ntext\n--b--\n")).job.body
    shown = body(octets).partition(b"--b\r\n")[0].split(b"\r\n")
    question_marks = b"?" * 2200
    assert shown == [
        b"short",
        b"",
        question_marks[:998],
        question_marks[998:1996],
        question_marks[1996:],
        b"y" * 998,
        b"z" * 998,
        b"z",
        b"",
        b"",
    ]


def test_a_forwarded_message_is_mended_inside():
    header = "Content-Type: message/rfc822\nContent-Transfer-Encoding: 8bit\n"
    inner = "From: Jörg <j@example.org>\nSubject: Grüße\n\nSchöne Grüße\n"
    octets = mended(header, crlf(inner)).job.body
    [forwarded] = read(octets).get_payload()
    assert forwarded["Subject"] == "Grüße"
    assert forwarded["From"] == "Jörg <j@example.org>"
    assert text(forwarded) == "Schöne Grüße\n"


SIGNED = [
    'multipart/signed; micalg=pgp-sha256; protocol="application/pgp-signature"; boundary=b',
    'multipart/encrypted; protocol="application/pgp-encrypted"; boundary=b',
    "application/pkcs7-mime; smime-type=signed-data",
    "Application/X-PKCS7-Mime",
    "application/pgp; x-action=sign",
]


@pytest.mark.parametrize("content_type", SIGNED)
def test_signed_and_encrypted_mail_is_never_altered_below_the_header(content_type):
    content = crlf("--b\n\nGrüße " + "x" * 2000 + "\n--b--\n")
    taken = accepted_with_any_body(f"Content-Type: {content_type}\n", content)
    assert body(taken.job.body) == content
    assert taken.repairs == ()


def accepted_with_any_body(header: str, content: bytes):
    return hand_in(crlf(HEADER + header + "\n") + content)


def test_a_signed_part_inside_is_not_altered_while_others_are():
    signed = crlf("Content-Type: multipart/signed; boundary=s\n\n--s\n\nä\n--s--\n")
    content = crlf("--b\n\nGrüße\n--b\n") + signed + crlf("--b--\n")
    taken = accepted_with_any_body("Content-Type: multipart/mixed; boundary=b\n", content)
    assert signed in taken.job.body
    assert b"Gr=C3=BC=C3=9Fe" in taken.job.body


def test_inline_pgp_is_not_altered():
    content = crlf("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nGrüße\n")
    assert body(accepted_with_any_body("", content).job.body) == content


def test_a_dkim_signature_stays_where_from_and_body_stay():
    octets = accepted(f"{HEADER}DKIM-Signature: v=1; b=abc\n\nx\n").job.body
    assert field(octets, "DKIM-Signature") == "v=1; b=abc"


def test_a_dkim_signature_goes_when_the_body_is_mended():
    taken = mended("DKIM-Signature: v=1; b=abc\n", crlf("ü\n"))
    assert fields(taken.job.body, "DKIM-Signature") == []
    assert taken.repairs == ("8bit", "dkim")


def test_a_dkim_signature_goes_when_from_changes():
    content = "From: root\nDKIM-Signature: v=1; b=abc\n\nx\n"
    given = policy(local={"domain": "example.com"})
    assert fields(accepted(content, given).job.body, "DKIM-Signature") == []


@pytest.mark.parametrize(
    ("written", "charset", "expected"),
    [
        ("Grüße", "utf-8", "Grüße"),
        ("Grüße", "windows-1252", "Grüße"),
        ("日本語の件名" * 20, "utf-8", "日本語の件名" * 20),
        ("=?utf-8?q?K=C3=B6ln?= für alle", "utf-8", "Köln für alle"),
        ("a  b   ü", "utf-8", "a  b   ü"),
        ("件名", "iso2022_jp", "件名"),
        ("bell\x07 and escape\x1b[1m", "utf-8", "bell  and escape [1m"),
    ],
)
def test_raw_subjects_become_encoded_words(written, charset, expected):
    taken = accepted(
        crlf(HEADER.replace("Subject: s", f"Subject: {written}"), charset) + b"\r\nx\r\n"
    )
    assert taken.job.body.isascii()
    assert str(read(taken.job.body)["Subject"]) == expected
    assert taken.repairs == ("raw_header",)


@pytest.mark.parametrize("charset", ["utf-8", "windows-1252"])
def test_raw_names_become_encoded_words_and_addresses_stay(charset):
    content = "From: Jörg Müller <j@example.com>\nTo: Käthe <k@example.net>, x@example.net\n\nx\n"
    taken = accepted(crlf(content, charset))
    message = read(taken.job.body)
    assert str(message["From"]) == "Jörg Müller <j@example.com>"
    assert str(message["To"]) == "Käthe <k@example.net>, x@example.net"
    assert taken.job.envelope.mail_from == "j@example.com"


def test_a_raw_from_that_is_local_keeps_its_name():
    given = policy(local={"from": "host@example.com"})
    octets = accepted("From: Jörg <joerg@box>\n\nx\n", given).job.body
    assert str(read(octets)["From"]) == '"Jörg on box.office.example" <host@example.com>'
    assert str(read(octets)["X-Original-From"]) == "Jörg <joerg@box>"


def test_endless_header_lines_are_folded():
    to = ", ".join(f"Person {number} <p{number}@example.net>" for number in range(60))
    refs = " ".join(f"<{number}@example.net>" for number in range(200))
    content = HEADER.replace("To: bob@example.net", f"To: {to}") + f"References: {refs}\n\nx\n"
    taken = accepted(content)
    assert field(taken.job.body, "To") == to
    assert field(taken.job.body, "References") == refs
    assert taken.repairs == ("long_header",)


def test_a_field_with_an_endless_word_becomes_encoded_words():
    taken = accepted(HEADER + "X-Blob: " + "x" * 3000 + "\n\nx\n")
    assert str(read(taken.job.body)["X-Blob"]) == "x" * 3000


def test_an_endless_file_name_is_continued():
    name = "x" * 400 + ".pdf"
    header = f'Content-Disposition: attachment; filename="{"ü" * 200}{name}"\n'
    octets = mended(header, b"x\r\n").job.body
    assert read(octets).get_filename() == "ü" * 200 + name


def test_a_fold_with_nothing_on_it_goes():
    taken = accepted(crlf(HEADER + "X-A: b\n \t\n c\nX-B: d\n \n\nx\n"))
    assert field(taken.job.body, "X-A") == "b c"
    assert body(taken.job.body) == b"x\r\n"


def test_missing_fields_are_added():
    taken = accepted("Subject: s\n\nx\n")
    octets = taken.job.body
    assert field(octets, "From") == "app@example.com"
    assert field(octets, "Date") == "Fri, 20 Nov 2026 09:43:01 +0000"
    assert field(octets, "Message-ID") == f"<{MESSAGE_ID}@example.com>"
    assert field(octets, "MIME-Version") == "1.0"
    assert taken.repairs == ("date", "from", "message_id", "mime_version")


@pytest.mark.parametrize("written", ["From:\n", "From: <>\n", "From: nobody in particular\n"])
def test_a_from_without_an_address_gets_the_senders(written):
    octets = accepted(written + "Subject: s\n\nx\n").job.body
    assert read(octets)["From"].addresses[0].addr_spec == "app@example.com"


def test_without_from_and_sender_the_message_is_from_local_from():
    given = policy(local={"from": "host@example.com"})
    assert field(accepted("S: s\n\nx\n", given, envelope("")).job.body, "From") == (
        "host@example.com"
    )


def test_without_from_sender_and_local_from_it_is_refused():
    assert refusal("S: s\n\nx\n", of=envelope("")) == (
        "550 5.7.1 The message has neither a From field nor a sender: set local.from in "
        "franker.toml"
    )


def test_without_an_empty_line_the_body_begins_where_fields_end():
    taken = accepted(HEADER + "Dear all,\nnote: this is text\n")
    assert body(taken.job.body) == b"Dear all,\r\nnote: this is text\r\n"
    assert taken.repairs == ("blank_line",)


def test_a_text_with_no_header_at_all_is_a_body():
    taken = accepted("just text\nmore\n")
    assert body(taken.job.body) == b"just text\r\nmore\r\n"
    assert field(taken.job.body, "From") == "app@example.com"


@pytest.mark.parametrize("line", ["From app@box Fri Nov 20 09:43:01 2026", ">From x y"])
def test_an_mbox_line_before_the_fields_goes(line):
    taken = accepted(line + "\n" + HEADER + "\nx\n")
    assert line.encode() not in taken.job.body
    assert taken.repairs == ("mbox",)


@pytest.mark.parametrize("content", ["", "\n", " \n\n\t\n"])
@pytest.mark.parametrize(
    "header",
    [
        "",
        "Content-Type: text/html\n",
        "Content-Transfer-Encoding: base64\n",
        "Content-Type: multipart/mixed; boundary=b\n",
    ],
)
def test_an_empty_body_gets_no_text(header, content):
    taken = accepted(HEADER + header + "\n" + content)
    assert body(taken.job.body) == b"(no text)\r\n"
    assert text(taken.job.body) == "(no text)\n"
    assert taken.repairs == ("empty_body",)


def test_a_body_called_base64_without_a_letter_of_it_gets_no_text():
    header = HEADER + "Content-Transfer-Encoding: base64\n\n"
    taken = accepted(header.replace("\n", "\r\n").encode() + b" \xe2\x80\xa8\xc2\x85\r\n")
    assert body(taken.job.body) == b"(no text)\r\n"
    assert text(taken.job.body) == "(no text)\n"
    assert taken.repairs == ("empty_body",)


def test_nothing_at_all_is_still_a_message():
    taken = accepted(b"")
    assert body(taken.job.body) == b"(no text)\r\n"


@pytest.mark.parametrize("name", ["Bcc", "BCC", "Resent-Bcc", "bcc "])
def test_blind_copies_are_never_shown(name):
    octets = accepted(HEADER + f"{name}: hidden@example.org,\n other@example.org\n\nx\n").job.body
    assert b"hidden" not in octets
    assert b"other" not in octets


def test_a_field_that_may_stand_once_counts_once_and_the_first_wins():
    taken = accepted(HEADER + "From: evil@example.org\nSubject: two\nTo: c@example.net\n\nx\n")
    octets = taken.job.body
    assert field(octets, "From") == "App <app@example.com>"
    assert field(octets, "Subject") == "s"
    assert field(octets, "To") == "bob@example.net, c@example.net"
    assert taken.repairs == ("duplicate",)


def test_a_subject_beyond_postmarks_limit_is_cut():
    taken = accepted(HEADER.replace("Subject: s", "Subject: " + "word " * 500) + "\nx\n")
    subject = field(taken.job.body, "Subject")
    assert len(subject) <= 2000
    assert subject.endswith("...")
    assert "limits" in taken.repairs


def test_a_from_beyond_postmarks_limit_loses_the_end_of_its_name():
    taken = accepted(HEADER.replace("App <app", "name " * 60 + "<app") + "\nx\n")
    value = field(taken.job.body, "From")
    assert len(value) <= 255
    assert value.startswith("name name")
    assert value.endswith(" <app@example.com>")
    assert taken.repairs == ("limits",)
