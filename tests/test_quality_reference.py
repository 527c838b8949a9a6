"""What the gate compares with: the pieces that are read, and the unquantized model's reference."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from packager.checkpoint import Checkpoint
from packager.errors import ExitCode, PackError
from packager.pipeline.cache import BuildCache
from packager.pipeline.job import Job
from packager.pipeline.run import _reference
from packager.quality import job
from packager.quality.text import Part, Text, pieces, shipped
from tests.support.make_checkpoint import Silent, write_tiny
from tests.support.quality_facts import TINY


def test_every_part_gives_an_equal_share_in_pieces_that_fit_the_window() -> None:
    text = Text("t", (Part("long", "abcdef" * 50), Part("short", "xyz"), Part("one", "q")))
    found = pieces(text, lambda words: [ord(letter) for letter in words], 60, window=8)
    assert [(piece.part, len(piece.ids)) for piece in found] == [
        ("long", 8),
        ("long", 8),
        ("long", 4),
        ("short", 3),
    ]
    with pytest.raises(PackError, match="shorter than two tokens"):
        pieces(Text("t", (Part("one", "q"),)), lambda words: [1], 60)


def test_a_reference_that_this_machine_cannot_compute_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    arguments: dict[str, Any] = {"checkpoint": str(TINY), "text": None, "tokens": 64}
    with monkeypatch.context() as small:
        small.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=1_000_000))
        found = job.reference(Silent(), **arguments, out=str(tmp_path / "a"))
    assert "of memory and 1.00 MB are free" in found["not_possible"]
    assert not (tmp_path / "a").exists()
    folder = write_tiny(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({**config, "rope_scaling": {"rope_type": "spiral", "factor": 2.0}})
    )
    with pytest.raises(PackError, match="'spiral'"):
        job.reference(Silent(), **{**arguments, "checkpoint": str(folder)}, out=str(tmp_path / "b"))


def test_a_reference_that_is_killed_for_its_memory_stops_no_build_and_one_that_is_broken_does(
    tmp_path: Path,
) -> None:
    cache = BuildCache(tmp_path / "cache")

    def ended(name: str, **arguments: Any) -> tuple[Any, str | None]:
        work = _reference(
            cache,
            Job(
                "reference",
                f"tests.support.jobs:{name}",
                arguments,
                "k",
                needs_out=False,
                row="quality",
            ),
        )
        while True:
            try:
                assert next(work).stage == "quality"
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]

    kept, why_not = ended("vanish", number=9)
    assert kept is None and why_not is not None and "most likely because memory ran out" in why_not
    with pytest.raises(PackError, match=r"model\.safetensors is damaged"):
        ended("refuse")


def test_a_kept_reference_of_another_text_is_not_taken(tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"checkpoint": str(TINY), "text": None, "tokens": 64}
    job.reference(Silent(), **arguments, out=str(tmp_path / "kept"))
    source = Checkpoint.open(TINY)
    other = pieces(shipped(), job.encoder(source), 32)
    with pytest.raises(PackError, match="is the reference of another checkpoint or text"):
        job.divergence(Silent(), SimpleNamespace(), source, other, tmp_path / "kept" / job.KEPT)  # type: ignore[arg-type]


def test_a_long_piece_reaches_beyond_windows_and_original_contexts_as_far_as_the_artifact_does(
    tmp_path: Path,
) -> None:
    def read(context: int | None = None, **config: Any) -> tuple[tuple[int, int | None], list[int]]:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        shutil.copytree(TINY, folder)
        plain = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**plain, **config}))
        source = Checkpoint.open(folder)
        return job.piece_tokens(source, context), [
            len(piece.ids) for piece in job._pieces(source, None, 600, context)
        ]

    def sliding(window: int) -> dict[str, Any]:
        return {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 2}

    def yarn(original: int) -> dict[str, Any]:
        return {
            "rope_scaling": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": original,
            }
        }

    ordinary = read()[1]
    assert max(ordinary) <= 100
    assert read(256) == ((512, None), ordinary)
    assert read(**sliding(700)) == ((512, 956), [*ordinary, 956])
    assert read(**sliding(200)) == ((512, 456), [*ordinary, 456])
    assert read(**yarn(1024)) == ((512, 1280), [*ordinary, 1280])
    assert read(**yarn(32768)) == ((512, None), ordinary), "further out than anybody waits for"
    # An engine without windows builds within them, and is asked for no more.
    assert read(700, **sliding(700)) == ((512, None), ordinary)
    assert read(800, **sliding(700)) == ((512, 800), [*ordinary, 800])


def test_weights_that_are_no_numbers_stop_the_reference_by_name(tmp_path: Path) -> None:
    folder = shutil.copytree(TINY, tmp_path / "nan")
    opened = Checkpoint.open(folder)
    tensor = opened.tensors["model.layers.2.mlp.down_proj.weight"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.seek(tensor.offset + 10)
        file.write(b"\xc0\x7f")
    with pytest.raises(
        PackError, match=r"'model\.layers\.2\.mlp\.down_proj\.weight' .* holds NaN"
    ) as refused:
        job.reference(
            Silent(), checkpoint=str(folder), text=None, tokens=64, out=str(tmp_path / "out")
        )
    assert refused.value.exit_code == ExitCode.INPUT
