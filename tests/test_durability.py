"""Judging, without a server, whether a store keeps what it confirms, and how much it may hold."""

import pytest

from proxy.queue.capacity import Room, memory_here, octets_of_mail, room_for_mail
from proxy.queue.durability import Durability, judge, parse_info

SETTINGS = {
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "maxmemory-policy": "noeviction",
    "min-replicas-to-write": "0",
}
INFO = {"role": "master", "aof_enabled": "1", "aof_last_write_status": "ok"}


def test_a_server_that_syncs_each_write_is_durable():
    assert judge(SETTINGS, INFO) == Durability(durable=True)


@pytest.mark.parametrize(
    ("settings", "info", "reason"),
    [
        ({"appendonly": "no"}, {}, "appendonly is no, needed is yes: CONFIG SET appendonly yes"),
        ({"appendfsync": "everysec"}, {}, "appendfsync is everysec, needed is always"),
        ({"appendfsync": "no"}, {}, "appendfsync is no, needed is always"),
        ({"no-appendfsync-on-rewrite": "yes"}, {}, "no-appendfsync-on-rewrite is yes"),
        ({"maxmemory-policy": "volatile-lru"}, {}, "maxmemory-policy is volatile-lru"),
        ({}, {"role": "slave"}, "the server is a replica"),
        ({}, {"aof_enabled": "0"}, "the append-only file is not in use yet"),
        ({}, {"aof_last_write_status": "err"}, "its last write to the append-only file failed"),
    ],
)
def test_each_way_to_lose_mail_is_named(
    settings: dict[str, str], info: dict[str, str], reason: str
):
    found = judge(SETTINGS | settings, INFO | info)
    assert not found.durable
    assert reason in found.reason


def test_what_cannot_be_read_is_not_durable():
    assert judge(None, INFO).reason == (
        "the server does not show its settings (CONFIG is forbidden)"
    )
    assert not judge({}, INFO).durable
    assert not judge(SETTINGS, {}).durable


def test_behind_sentinel_one_disk_is_not_enough():
    alone = judge(SETTINGS, INFO, replicated=True)
    assert alone.reason == "behind Sentinel min-replicas-to-write is 0, needed is at least 1"
    assert judge(SETTINGS | {"min-replicas-to-write": "1"}, INFO, replicated=True).durable


def test_info_is_read_whatever_it_holds():
    text = b"# Memory\r\nused_memory:42\r\n\r\nos:Linux: \xff\r\n"
    assert parse_info(text) == {"used_memory": "42", "os": "Linux: \ufffd"}


@pytest.mark.parametrize(
    ("asked", "info", "private", "limit"),
    [
        (None, {"total_system_memory": "9000"}, True, 400),  # a cgroup is smaller than its host
        (None, {"total_system_memory": "9000"}, False, 3600),  # elsewhere only its own counts
        (None, {}, False, 400),
        (700, {"total_system_memory": "9000"}, True, 700),
        (700, {"maxmemory": "500"}, True, 450),
        (None, {"maxmemory": "0"}, True, 400),
    ],
)
def test_the_memory_limit_is_what_was_asked_or_a_share_of_what_there_is(
    asked: int | None, info: dict[str, str], private: bool, limit: int
):
    assert room_for_mail(asked, info, private=private, here=1000).limit == limit


def test_only_mail_counts_against_the_limit_and_everything_against_that_of_redis():
    info = {"used_memory": "1000", "used_memory_startup": "700", "used_memory_dataset": "250"}
    assert room_for_mail(600, info, private=True, here=0) == Room(250, 600, "redis.max_memory")
    tight = room_for_mail(600, info | {"maxmemory": "1200"}, private=True, here=0)
    assert (tight.used, tight.limit, tight.key) == (1000, 1080, "90% of Redis's maxmemory")
    assert tight.is_servers
    assert not room_for_mail(600, info | {"maxmemory": "9000"}, private=True, here=0).is_servers


@pytest.mark.parametrize(
    ("info", "mail"),
    [
        # Six messages of 4 MB, as the servers said it: a client's buffer holds the last of them,
        # Lua two. Redis 8 alone counts its Lua.
        ({"used_memory": "30711904", "used_memory_dataset": "25604856"}, 25604856),  # Redis 7.0.15
        ({"used_memory": "38944000", "used_memory_dataset": "25966088"}, 25966088),  # Redis 8.0.2
        ({"used_memory": "29477080", "used_memory_dataset": "24464464"}, 24464464),  # Valkey 9
        # A buffer that was just freed is still taken off, and the server's number has no sign.
        ({"used_memory": "1385888", "used_memory_dataset": str(2**64 - 3_000_000)}, 0),
        ({"used_memory": "1385888"}, 1385888),  # a server that does not tell
        ({}, 0),
    ],
)
def test_what_counts_as_mail_is_what_the_server_counts_as_data(info: dict[str, str], mail: int):
    assert octets_of_mail(info) == mail


def test_a_store_is_full_when_next_to_nothing_fits():
    assert Room(9_600_000, 10_000_000, "").is_full
    assert not Room(9_400_000, 10_000_000, "").is_full
    assert not Room(998_000_000, 1_000_000_000, "").is_full
    assert Room(999_500_000, 1_000_000_000, "").is_full
    assert Room(3, 2, "").is_full


def test_the_memory_of_this_host_is_known():
    assert memory_here() > 10_000_000
