"""A Debian in a folder: made by debootstrap once, kept, and borrowed by each test as a copy.

What this host needs of its own to reach package indexes is handed in while packages are fetched,
and only then: a mirror, apt's proxies, pip's settings, authorities. It is found out, not assumed.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("BOOT_CACHE", "/var/tmp/franker-boot"))  # not in /tmp: big
PACKAGES = (
    *("systemd", "systemd-sysv", "dbus", "ca-certificates", "python3", "python3-venv"),
    *("redis-server", "cron", "s-nail", "procps", "iproute2"),
)
MORE = ("gnucobol", "libc6-dev")  # more than debootstrap can resolve
_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
_FILE_URL = re.compile(r"(?:file://)?(/[^\s'\"]+)")


def missing_tools() -> str:
    """Return why no Debian can be booted here, "" when one can."""
    if os.geteuid() != 0:
        return "only root can boot a Debian in a folder"
    lacking = [
        f"{program} (package {package})"
        for program, package in (
            ("debootstrap", "debootstrap"),
            ("systemd-nspawn", "systemd-container"),
            ("nsenter", "util-linux"),
            ("ip", "iproute2"),
        )
        if shutil.which(program) is None
    ]
    return f"not on this host: {', '.join(lacking)}" if lacking else ""


def base_folder(suite: str) -> Path:
    """Return a folder with Debian `suite` and what the tests use in it; made at the first call."""
    folder = CACHE / suite
    if folder.exists():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    new = CACHE / f"{suite}.new-{uuid.uuid4().hex[:8]}"
    keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    command: list[str | Path] = ["debootstrap", "--variant=minbase"]
    command += [f"--include={','.join(PACKAGES)}"]
    command += [f"--keyring={keyring}"] if keyring.exists() else []
    try:
        run(*command, suite, new, mirror())
        _settle(new)
        add_packages(new, *MORE)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def mirror() -> str:
    """Return where this host has its Debian packages from."""
    texts = [
        file.read_text(encoding="utf-8", errors="replace")
        for file in (Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*.*"))
        if file.suffix in (".list", ".sources") and file.exists()
    ]
    found = re.findall(r"^[^#\n]*?(https?://\S+/debian)/?(?:\s|$)", "\n".join(texts), re.MULTILINE)
    return str(found[0]) if found else "http://deb.debian.org/debian"


def _settle(folder: Path) -> None:
    """Make `folder` a host of its own."""
    (folder / "etc/hostname").write_text("legacy\n")
    (folder / "etc/hosts").write_text("127.0.0.1 localhost legacy\n::1 localhost legacy\n")
    (folder / "etc/resolv.conf").unlink(missing_ok=True)
    (folder / "etc/machine-id").write_text("")
    for service in ("redis-server", "systemd-networkd-wait-online"):
        (folder / f"etc/systemd/system/{service}.service").symlink_to("/dev/null")


@contextmanager
def copy_of(base: Path) -> Iterator[Path]:
    """Lend a folder that begins as `base`, which stays as it is."""
    work = CACHE / f"copy-{uuid.uuid4().hex[:8]}"
    upper, inner, merged = work / "upper", work / "work", work / "root"
    for folder in (upper, inner, merged):
        folder.mkdir(parents=True)
    options = f"lowerdir={base},upperdir={upper},workdir={inner}"
    run("mount", "-t", "overlay", "overlay", "-o", options, merged)
    try:
        yield merged
    finally:
        run("umount", "--lazy", merged)
        shutil.rmtree(work, ignore_errors=True)


def add_packages(folder: Path, *packages: str) -> None:
    """Install Debian packages in `folder`, not booted."""
    install = ("apt-get", "install", "--quiet", "--yes", "--no-install-recommends")
    fetch(folder, *install, *packages)


def fetch(folder: Path, *command: str) -> None:
    """Run `command` in `folder`, not booted, with this host's network and ways to its indexes."""
    options = [f"--setenv={name}={value}" for name, value in _settings().items()]
    options += ["--setenv=DEBIAN_FRONTEND=noninteractive"]
    archives = CACHE / "archives"
    archives.mkdir(exist_ok=True)
    options += [f"--bind={archives}:/var/cache/apt/archives"]
    places = [_BUNDLE, Path("/etc/apt/auth.conf.d"), *_local_indexes()]
    options += [f"--bind-ro={place}" for place in places if place.exists()]
    options += [f"--bind-ro={file}" for file in apt_ways()]
    run(
        *("systemd-nspawn", "--quiet", f"--directory={folder}", "--register=no", "--keep-unit"),
        *("--as-pid2", "--pipe", "--resolv-conf=bind-host", *options, *command),
    )


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


def run(*command: str | Path) -> None:
    """Run `command`; fail with what it said when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = f"{done.stderr[-2000:]}\n{done.stdout[-8000:]}"
        raise AssertionError(f"{' '.join(map(str, command))}: exit {done.returncode}\n{said}")


def wheels(suite: str, tree: Path) -> Path:
    """Return a folder with a wheel of `tree` and all that pip needs beside it on Debian `suite`.

    What is beside it is fetched once for each pyproject.toml.
    """
    asked = hashlib.sha256((tree / "pyproject.toml").read_bytes()).hexdigest()[:16]
    folder = CACHE / f"{suite}-wheels-{asked}"
    with tempfile.TemporaryDirectory(prefix="franker-wheel-") as work:
        copy = Path(work, "tree")
        copy.mkdir()
        for name in ("proxy", "worker", "share"):
            shutil.copytree(tree / name, copy / name)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(tree / name, copy)
        pip = [sys.executable, "-m", "pip"]
        run(*pip, "wheel", "--quiet", "--no-deps", f"--wheel-dir={work}", copy)
        wheel = next(Path(work).glob("franker-*.whl"))
        if not folder.exists():
            with copy_of(base_folder(suite)) as there:
                (there / "wheels").mkdir()
                shutil.copy(wheel, there / "wheels")
                command = "python3 -m venv /tmp/v && /tmp/v/bin/pip download --quiet --dest /wheels"
                named = f"/wheels/{wheel.name} 'setuptools>=77' wheel"
                fetch(there, "/bin/sh", "-c", f"{command} {named}")
                shutil.copytree(there / "wheels", folder)
        shutil.copy(wheel, folder)
    return folder
