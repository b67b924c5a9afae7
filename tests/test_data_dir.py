"""Which folder is used when the configured one is not ours."""

import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.config import ConfigError, Settings, usable_data_dir


@pytest.fixture
def folder_of_others() -> Iterator[Path]:
    """Return a folder that we may enter and not write to, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        as_root = os.geteuid() == 0
        if as_root:
            os.setreuid(65534, 0)  # access(2) asks for the real user
        try:
            yield Path(name)
        finally:
            if as_root:
                os.setreuid(0, 0)
            Path(name).chmod(0o700)


def test_the_configured_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    wanted = tmp_path / "var" / "franker"
    assert usable_data_dir(Settings(data_dir=wanted), {}) == (wanted, None)
    assert stat.S_IMODE(wanted.stat().st_mode) == 0o700


def test_a_folder_that_is_there_is_taken_as_it_is(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    assert usable_data_dir(Settings(data_dir=tmp_path), {}) == (tmp_path, None)
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o750


def test_a_relative_folder_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder, _ = usable_data_dir(Settings(data_dir=Path("data")), {})
    assert folder == tmp_path / "data"


def blocked(tmp_path: Path) -> Path:
    """Return a folder that nobody, root included, can make."""
    (tmp_path / "file").write_text("")
    return tmp_path / "file" / "franker"


def test_without_the_right_it_is_the_users_own_state_folder_and_that_is_said(
    tmp_path: Path,
) -> None:
    wanted = blocked(tmp_path)
    state = tmp_path / "state"
    folder, notice = usable_data_dir(Settings(data_dir=wanted), {"XDG_STATE_HOME": str(state)})
    assert folder == state / "franker"
    assert folder.is_dir()
    assert notice == f"data_dir {wanted}: not a directory; mail is kept in {folder}"


@pytest.mark.parametrize("given", [{}, {"XDG_STATE_HOME": "relative"}, {"XDG_STATE_HOME": ""}])
def test_the_state_folder_is_in_the_home_unless_named(
    given: dict[str, str], tmp_path: Path
) -> None:
    folder, _ = usable_data_dir(
        Settings(data_dir=blocked(tmp_path)), {**given, "HOME": str(tmp_path)}
    )
    assert folder == tmp_path / ".local" / "state" / "franker"


def test_where_no_folder_can_be_had_both_are_named(tmp_path: Path) -> None:
    wanted = blocked(tmp_path)
    with pytest.raises(ConfigError) as caught:
        usable_data_dir(
            Settings(data_dir=wanted), {"XDG_STATE_HOME": str(tmp_path / "file" / "state")}
        )
    assert str(caught.value).splitlines() == [
        "data_dir: 2 faults",
        f"  {wanted}: not a directory",
        f"  {tmp_path}/file/state/franker, tried in its place: not a directory",
    ]


def test_a_folder_without_the_right_to_write_is_not_used(
    folder_of_others: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="no right to write in it"):
        usable_data_dir(
            Settings(data_dir=folder_of_others), {"XDG_STATE_HOME": str(blocked(tmp_path))}
        )


def test_the_right_to_the_socket_of_redis_is_right_enough(folder_of_others: Path) -> None:
    folder_of_others.chmod(0o755)
    (folder_of_others / "redis.sock").touch()
    (folder_of_others / "redis.sock").chmod(0o666)
    folder_of_others.chmod(0o555)
    assert usable_data_dir(Settings(data_dir=folder_of_others), {}) == (folder_of_others, None)
