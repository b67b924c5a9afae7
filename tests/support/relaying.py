"""A worker's relay at work in this process: real Redis, real TLS, only the far end is made."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from proxy.config import Settings
from proxy.metrics import relaying
from tests.support.far_end import SMTP_TOKEN, FarEnd
from worker.claims import Claims
from worker.daemon import Relay


def settings_for(far_end: FarEnd, data_dir: Path, **sections: Any) -> Settings:
    """Return settings that lead to `far_end`, with its token in a file of `data_dir`."""
    token = data_dir / "token"
    if not token.exists():
        token.write_text(far_end.token)
    postmark = far_end.postmark(**sections.pop("postmark", {}))
    streams = sections.pop("streams", {"outbound": {"token": {"file": str(token)}}})
    return Settings.model_validate({"postmark": postmark, "streams": streams, **sections})


def login_without_api(data_dir: Path) -> dict[str, Any]:
    """Return [streams] with a login by which Postmark cannot be asked what became of mail."""
    key, secret = data_dir / "access", data_dir / "secret"
    key.write_text(SMTP_TOKEN.access_key)
    secret.write_text(SMTP_TOKEN.secret_key)
    return {"outbound": {"access_key": {"file": str(key)}, "secret_key": {"file": str(secret)}}}


@asynccontextmanager
async def relay_at_work(settings: Settings, data_dir: Path) -> AsyncIterator[Relay]:
    """Run a relay on the Redis of `data_dir`; end it as SIGTERM does."""
    claims = Claims(settings, data_dir, list(settings.streams), number=1)
    relay = Relay(settings, claims)
    await claims.start()
    running = asyncio.create_task(relay.run())
    try:
        yield relay
    finally:
        relay.stop()
        await running


def sample(name: str, registry: CollectorRegistry = relaying.REGISTRY, **labels: str) -> float:
    """Return the value of one metric now; 0 where it was never set."""
    return registry.get_sample_value(name, labels) or 0.0
