"""X-PM-* fields: what the rule says, what the client may say, and Postmark's limits."""

import pytest

from tests.support.mail import MESSAGE_ID, accepted, field, fields, policy, read

PLAIN = "From: a@example.com\nSubject: s\nDate: x\nMessage-ID: <x@y>\nMIME-Version: 1.0\n"


def marked(own: str = "", **rule):
    given = policy({"name": "r", **rule}) if rule else policy()
    return accepted(f"{PLAIN}{own}\nbody\n", given)


def test_every_message_names_its_stream_and_our_id_and_keeps_its_message_id():
    octets = marked().job.body
    assert field(octets, "X-PM-Message-Stream") == "outbound"
    assert field(octets, "X-PM-Metadata-franker-id") == MESSAGE_ID
    assert field(octets, "X-PM-KeepID") == "true"


def test_the_streams_id_at_postmark_is_named_where_it_differs():
    given = policy(
        {"name": "r", "stream": "news"}, streams={"outbound": {}, "news": {"id": "news-2026"}}
    )
    accepted_ = accepted(f"{PLAIN}\nbody\n", given)
    assert accepted_.job.stream == "news"
    assert field(accepted_.job.body, "X-PM-Message-Stream") == "news-2026"


@pytest.mark.parametrize(
    "own",
    [
        "X-PM-Message-Stream: broadcast\n",
        "x-pm-message-stream: a\nX-PM-MESSAGE-STREAM: b\n",
        "X-PM-Message-Stream : broadcast\n",
        "X-PM-Message-Stream:\n broadcast\n",
    ],
)
def test_the_clients_own_stream_never_counts(own):
    taken = marked(own)
    assert field(taken.job.body, "X-PM-Message-Stream") == "outbound"
    assert taken.repairs == ("marks",)


def test_a_stream_hidden_behind_a_bare_line_feed_never_counts():
    content = PLAIN.replace("\n", "\r\n").encode()
    content += b"X-A: b\nX-PM-Message-Stream: broadcast\rX-PM-Tag: t\r\n\r\nx\r\n"
    octets = accepted(content).job.body
    assert field(octets, "X-PM-Message-Stream") == "outbound"
    assert field(octets, "X-PM-Tag") == "t"


@pytest.mark.parametrize(
    "own",
    [
        "X-Postmark-Server-Token: 1234\n",
        "X-PM-Bounce-Type: HardBounce\n",
        "X-PM-RCPT: a@b\n",
        "X-PM-Track-Opens: true\n",
        "X-PM-TrackLinks: Sometimes\n",
        "X-PM-TrackOpens: maybe\n",
        "X-PM-KeepID: perhaps\n",
        "X-PM-Metadata-franker-id: mine\n",
    ],
)
def test_what_the_client_may_not_say_or_postmark_does_not_know_is_removed(own):
    taken = marked(own)
    name, _, value = own.strip().partition(": ")
    assert value not in fields(taken.job.body, name)
    assert taken.repairs == ("marks",)


def test_the_clients_tag_tracking_metadata_and_keepid_are_let_through():
    taken = marked(
        "X-PM-Tag: mine\nX-PM-TrackOpens: True\nX-PM-TrackLinks: htmlonly\n"
        "X-PM-Metadata-Order-Id: 4711\nX-PM-KeepID: true\n"
    )
    octets = taken.job.body
    assert field(octets, "X-PM-Tag") == "mine"
    assert field(octets, "X-PM-TrackOpens") == "true"
    assert field(octets, "X-PM-TrackLinks") == "HtmlOnly"
    assert field(octets, "X-PM-Metadata-Order-Id") == "4711"
    assert field(octets, "X-PM-KeepID") == "true"
    assert taken.repairs == ()


def test_the_rules_word_stands_before_the_clients():
    octets = marked(
        "X-PM-Tag: mine\nX-PM-TrackOpens: true\nX-PM-TrackLinks: None\nX-PM-Metadata-APP: mine\n"
        "X-PM-Metadata-other: kept\nX-PM-KeepID: true\n",
        tag="rule",
        track_opens=False,
        track_links="TextOnly",
        metadata={"App": "rule"},
        keep_id=False,
    ).job.body
    assert field(octets, "X-PM-Tag") == "rule"
    assert field(octets, "X-PM-TrackOpens") == "false"
    assert field(octets, "X-PM-TrackLinks") == "TextOnly"
    assert field(octets, "X-PM-Metadata-App") == "rule"
    assert field(octets, "X-PM-Metadata-other") == "kept"
    assert fields(octets, "X-PM-KeepID") == []


def test_a_client_that_wants_a_new_message_id_gets_one():
    assert fields(marked("X-PM-KeepID: false\n").job.body, "X-PM-KeepID") == []


def test_a_tag_that_is_too_long_is_cut():
    taken = marked("X-PM-Tag: " + "word " * 300 + "\n")
    assert field(taken.job.body, "X-PM-Tag") == ("word " * 300)[:1000].strip()
    assert "limits" in taken.repairs


def test_a_tag_that_is_too_long_and_has_no_space_is_cut():
    taken = marked("X-PM-Tag: " + "t" * 1500 + "\n")
    assert read(taken.job.body)["X-PM-Tag"] == "t" * 1000
    assert "limits" in taken.repairs


def test_metadata_beyond_postmarks_limits_is_dropped_and_never_refused():
    taken = marked(
        f"X-PM-Metadata-{'k' * 21}: x\nX-PM-Metadata-long: {'v' * 81}\n"
        f"X-PM-Metadata-{'k' * 20}: {'v' * 80}\n"
    )
    octets = taken.job.body
    assert fields(octets, f"X-PM-Metadata-{'k' * 21}") == []
    assert fields(octets, "X-PM-Metadata-long") == []
    assert field(octets, f"X-PM-Metadata-{'k' * 20}") == "v" * 80
    assert taken.repairs == ("limits",)


def test_metadata_is_at_most_ten_fields_ours_and_the_rules_first():
    own = "".join(f"X-PM-Metadata-c{number}: {number}\n" for number in range(12))
    octets = marked(own, metadata={"r1": "1", "r2": "2"}).job.body
    names = [name.lower() for name in read(octets) if name.lower().startswith("x-pm-meta")]
    assert len(names) == 10
    assert names[:3] == [
        "x-pm-metadata-franker-id",
        "x-pm-metadata-r1",
        "x-pm-metadata-r2",
    ]


def test_a_metadata_key_given_twice_counts_once():
    octets = marked("X-PM-Metadata-a: 1\nX-PM-Metadata-A: 2\n").job.body
    assert fields(octets, "X-PM-Metadata-a") == ["1"]
