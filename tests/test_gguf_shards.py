"""A model as several files below a size: the form of llama-gguf-split, read by llama.cpp as it is,
written without a whole one."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from packager.errors import ExitCode, PackError
from targets.llama_cpp import LlamaCpp
from targets.llama_cpp.session import Session
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint, keys

pytestmark = pytest.mark.engine

LIMIT = 700_000


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The same model in one file, and in several."""
    folder = tmp_path_factory.mktemp("shards")
    source = checkpoint(folder / "ck", SHAPES["qwen3"])
    whole = build(source, folder / "whole" / "model.gguf", "Q8_0")
    build(source, folder / "parts" / "model.gguf", "Q8_0", max_file_bytes=LIMIT)
    return whole, sorted((folder / "parts").iterdir())


def test_the_files_are_numbered_and_none_exceeds_the_limit(
    written: tuple[Path, list[Path]],
) -> None:
    whole, parts = written
    count = len(parts)
    assert count >= 3
    assert [path.name for path in parts] == [
        f"model-{number:05d}-of-{count:05d}.gguf" for number in range(1, count + 1)
    ]
    assert all(path.stat().st_size <= LIMIT for path in parts)
    assert sum(path.stat().st_size for path in parts) < whole.stat().st_size + 1000 * count


def test_the_first_has_every_key_and_each_says_which_it_is(
    written: tuple[Path, list[Path]],
) -> None:
    whole, parts = written
    tensors = len(gguf.GGUFReader(whole).tensors)
    for number, path in enumerate(parts):
        own = {"split.no": number, "split.count": len(parts), "split.tensors.count": tensors}
        assert keys(path) == ({**keys(whole), **own} if number == 0 else own)
        types = {
            name: field.types
            for name, field in gguf.GGUFReader(path).fields.items()
            if name.startswith("split.")
        }
        kind = gguf.GGUFValueType
        assert types == {
            "split.no": [kind.UINT16],
            "split.count": [kind.UINT16],
            "split.tensors.count": [kind.INT32],
        }


def test_the_tensors_are_those_of_the_one_file_in_their_order(
    written: tuple[Path, list[Path]],
) -> None:
    whole, parts = written
    wanted = [
        (tensor.name, tensor.tensor_type, tensor.data.tobytes())
        for tensor in gguf.GGUFReader(whole).tensors
    ]
    found = [
        (tensor.name, tensor.tensor_type, tensor.data.tobytes())
        for path in parts
        for tensor in gguf.GGUFReader(path).tensors
    ]
    assert found == wanted


def test_llama_cpp_loads_the_first_and_answers_as_from_the_one_file(
    written: tuple[Path, list[Path]],
) -> None:
    answers = []
    for artifact in (written[0], written[1][0].parent):
        session = Session(str(artifact), {"context": 64, "kv": "f16", "threads": 1})
        answers.append(session.generate([5, 300, 17], 6, lambda _: None, stop=False))
        session.close()
    assert answers[0] == answers[1]


def test_what_is_small_enough_stays_one_file(
    written: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    whole = written[0]
    source = whole.parent.parent / "ck"
    same = build(source, tmp_path / "model.gguf", "Q8_0", max_file_bytes=whole.stat().st_size)
    assert same.read_bytes() == whole.read_bytes()
    build(source, tmp_path / "two" / "model.gguf", "Q8_0", max_file_bytes=whole.stat().st_size - 1)
    assert len(list((tmp_path / "two").iterdir())) == 2


def test_one_thread_and_two_write_the_same_files(
    written: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    build(
        written[0].parent.parent / "ck",
        tmp_path / "model.gguf",
        "Q8_0",
        max_file_bytes=LIMIT,
        threads=1,
    )
    assert [path.read_bytes() for path in sorted(tmp_path.iterdir())] == [
        path.read_bytes() for path in written[1]
    ]


def test_a_limit_below_one_tensor_is_refused_with_what_it_takes(
    written: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    source = written[0].parent.parent / "ck"
    with pytest.raises(
        PackError, match=r"'token_embd\.weight' takes .* --max-file-size allows 100 kB"
    ) as caught:
        build(source, tmp_path / "out" / "model.gguf", "Q8_0", max_file_bytes=100_000)
    assert caught.value.exit_code == ExitCode.USAGE
    assert not (tmp_path / "out").exists()
    needs = int(caught.value.hint.split()[3])
    build(source, tmp_path / "out" / "model.gguf", "Q8_0", max_file_bytes=needs)


def test_a_failure_leaves_none_of_the_files(tmp_path: Path) -> None:
    from tests.support.gguf_checkpoints import overwrite

    source = checkpoint(tmp_path / "ck", SHAPES["qwen2"])
    overwrite(source, "model.layers.1.mlp.up_proj.weight", 512 * 255, b"\xc0\x7f")
    with pytest.raises(PackError, match="NaN"):
        build(source, tmp_path / "out" / "model.gguf", "Q8_0", max_file_bytes=LIMIT)
    assert not list((tmp_path / "out").iterdir())


def test_the_commands_of_a_package_name_the_first_and_merge_where_they_must() -> None:
    files = ["model/model-00001-of-00002.gguf", "model/model-00002-of-00002.gguf"]
    text = LlamaCpp().how_to_run(LlamaCpp().recipe("Q8_0"), {"context": 512, "files": files})
    assert "llama-cli --model model/model-00001-of-00002.gguf" in text
    assert 'Llama("model/model-00001-of-00002.gguf"' in text
    assert "llama-gguf-split --merge model/model-00001-of-00002.gguf merged.gguf" in text
    assert "FROM ./merged.gguf" in text
