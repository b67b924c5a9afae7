"""Where the drop folder is, found without reading more of the configuration than that needs."""

import os
from _collections_abc import Mapping

DATA_DIR = "/var/lib/franker"
FOLDER = "/var/spool/franker/drop"
"""The folder that belongs to `DATA_DIR`; another data folder has its own, "drop"."""

CONFIG = "/etc/franker/franker.toml"
ADDRESSES = ("127.0.0.1:25", "[::1]:25")
"""Where the proxy listens when nobody says otherwise."""


def drop_folder(environ: Mapping[str, str]) -> str:
    """Return the drop folder: as the environment says, else the configuration, else the default.

    A configuration that cannot be read, or makes no sense, says nothing.
    """
    said = environ.get("FRANKER_DROP__FOLDER", "")
    data_dir = environ.get("FRANKER_DATA_DIR", "")
    if not said:
        folder, folder_of_data = _configured(environ.get("FRANKER_CONFIG") or CONFIG)
        said, data_dir = folder, data_dir or folder_of_data
    return folder_of(said, data_dir)


def folder_of(said: str, data_dir: str) -> str:
    """Return the drop folder where `drop.folder` and `data_dir` are these, "" when not set. Pure.

    The proxy asks here, too: both must come to the same folder.
    """
    if said:
        return said
    if data_dir and os.path.normpath(data_dir) != DATA_DIR:
        return os.path.join(data_dir, "drop")
    return FOLDER


def _configured(path: str) -> tuple[str, str]:
    """Return drop.folder and data_dir as the file says them, each "" where it does not."""
    try:
        with open(path, "rb") as file:
            octets = file.read(1_000_000)
    except OSError:
        return "", ""
    if not any(_says(line) for line in octets.split(b"\n")):
        return "", ""  # tomllib takes longer to load than the message takes to be kept
    import tomllib

    try:
        table = tomllib.loads(octets.decode())
    except ValueError:
        return "", ""
    drop = table.get("drop")
    folder = drop.get("folder", "") if isinstance(drop, dict) else ""
    data_dir = table.get("data_dir", "")
    return (
        folder if isinstance(folder, str) else "",
        data_dir if isinstance(data_dir, str) else "",
    )


def _says(line: bytes) -> bool:
    line = line.strip()
    if line.startswith(b"#"):
        return False
    return (b"folder" in line and b'""' not in line) or (
        b"data_dir" in line and DATA_DIR.encode() + b'"' not in line
    )
