"""What differs between two configurations, and what of it needs a restart."""

from typing import Any

from proxy.config import Settings, as_far_as_possible, changed_keys

FIXED = ("data_dir", "redis", "listen.http", "listen.smtp")


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


def test_keys_that_differ_are_named_as_a_file_writes_them() -> None:
    before = settings(notify={"from": "a@example.com"}, streams={"billing": {}, "gone": {}})
    after = settings(
        data_dir="/srv/franker",
        notify={"from": "b@example.com"},
        streams={"billing": {"id": "bills"}, "new": {}},
        rules=[{"name": "one"}],
    )
    assert changed_keys(before, after) == (
        "data_dir",
        "notify.from",
        "streams.billing",
        "streams.gone",
        "streams.new",
        "rules",
    )


def test_nothing_differs_between_equal_configurations() -> None:
    assert changed_keys(settings(rules=[{"tag": "x"}]), settings(rules=[{"tag": "x"}])) == ()


def test_what_needs_a_restart_stays_as_it_runs_and_is_named_and_the_rest_holds() -> None:
    running = settings(redis={"url": "redis://127.0.0.1:1/0"}, retry={"first": "30s"})
    after = settings(
        data_dir="/srv/franker",
        redis={"url": "redis://127.0.0.1:2/0", "max_memory": "1MB"},
        listen={"http": "127.0.0.1:1", "max_recipients": 7},
        retry={"first": "10s"},
    )
    held, waiting = as_far_as_possible(running, after, FIXED)
    assert waiting == ("data_dir", "listen.http", "redis.url", "redis.max_memory")
    assert (held.data_dir, held.redis) == (running.data_dir, running.redis)
    assert held.listen.http == running.listen.http
    assert (held.listen.max_recipients, held.retry.first) == (7, 10.0)


def test_what_is_said_of_an_address_changes_without_a_restart() -> None:
    running = settings(listen={"smtp": ["127.0.0.1:25", "[::1]:25"]})
    closed = {"address": "[::1]:25", "allow": []}
    after = settings(listen={"smtp": ["127.0.0.1:25", closed]})
    held, waiting = as_far_as_possible(running, after, FIXED)
    assert waiting == ()
    assert held.listen.smtp[1].allow == ()


def test_an_address_that_comes_or_goes_needs_a_restart_and_the_others_change_at_once() -> None:
    running = settings(listen={"smtp": ["127.0.0.1:25", "[::1]:25"]})
    after = settings(listen={"smtp": [{"address": "127.0.0.1:25", "auth": "accept"}, "unix:/a"]})
    held, waiting = as_far_as_possible(running, after, FIXED)
    assert waiting == ("listen.smtp",)
    assert [(one.address, one.auth) for one in held.listen.smtp] == [
        ("127.0.0.1:25", "accept"),
        ("[::1]:25", ""),
    ]
