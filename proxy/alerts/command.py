"""`notify.command`: a program that tells people, given the text on its standard input."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Sequence

PATIENCE_S = 30.0
_HEAD_OCTETS = 1000
_LAST_WORDS_S = 1.0


class Command:
    """`argv`, run without a shell; it and what it started end after `patience` seconds."""

    def __init__(self, argv: Sequence[str], patience: float = PATIENCE_S) -> None:
        self._argv = tuple(argv)
        self._patience = patience

    async def run(self, text: str) -> str:
        """Run it with `text`; return "" when it ended with 0, else what went wrong."""
        name = self._argv[0]
        # A pipe of our own: asyncio sees no end while something left behind holds on to one of its.
        ours, its = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *self._argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=its,
                start_new_session=True,  # so that what it starts can be ended with it
            )
        except (OSError, ValueError) as error:
            os.close(ours)
            return f"{name} cannot be run: {error}"
        finally:
            os.close(its)
        assert process.stdin is not None
        complaint = asyncio.create_task(_head(ours))
        try:
            async with asyncio.timeout(self._patience):
                # It need not read it. uvloop's word for a pipe that is closed is RuntimeError.
                with contextlib.suppress(ConnectionError, RuntimeError):
                    process.stdin.write(text.encode())
                    process.stdin.close()
                    await process.stdin.wait_closed()
                code = await process.wait()
        except TimeoutError:
            await _kill(process)
            return f"{name} did not end within {self._patience:g} s"
        except asyncio.CancelledError:
            await _kill(process)
            raise
        finally:
            await asyncio.wait({complaint}, timeout=_LAST_WORDS_S)
            complaint.cancel()
        if code == 0:
            return ""
        said = complaint.result() if complaint.done() and not complaint.cancelled() else ""
        how = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        return f"{name} {how}: {said}" if said else f"{name} {how}"


async def _kill(process: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    await process.wait()


async def _head(pipe: int) -> str:
    """Read all there is in `pipe`, and return its beginning; closes it.

    By a reader and not by a transport: uvloop's closes its descriptor one turn after it was told
    to, whoever may have that number by then.
    """
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    os.set_blocking(pipe, False)
    loop.add_reader(pipe, readable.set)
    head = b""
    try:
        while octets := await _read(pipe, readable):
            head += octets[: _HEAD_OCTETS - len(head)]
        return head.decode("utf-8", "backslashreplace").strip()
    finally:
        loop.remove_reader(pipe)
        os.close(pipe)


async def _read(pipe: int, readable: asyncio.Event) -> bytes:
    while True:
        await readable.wait()
        readable.clear()
        with contextlib.suppress(BlockingIOError):
            return os.read(pipe, 4096)
