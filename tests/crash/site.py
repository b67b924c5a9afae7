"""One round carried out: all started, disturbed as planned, mended, emptied, accounted for."""

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import redis

from proxy.sandbox.account import TOKEN
from proxy.sandbox.certificates import Authority
from tests.crash import disk
from tests.crash.account import Account, Happening, make_account, read_log
from tests.crash.far_end import DEAD, SMTP_TOKENS, Record, Taking
from tests.crash.load import SENDERS, Load
from tests.crash.parts import Part
from tests.crash.plan import Blow, Plan
from tests.crash.stored import Job, read_jobs, read_journals, rewrite
from tests.support.processes import Installation, franker_command, free_port

STREAMS = ("outbound", "broadcasts")

ASK_FOR = "20s"
"""How long a message is looked for at the far end: a quarter of it is longer than that is away."""

_START_S = 30.0
_DRAIN_S = 90.0
_IDLE_S = 15.0  # an empty queue may still be filled from elsewhere, but not after so long
_POLL_S = 0.1
_ORDER_S = 2.0


@dataclass(frozen=True, slots=True)
class Demands:
    """How strict to be.

    `api`: the program may ask the Messages API, so nothing comes twice.
    `journal`: the program keeps mail while Redis is away, so nothing is refused.
    """

    api: bool = False
    journal: bool = False
    rate: float = 240.0


@dataclass(frozen=True, slots=True)
class Result:
    """A round with its account. `faults` are the reasons why it does not pass, in words."""

    plan: Plan
    account: Account
    faults: tuple[str, ...]
    rate: float
    drain_s: float
    missed: int


