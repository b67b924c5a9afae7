"""How this host reaches its package indexes: found out, not assumed, and handed in on need.

A mirror, apt's proxies, pip's settings, authorities.
"""

import os
import re
import subprocess
from pathlib import Path

_UBUNTU = {"noble": "http://archive.ubuntu.com/ubuntu"}
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_FILE_URL = re.compile(r"(?:file://)?(/[^\s'\"]+)")


def mirror(suite: str) -> str:
    """Return where this host has the packages of `suite` from."""
    kind = "ubuntu" if suite in _UBUNTU else "debian"
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*"))
        if file.suffix in (".list", ".sources") and file.exists()
    ]
    line = rf"^[^#\n]*?(https?://\S+/{kind})/?(?:\s|$)"
    found = re.findall(line, "\n".join(texts), re.MULTILINE)
    return str(found[0]) if found else _UBUNTU.get(suite, "http://deb.debian.org/debian")


def recipe(suite: str) -> list[str]:
    """Return what debootstrap is to be told of `suite` besides its name."""
    ubuntu = suite in _UBUNTU
    name = "ubuntu" if ubuntu else "debian"
    keyring = Path(f"/usr/share/keyrings/{name}-archive-keyring.gpg")
    told = [f"--keyring={keyring}"] if keyring.exists() else []
    return [*told, "--components=main,universe"] if ubuntu else told


def script(suite: str) -> list[str]:
    """Return the script that makes `suite`, where this host's debootstrap is older than that."""
    scripts = Path("/usr/share/debootstrap/scripts")
    return [] if (scripts / suite).exists() or suite not in _UBUNTU else [str(scripts / "gutsy")]


def options() -> list[str]:
    """Return what lets systemd-nspawn's container use what this host has for reaching indexes."""
    places = [_BUNDLE, Path("/etc/apt/auth.conf.d"), *_local_indexes()]
    return [
        *(f"--setenv={name}={value}" for name, value in _settings().items()),
        *(f"--bind-ro={place}" for place in places if place.exists()),
        *(f"--bind-ro={file}" for file in apt_ways()),
    ]


def _settings() -> dict[str, str]:
    """Return pip's settings on this host as environment variables, and who is trusted."""
    names = ("SSL_CERT_FILE", "http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "HTTP_PROXY")
    settings = {name: os.environ[name] for name in names if name in os.environ}
    listed = subprocess.run(
        ["python3", "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    ).stdout
    for section, key, value in re.findall(r"^([\w:]+)\.([\w-]+)='(.*)'$", listed, re.MULTILINE):
        if section in ("global", "install", "download", ":env:"):
            settings[f"PIP_{key.upper().replace('-', '_')}"] = value
    return settings


def _local_indexes() -> list[Path]:
    """Return the folders of this host in which pip looks for packages."""
    found = {
        Path(path)
        for name, value in _settings().items()
        if name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_INDEX_URL", "PIP_CERT")
        for path in _FILE_URL.findall(re.sub(r"https?://\S+", "", value))
    }
    # An index links to its files, which lie beside it.
    return sorted({place.parent if place.name == "simple" else place for place in found})


def apt_ways() -> list[Path]:
    """Return apt's settings on this host that say how to reach its mirrors."""
    return [
        file
        for file in Path("/etc/apt/apt.conf.d").glob("*")
        if re.search(r"proxy|cainfo", file.read_text(errors="replace"), re.IGNORECASE)
    ]
