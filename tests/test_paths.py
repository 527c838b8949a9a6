"""Where the tool keeps what it made for itself."""

from __future__ import annotations

import pwd
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.paths import cache_dir


def test_the_cache_lies_where_the_user_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QWEN_PACK_CACHE", "mine")
    assert cache_dir() == tmp_path / "mine"


def test_a_user_without_a_home_is_told_to_name_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(number: int) -> None:
        raise KeyError(number)

    for name in ("HOME", "XDG_CACHE_HOME", "QWEN_PACK_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    with pytest.raises(PackError, match="no home folder") as caught:
        cache_dir()
    assert caught.value.exit_code == ExitCode.USAGE
