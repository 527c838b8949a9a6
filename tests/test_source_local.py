"""The local source, and which source `--weights` means."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from packager import sources
from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.process import run_job
from packager.shape import Shape
from packager.sources import digests, local
from tests.support.make_checkpoint import Silent, tiny_shape, write_tiny

REPO = "Qwen/Qwen3-Tiny"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny(tmp_path / "tiny")


def fetch(folder: Path, shape: Shape | None = None) -> dict[str, Any]:
    source = sources.parse(str(folder), REPO)
    _, arguments = sources.job(source, shape or tiny_shape())
    return local.fetch(Silent(), **arguments, out="unused")


class TestLocal:
    def test_a_folder_is_hashed_and_left_alone(self, folder: Path) -> None:
        before = {path.name: (path.stat().st_mtime_ns, sha256(path)) for path in folder.iterdir()}
        facts = fetch(folder)
        assert (facts["kind"], facts["folder"], facts["repo_id"], facts["revision"]) == (
            "local",
            str(folder),
            REPO,
            None,
        )
        assert {file["path"]: file["sha256"] for file in facts["files"]} == {
            name: digest for name, (_, digest) in before.items()
        }
        assert {
            path.name: (path.stat().st_mtime_ns, sha256(path)) for path in folder.iterdir()
        } == before

    def test_another_variant_than_planned_is_refused(self, folder: Path) -> None:
        with pytest.raises(
            PackError, match=r"is not Qwen/Qwen3-Tiny: .* hidden 64 instead of 128"
        ) as caught:
            fetch(folder, tiny_shape(hidden=128))
        assert caught.value.exit_code == ExitCode.INPUT
        assert "--model" in caught.value.hint

    def test_a_fine_tune_with_another_vocabulary_passes(self, folder: Path) -> None:
        assert fetch(folder, replace(tiny_shape(), vocab=2048, context=512))["kind"] == "local"

    def test_a_damaged_folder_fails_in_the_child_with_the_file_named(
        self, folder: Path, tmp_path: Path
    ) -> None:
        os.truncate(folder / "model.safetensors", 5000)
        job, arguments = sources.job(sources.parse(str(folder), REPO), tiny_shape())
        with pytest.raises(PackError, match=r"model\.safetensors") as caught:
            list(run_job(job, {**arguments, "out": str(tmp_path / "out")}, tmp_path / "log"))
        assert caught.value.exit_code == ExitCode.INPUT
        assert not (tmp_path / "out").exists()


class TestDigests:
    def test_nothing_is_hashed_twice(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        first = fetch(folder)
        monkeypatch.setattr(digests, "sha256", None)
        assert fetch(folder) == first

    def test_a_file_that_changed_is_hashed_again_even_with_its_old_size_and_time(
        self, folder: Path
    ) -> None:
        path = folder / "LICENSE"
        before, stat = fetch(folder), path.stat()
        path.write_bytes(path.read_bytes().swapcase())
        os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        changed = {
            new["path"]
            for new, old in zip(fetch(folder)["files"], before["files"], strict=True)
            if new != old
        }
        assert changed == {"LICENSE"}

    @pytest.mark.parametrize(
        "text", ["", "[]", '{"LICENSE": 7}', '{"LICENSE": [["x"], "y"]}', '{"LICENSE": [[1], "y"]}']
    )
    def test_a_damaged_memory_costs_time_only(
        self, folder: Path, own_cache: Path, text: str
    ) -> None:
        first = fetch(folder)
        (memory,) = (own_cache / "digests").iterdir()
        memory.write_text(text)
        assert fetch(folder) == first
        assert json.loads(memory.read_text()).keys() == {path.name for path in folder.iterdir()}


class TestCacheKey:
    def key(self, source: sources.Source, shape: Shape | None = None) -> str | None:
        return sources.cache_key(source, shape or tiny_shape())

    def test_a_folder_has_another_key_as_soon_as_a_file_of_the_checkpoint_changes(
        self, folder: Path
    ) -> None:
        source = sources.parse(str(folder), REPO)
        keys = [self.key(source)]
        (folder / "notes.md").write_text("not part of the checkpoint")
        assert self.key(source) == keys[0]
        for name in ("model.safetensors", "config.json", "LICENSE"):
            os.utime(folder / name, ns=(0, 1))
            keys.append(self.key(source))
        (folder / "LICENSE").unlink()
        keys.append(self.key(source))
        assert len(set(keys)) == len(keys)

    def test_a_dummy_has_another_key_for_another_shape_or_variant(self) -> None:
        source = sources.parse("dummy", REPO)
        assert self.key(source) == self.key(source)
        assert self.key(source) != self.key(source, tiny_shape(layers=3))
        assert self.key(source) != self.key(sources.parse("dummy", "Qwen/Other"))

    def test_only_a_full_commit_has_a_key_on_the_hub(self) -> None:
        assert self.key(sources.parse("hub", REPO)) is None
        assert self.key(sources.parse("hub", REPO, "main")) is None
        assert self.key(sources.parse("hub", REPO, "a" * 7)) is None
        assert self.key(sources.parse("hub", REPO, "a" * 40)) != self.key(
            sources.parse("hub", REPO, "b" * 40)
        )


class TestParse:
    def test_the_hub_is_the_default(self) -> None:
        assert (
            sources.parse(None, REPO)
            == sources.parse("hub", REPO)
            == sources.Source("hub", REPO, None, REPO)
        )

    def test_a_path_becomes_absolute(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder.parent)
        assert sources.parse("tiny", REPO).location == str(folder)

    @pytest.mark.parametrize(
        ("weights", "revision", "word"),
        [
            ("no/such/folder", None, "does not exist"),
            (__file__, None, "is a file"),
            ("dummy", "main", "--revision"),
            (str(Path(__file__).parent), "main", "--revision"),
        ],
    )
    def test_what_is_no_source_is_a_usage_error(
        self, weights: str, revision: str | None, word: str
    ) -> None:
        with pytest.raises(PackError, match=word) as caught:
            sources.parse(weights, REPO, revision)
        assert caught.value.exit_code == ExitCode.USAGE

    def test_only_a_dummy_takes_room_in_the_cache(self, folder: Path) -> None:
        shape = tiny_shape()
        assert sources.bytes_needed(sources.parse("dummy", REPO), shape) > shape.parameters() * 2
        assert sources.bytes_needed(sources.parse(str(folder), REPO), shape) == 0
        assert sources.bytes_needed(sources.parse("hub", REPO), shape) == 0

    def test_choosing_a_source_imports_no_client_and_no_numpy(self, folder: Path) -> None:
        code = (
            "import sys, json; from packager import sources; from packager.checkpoint import "
            "Checkpoint; from packager.shape import Shape\n"
            f"from pathlib import Path; shape = Checkpoint.open(Path({str(folder)!r})).shape\n"
            f"for weights in ('hub', 'dummy', {str(folder)!r}):\n"
            "    source = sources.parse(weights, 'Qwen/Qwen3-0.6B'); sources.job(source, shape)\n"
            "    sources.cache_key(source, shape); sources.bytes_needed(source, shape)\n"
            "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
        )
        loaded = set(
            json.loads(
                subprocess.run(
                    [sys.executable, "-c", code], check=True, capture_output=True, text=True
                ).stdout
            )
        )
        assert not loaded & {
            "numpy",
            "ml_dtypes",
            "huggingface_hub",
            "httpx",
            "torch",
            "transformers",
            "tokenizers",
            "safetensors",
        }
