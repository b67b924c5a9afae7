"""Franker's configuration on a new host: the first one, and what it lacks yet."""

import os
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mta

ETC = Path("/etc/franker")


def write(example: Path) -> list[str]:
    """Put a first configuration in place, never over one that is there; return what to do yet."""
    file = ETC / "franker.toml"
    alias = mta.root_alias()
    if not file.exists():
        text = example.read_text(encoding="utf-8")
        if alias:
            line = f'# As `root:` in /etc/aliases says.\npostmaster = "{alias}"\n'
            text = re.sub(r'^postmaster = ""\n', line, text, flags=re.MULTILINE)
            print(f"Mail for root and others of this host goes to {alias}, as in /etc/aliases.")
        file.write_text(text, encoding="utf-8")
        file.chmod(0o644)  # secrets are named in it, never written
    return left_to_do(
        file.read_bytes(),
        alias=alias,
        host=os.uname().nodename,
        has_token=(ETC / "secrets/postmark").exists(),
    )


def left_to_do(written: bytes, *, alias: str, host: str, has_token: bool) -> list[str]:
    """Return, in words, what `written` lacks; of a broken file, `franker check` says more."""
    try:
        settings = tomllib.loads(written.decode())
    except ValueError:
        return []
    table = settings.get("local")
    local = table if isinstance(table, dict) else {}
    file = ETC / "franker.toml"
    to_do = []
    if not (local.get("postmaster") or local.get("aliases_file")):
        what = "cron's mail, and all for root and other users of this host, is refused until\n"
        what += f"local.postmaster in {file} says where it goes"
        if alias:
            what += f"; /etc/aliases says {alias}"
        to_do.append(what)
    if not (local.get("from") or local.get("domain")):
        what = f"mail from a bare root@{host}, such as cron's, is refused until\n"
        what += f"local.from in {file} has an address that Postmark knows as yours"
        to_do.append(what)
    if "secret_postmark" in _credentials(settings) and not has_token:
        what = "nothing leaves yet, all mail is kept: write Postmark's server API token into\n"
        what += f"{ETC}/secrets/postmark, then: systemctl restart 'franker-worker@*'"
        to_do.append(what)
    return to_do


def _credentials(settings: Any) -> Iterator[object]:
    """Give the name of each credential that is wanted anywhere in `settings`."""
    if isinstance(settings, dict):
        yield settings.get("credential")
        settings = list(settings.values())
    if isinstance(settings, list):
        for one in settings:
            yield from _credentials(one)