class Site:
    """The processes of one round in `folder`, whose name must be short (a socket is in it)."""

    def __init__(self, folder: Path, plan: Plan, demands: Demands) -> None:
        self._plan = plan
        self._demands = demands
        self._folder = folder
        self._far_folder = folder / "far"
        self._ports = [free_port() for _ in range(3)]
        self._http = free_port()
        self._installation = Installation(folder, self._sections())
        self._data_dir = self._installation.data_dir
        self._data_dir.mkdir(mode=0o700)
        self._socket = self._data_dir / "redis.sock"
        self._parts = self._make_parts()
        self._record = Record(self._far_folder)
        self._taken: list[Taking] = []
        self._happenings: list[Happening] = []
        self._faults: list[str] = []
        self._missed = 0

    # -- what it is made of

    def _sections(self) -> dict[str, Any]:
        logins: dict[str, Any] = {}
        for stream, kind in zip(STREAMS, ("transactional", "broadcast"), strict=True):
            if self._demands.api:
                login: dict[str, Any] = {"token": {"env": "CRASH_TOKEN"}}
            else:
                login = {
                    "access_key": {"env": f"CRASH_{stream.upper()}_ACCESS"},
                    "secret_key": {"env": f"CRASH_{stream.upper()}_SECRET"},
                }
            logins[stream] = {"kind": kind, **login}
        return {
            "postmark": {
                "transactional_host": "127.0.0.1",
                "broadcast_host": "127.0.0.2",
                "ports": self._ports,
                "ca_file": str(Authority(self._far_folder).ca_file),
                "api_url": f"http://127.0.0.1:{self._http}",
                "ask_for": ASK_FOR,
            },
            "retry": {"first": "1s", "cap": "2s"},
            "log": {"format": "json"},
            "journal": {"disk_floor": "20MB" if self._plan.small_disk else "200MB"},
            "streams": logins,
            "rules": [
                {"name": "news", "sender": SENDERS[1], "stream": "broadcasts"},
                {"name": "void", "sender": SENDERS[2], "action": "discard"},
            ],
        }

    def _make_parts(self) -> dict[str, Part]:
        environ = dict(self._installation.environ)
        environ["CRASH_TOKEN"] = TOKEN
        for token in SMTP_TOKENS:
            environ[f"CRASH_{token.stream.upper()}_ACCESS"] = token.access_key
            environ[f"CRASH_{token.stream.upper()}_SECRET"] = token.secret_key
        config = ("--config", str(self._installation.config))
        commands = {
            "far_end": [
                *(sys.executable, "-m", "tests.crash.far_end", "--folder", str(self._far_folder)),
                *("--http", str(self._http), "--ports", ",".join(map(str, self._ports))),
            ],
            "redis": franker_command("redis", *config),
            "proxy": franker_command("proxy", *config),
        }
        for number in range(1, self._plan.workers + 1):
            arguments = ("worker", "--number", str(number), *config)
            commands[f"worker{number}"] = franker_command(*arguments)
        return {
            name: Part(name, command, self._folder, environ) for name, command in commands.items()
        }

    # -- the round

    async def run(self) -> Result:
        """Carry the round out."""
        with contextlib.ExitStack() as stack:
            if self._plan.small_disk:
                stack.enter_context(disk.small_disk(self._data_dir))
            try:
                async with aiohttp.ClientSession(
                    timeout=aiohttp.ClientTimeout(total=_ORDER_S)
                ) as self._orders:
                    return await self._run()
            finally:
                for part in self._parts.values():
                    part.kill()

    async def _run(self) -> Result:
        await self._start()
        load = Load(
            f"{self._plan.seed}/{self._plan.number}",
            self._installation.smtp_port,
            rate=self._demands.rate,
            seconds=self._plan.load_s,
        )
        watch = asyncio.create_task(self._watch())
        try:
            await asyncio.gather(load.run(), *(self._deal(blow) for blow in self._plan.blows))
            began = time.monotonic()
            await self._mend()
            await self._drain(load)
            drain_s = time.monotonic() - began
        finally:
            watch.cancel()
            await asyncio.gather(watch, return_exceptions=True)
        jobs = await self._end()
        self._taken += self._record.more()
        told = read_log(self._log_lines())
        account = make_account(load.messages, self._taken, jobs, told, self._happenings)
        self._judge(account)
        defects = Counter(text[-2000:] for text in told.defects)
        self._faults += [f"defect, {count} times: {text}" for text, count in defects.items()]
        rate = account.kept_messages / load.seconds
        return Result(self._plan, account, tuple(self._faults), rate, drain_s, self._missed)

    async def _start(self) -> None:
        parts = self._parts.values()
        for part in parts:
            part.start()
        async with asyncio.timeout(_START_S):
            for part in parts:
                while not part.has_said("started"):
                    if not part.running:
                        raise AssertionError(f"{part.name}: {part.lives[-1].log.read_text()}")
                    await asyncio.sleep(_POLL_S)

    def _judge(self, account: Account) -> None:
        self._faults += [f"lost: {one}" for one in account.lost]
        self._faults += account.findings
        for one in account.repeats:
            if not one.why or self._demands.api:
                self._faults.append(
                    f"sent twice: {one.id} to {', '.join(one.recipients[:3])} and so on, "
                    f"{len(one.recipients)} in all, at {one.first_at:.3f} and {one.again_at:.3f}: "
                    f"{one.why or 'nobody knows why'}"
                )
        if self._demands.journal and account.refused_messages and not self._plan.small_disk:
            self._faults.append(f"{account.refused_messages} messages refused")

    def _log_lines(self) -> list[str]:
        return [
            line
            for part in self._parts.values()
            for life in part.lives
            if part.name not in ("redis", "far_end")
            for line in life.log.read_text(encoding="utf-8", errors="replace").splitlines()
        ]

    # -- what is done to it

    async def _deal(self, blow: Blow) -> None:
        await asyncio.sleep(blow.at)
        if blow.kind == "network":
            await self._disturb_network(blow)
        elif blow.kind == "cut":
            since = time.time()
            await self._order("DELETE", "/sandbox/connections")
            self._note(since, blow.victim)
        elif blow.kind == "rewrite":
            with contextlib.suppress(redis.RedisError, OSError):
                await asyncio.to_thread(rewrite, self._socket)
        elif blow.kind == "fill":
            since = time.time()
            await asyncio.to_thread(disk.fill, self._data_dir)
            await asyncio.sleep(blow.seconds)
            disk.free(self._data_dir)
            self._note(since, blow.victim)
        else:
            part = self._parts[blow.victim]
            async with part.turn:
                await self._disturb(part, blow)

    async def _disturb(self, part: Part, blow: Blow) -> None:
        since = time.time()
        if not part.running:
            self._missed += 1
            return
        if blow.kind == "stop":
            part.signal(signal.SIGSTOP)
            await asyncio.sleep(blow.seconds)
            part.signal(signal.SIGCONT)
        elif blow.kind == "term":
            if wrong := await part.end():
                self._faults.append(wrong)
            await asyncio.sleep(blow.seconds)
            part.start()
        else:
            part.kill()
            await asyncio.sleep(blow.seconds)
            part.start()
        self._note(since, f"{blow.kind} {part.name}")

    async def _disturb_network(self, blow: Blow) -> None:
        fault = dict(blow.fault)
        place = fault.pop("port", None)
        if place is not None:
            fault["port"] = self._ports[place]
        since = time.time()
        answer = await self._order("POST", "/sandbox/faults", fault)
        if "number" not in answer:
            self._missed += 1
            return
        await asyncio.sleep(blow.seconds)
        await self._order("DELETE", f"/sandbox/faults/{answer['number']}")
        self._note(since, blow.victim)

    async def _order(
        self, verb: str, path: str, body: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Give the far end an order; {} when it does not hear it just now."""
        url = f"http://127.0.0.1:{self._http}{path}"
        try:
            async with self._orders.request(verb, url, json=body) as answer:
                return json.loads(await answer.text()) if answer.status == 200 else {}
        except (aiohttp.ClientError, TimeoutError, OSError):
            return {}

    def _note(self, since: float, what: str) -> None:
        self._happenings.append(Happening(since, time.time(), what))

    async def _watch(self) -> None:
        """Start again what has ended by itself, as the supervisor would."""
        while True:
            await asyncio.sleep(_POLL_S)
            for part in self._parts.values():
                if part.running or part.turn.locked():
                    continue
                async with part.turn:
                    part.note_end()
                    if not (part.name == "redis" and self._plan.small_disk):
                        self._faults.append(f"{part.name} ended by itself with {part.exit_code}")
                    since = time.time()
                    await asyncio.sleep(0.3)
                    part.start()
                    self._note(since, f"end of {part.name}")

    # -- its end

    async def _mend(self) -> None:
        """Take every fault back; connections that hang are cut: their far end is gone."""
        async with asyncio.timeout(_START_S):
            while "faults" not in (found := await self._order("GET", "/sandbox/faults")):
                await asyncio.sleep(_POLL_S)
        for fault in found["faults"]:
            if fault["address"] != f"{DEAD}*":
                await self._order("DELETE", f"/sandbox/faults/{fault['number']}")
        since = time.time()
        await self._order("DELETE", "/sandbox/connections")
        self._note(since, "the cut at the end")

    async def _drain(self, load: Load) -> None:
        """Wait until nothing is left to be sent."""
        wanted = {
            one
            for message in load.messages
            if message.fate == "kept" and message.sender != SENDERS[2]
            for one in message.recipients
        }
        idle_since = time.monotonic()
        deadline = idle_since + _DRAIN_S
        jobs: list[Job] = []
        while time.monotonic() < deadline:
            for taking in self._record.more():
                self._taken.append(taking)
                wanted.difference_update(taking.recipients)
            try:
                jobs = await asyncio.to_thread(self._read_jobs)
            except (redis.RedisError, OSError):
                await asyncio.sleep(_POLL_S)
                continue
            if all(job.dead for job in jobs):
                wanted.difference_update(*(job.recipients for job in jobs))
                if not wanted or time.monotonic() > idle_since + _IDLE_S:
                    return  # what is still wanted is lost
            else:
                idle_since = time.monotonic()
            await asyncio.sleep(_POLL_S)
        stuck = [job for job in jobs if not job.dead]
        self._faults.append(
            f"not empty {_DRAIN_S:.0f} s after all was mended: {len(stuck)} jobs, "
            f"{len(wanted)} recipients unsettled: {sorted(wanted)[:3]} {stuck[:3]}"
        )

    def _read_jobs(self) -> list[Job]:
        return read_jobs(self._socket, STREAMS)

    async def _end(self) -> list[Job]:
        """End everything in order, Redis last; return what is in Redis before that."""
        jobs: list[Job] = []
        for name in (*(n for n in self._parts if n.startswith("worker")), "proxy", "redis"):
            if name == "redis":
                jobs = await asyncio.to_thread(self._read_jobs)
                jobs += read_journals(self._data_dir / "journal")
            if wrong := await self._parts[name].end():
                self._faults.append(wrong)
        return jobs
