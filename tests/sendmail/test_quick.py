"""The program that starts franker-sendmail quickly."""

import shutil
import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT

PACKAGES = f"lib/python3.{sys.version_info.minor}/site-packages"


def environment(folder: Path) -> Path:
    """Make an environment with nothing but sendmail's code in it."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    code = folder / PACKAGES / "proxy"
    shutil.copytree(ROOT / "proxy/sendmail", code / "sendmail")
    (code / "__init__.py").touch()
    return folder


def call(*command: str | Path) -> str:
    done = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, check=True, cwd="/", env={}
    )
    return done.stdout


def test_it_runs_isolated_by_any_name_from_any_place(tmp_path: Path) -> None:
    made = environment(tmp_path / "one")
    program = made / "bin/franker-sendmail"
    call(made / "bin/python", "-I", "-m", "proxy.sendmail.quick", program)
    assert program.read_text().startswith(f"#!{made}/bin/python -IS\n")
    assert program.stat().st_mode & 0o777 == 0o755
    (tmp_path / "newaliases").symlink_to(program)
    assert "aliases" in call(tmp_path / "newaliases")


def test_it_moves_with_its_environment(tmp_path: Path) -> None:
    made = environment(tmp_path / "one")
    call(made / "bin/python", "-I", "-m", "proxy.sendmail.quick", made / "bin/franker-sendmail")
    moved = made.rename(tmp_path / "other")
    program = moved / "bin/franker-sendmail"
    text = program.read_text()
    assert str(tmp_path) not in text.partition("\n")[2]
    program.write_text(text.replace(f"#!{made}/", f"#!{moved}/"))
    assert "aliases" in call(program, "-bi")
