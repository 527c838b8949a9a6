"""A loaded GGUF: greedy, repeatable, within its context; text to tokens and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from packager.cores import cores
from packager.errors import ExitCode, PackError
from targets.llama_cpp.session import Session, model_file
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint

pytestmark = pytest.mark.engine

PROMPT = [5, 300, 17, 911, 42, 256, 8, 77]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    return build(
        checkpoint(folder / "ck", SHAPES["qwen3"]), folder / "out" / "model.gguf", "Q4_K_M"
    )


@pytest.fixture
def session(model: Path) -> Iterator[Session]:
    loaded = Session(str(model.parent), {"context": 256, "kv": "f16", "threads": 1})
    yield loaded
    loaded.close()


def test_the_same_prompt_gives_the_same_tokens_and_each_is_told_once(session: Session) -> None:
    told: list[int] = []
    first = session.generate(PROMPT, 12, told.append, stop=False)
    assert told == first
    assert len(first) == 12
    assert session.generate(PROMPT, 12, lambda _: None, stop=False) == first


def test_no_answer_depends_on_the_one_before(session: Session) -> None:
    alone = session.generate(PROMPT, 8, lambda _: None, stop=False)
    session.generate([1, 2, 3, 4, 5], 20, lambda _: None, stop=False)
    assert session.generate(PROMPT, 8, lambda _: None, stop=False) == alone


@pytest.mark.parametrize("kv", ["f16", "q8_0", "q4_0"])
def test_every_cache_type_answers(kv: str, model: Path) -> None:
    loaded = Session(str(model), {"context": 256, "kv": kv, "threads": 1})
    assert len(loaded.generate(PROMPT, 4, lambda _: None, stop=False)) == 4
    loaded.close()


def test_a_prompt_longer_than_a_batch_is_computed_in_pieces(model: Path) -> None:
    loaded = Session(str(model), {"context": 1300, "kv": "f16", "threads": 1})
    long = [7 + number % 900 for number in range(1200)]
    assert loaded.generate(long, 4, lambda _: None, stop=False) == loaded.generate(
        long, 4, lambda _: None, stop=False
    )
    loaded.close()


def test_text_comes_back_from_its_tokens(session: Session) -> None:
    for text in ("Hello, world", "你好，世界", "😀 \n\t", ""):
        assert session.decode(session.encode(text)) == text


def test_control_tokens_are_recognised_and_none_is_added(session: Session) -> None:
    ids = session.encode("<|im_start|>user")
    assert ids[0] == session.encode("<|im_start|>")[0]
    assert len(session.encode("<|im_start|>")) == 1


@pytest.mark.parametrize(("prompt", "new"), [([], 4), (PROMPT, 250)])
def test_what_does_not_fit_the_context_is_refused(
    prompt: list[int], new: int, session: Session
) -> None:
    with pytest.raises(PackError, match="do not fit a context of 256") as caught:
        session.generate(prompt, new, lambda _: None)
    assert caught.value.exit_code == ExitCode.USAGE


def test_without_a_number_of_threads_the_fastest_is_measured(model: Path) -> None:
    loaded = Session(str(model), {"context": 256, "kv": "f16", "threads": None})
    assert loaded.threads in cores().fewer()
    loaded.close()


def test_a_file_that_is_no_gguf_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    with pytest.raises(PackError, match=r"model\.gguf") as caught:
        Session(str(tmp_path), {"context": 256, "kv": "f16", "threads": 1})
    assert caught.value.exit_code == ExitCode.INPUT


def test_what_macos_leaves_beside_a_model_is_not_taken_for_it(tmp_path: Path) -> None:
    for name in ("._model.gguf", "model.gguf"):
        (tmp_path / name).touch()
    assert model_file(tmp_path) == tmp_path / "model.gguf"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="holds no GGUF"):
        model_file(tmp_path)


def test_an_unknown_cache_type_is_refused(model: Path) -> None:
    with pytest.raises(PackError, match="'u8'"):
        Session(str(model), {"context": 256, "kv": "u8", "threads": 1})
