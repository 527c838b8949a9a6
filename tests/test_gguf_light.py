"""Without llama-cpp-python: F16, BF16, Q8_0 and a named Q4_0 are written with numpy alone, and are
the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from targets.gguf import library
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint

pytestmark = pytest.mark.engine

EMBEDDING_8_BIT = {r"^(token_embd|output)\.weight$": "Q8_0"}


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where the extra was not installed."""
    monkeypatch.setattr(library, "installed", lambda: False)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("preset", "overrides"),
    [("F16", None), ("BF16", None), ("Q8_0", None), ("Q4_0", EMBEDDING_8_BIT)],
)
@pytest.mark.parametrize("name", ["qwen2", "qwen2-tied", "qwen3"])
def test_the_light_way_writes_the_same_file(
    name: str,
    preset: str,
    overrides: dict[str, str] | None,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES[name])
    full = build(source, tmp_path / "full.gguf", preset, overrides=overrides)
    request.getfixturevalue("no_engine")
    assert (
        build(source, tmp_path / "light.gguf", preset, overrides=overrides).read_bytes()
        == full.read_bytes()
    )


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("preset", ["Q4_K_M", "Q4_0", "IQ4_XS"])
def test_a_mix_that_only_the_library_knows_is_refused_with_the_line_that_installs_it(
    preset: str, tmp_path: Path
) -> None:
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3"])
    with pytest.raises(PackError, match=r"pip install 'qwen-pack\[llama-cpp\]'") as caught:
        build(source, tmp_path / "out.gguf", preset)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not (tmp_path / "out.gguf").exists()
