"""Warm start: the state of a fixed prefix is computed once, kept where only the user writes, and
gives the same answers."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from packager.cli import main
from packager.errors import ExitCode
from packager.measure.prefix import ENDING, common
from packager.package import manifest
from tests.conftest import REPOSITORY
from tests.support.gguf_checkpoints import SHAPES, build, checkpoint
from tests.support.rounding import differ_by_rounding

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
TOKENS = 24
PROMPT = "You are a careful assistant. Answer in one short sentence, and never guess. " * 6


def answer(session: Any, prompt: Sequence[int]) -> list[int]:
    told: list[int] = []
    session.generate(prompt, TOKENS, told.append, stop=False)
    return told


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(TINY, tmp_path_factory.mktemp("trained") / "model.gguf", "Q4_K_M")


def opened(model: Path, kv: str = "f16") -> Any:
    from targets.llama_cpp.session import Session

    return Session(str(model), {"context": 512, "kv": kv, "threads": 1})


@pytest.mark.engine
@pytest.mark.parametrize("kv", ["f16", "q8_0"])
def test_an_answer_is_the_same_with_the_state_without_it_and_in_another_process(
    kv: str, trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "states" / f"one{ENDING}"
    plain = opened(trained, kv)
    prefix = plain.encode(PROMPT)
    questions = [prefix + plain.encode(text) for text in ("How are you?", "7")]
    wanted = [answer(plain, question) for question in questions]
    plain.keep_prefix(prefix, file)
    cold = [answer(plain, question) for question in questions]
    for question, ours, theirs in zip(questions, cold, wanted, strict=True):
        assert ours == theirs or differ_by_rounding(plain, question, ours, theirs)
    assert plain.prefix_note.startswith("Warm start")
    plain.close()
    if os.name == "posix":
        assert only(file).stat().st_mode & 0o777 == 0o600
        assert file.parent.stat().st_mode & 0o777 == 0o700
    again = opened(trained, kv)
    again.keep_prefix(prefix, file)
    assert [answer(again, question) for question in questions] == cold
    assert again.prefix_note.startswith("Warm start")
    assert answer(again, prefix) and again.prefix_note == "", "nothing is left to compute"
    assert answer(again, questions[1][5:]) and again.prefix_note == "", "another prompt"
    again.close()


@pytest.mark.engine
def test_the_state_of_a_hybrid_holds_its_recurrent_part(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    source = checkpoint(tmp_path / "ck", SHAPES["qwen3_5_text"])
    model = build(source, tmp_path / "hybrid.gguf", "Q8_0")
    session = opened(model)
    prefix, question = [7 + number % 200 for number in range(70)], [5, 300, 17]
    session.keep_prefix(prefix, tmp_path / "states" / f"one{ENDING}")
    wanted = answer(session, prefix + question)
    assert session.prefix_note.startswith("Cold start")
    assert answer(session, prefix + question) == wanted
    assert session.prefix_note.startswith("Warm start")
    session.close()


@pytest.mark.engine
def test_a_state_that_is_damaged_or_others_may_have_written_is_computed_again(
    trained: Path, tmp_path: Path
) -> None:
    file = tmp_path / "states" / f"one{ENDING}"
    session = opened(trained)
    prefix = session.encode(PROMPT)
    question = prefix + session.encode("Hello")
    session.keep_prefix(prefix, file)
    wanted = answer(session, question)
    whole = only(file).read_bytes()

    def damaged(data: bytes) -> None:
        only(file).write_bytes(data)
        assert answer(session, question) == wanted
        assert "its state is damaged" in session.prefix_note
        assert only(file).read_bytes() == whole, "it was written anew"

    # llama.cpp itself ends the process for these.
    damaged(whole[: len(whole) // 2])
    damaged(b"")
    damaged(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged(os.urandom(5000))
    if os.name == "posix":
        only(file).chmod(0o666)
        assert answer(session, question) == wanted
        assert "others may have written" in session.prefix_note
        assert only(file).stat().st_mode & 0o777 == 0o600
        name = only(file)
        name.rename(tmp_path / "elsewhere")
        name.symlink_to(tmp_path / "elsewhere")
        assert answer(session, question) == wanted
        assert "not a plain file" in session.prefix_note
    other = [*prefix[:-1], prefix[0]]
    session.keep_prefix(other, file)
    assert answer(session, [*other, 5, 6]) and "of other tokens" in session.prefix_note
    session.close()


@pytest.mark.engine
def test_only_the_newest_states_are_kept(trained: Path, tmp_path: Path) -> None:
    session = opened(trained)
    for number in range(10):
        session.keep_prefix([5, 6 + number], tmp_path / "states" / f"{number}{ENDING}")
        session.generate([5, 6 + number, 9], 1, lambda _: None)
    session.close()
    assert len(list((tmp_path / "states").iterdir())) == 8


@pytest.mark.engine
def test_a_build_says_what_it_gains_and_run_starts_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    package = built(tmp_path, "gguf:Q8_0")
    warm = manifest.read(package).contents.warm
    assert warm is not None and warm.how == "file"
    assert warm.prefix_tokens > 60 and warm.ttft_cold_ms and warm.ttft_warm_ms
    assert warm.state_bytes and warm.predicted_state_bytes
    assert abs(warm.state_bytes / warm.predicted_state_bytes - 1) < 0.02
    readme = (package / "README.md").read_text()
    assert f"the same {warm.prefix_tokens} tokens" in readme and "--slot-save-path" in readme
    assert warm.sentence() in (package / "MODEL_CARD.md").read_text()
    assert "minimum" in json.dumps(manifest.read(package).data["runtime"])
    capsys.readouterr()
    said = []
    for _ in range(2):
        assert main(["run", str(package), "Hello", "--max-tokens", "8"]) == ExitCode.DONE
        said.append(capsys.readouterr())
    assert "Cold start" in said[0].err and "Warm start" in said[1].err
    assert said[0].out == said[1].out
    assert main(["cache", "--clear"]) == ExitCode.DONE
    assert not list(tmp_path.rglob(f"*{ENDING}"))


@pytest.mark.engine
@pytest.mark.thorough("test_a_build_says_what_it_gains_and_run_starts_from_it")
def test_openvino_keeps_a_prefix_as_long_as_it_runs(tmp_path: Path) -> None:
    package = built(tmp_path, "openvino:int8_asym")
    warm = manifest.read(package).contents.warm
    assert warm is not None and (warm.how, warm.state_bytes) == ("process", 0)
    assert {row.engine for row in manifest.read(package).contents.runtime.minimum} == {
        "openvino",
        "openvino-genai",
        "openvino-tokenizers",
    }


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--recipe", "gguf:Q8_0"], "fixes none"),
        (["--recipe", "onnx:int8_sym_b32", "--system-prompt", "system.txt"], "keeps no state"),
    ],
)
def test_a_warm_start_that_cannot_be_is_refused_before_anything_is_built(
    flags: list[str],
    words: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "system.txt").write_text("Be brief.")
    target = ["build", "--target", "laptop-cpu", "--weights", str(TINY), "--context", "256"]
    assert main([*target, *flags, "--warm", "--out", str(tmp_path / "p")]) == ExitCode.USAGE
    assert words in capsys.readouterr().err
    assert not (tmp_path / "p").exists()


def test_the_prefix_is_what_two_prompts_begin_with() -> None:
    assert common([1, 2, 3], [1, 2, 4]) == [1, 2]
    assert common([1, 2], [1, 2, 4]) == [1, 2]
    assert common([], [1]) == [] == common([2], [1])


def only(file: Path) -> Path:
    """The one state whose name begins as that."""
    [found] = file.parent.glob(f"{file.stem}-*")
    return found


def built(folder: Path, recipe: str) -> Path:
    """A package of the small trained model with a system prompt."""
    (folder / "system.txt").write_text(PROMPT)
    flags = ["--target", "laptop-cpu", "--weights", str(TINY), "--context", "512"]
    more = ["--recipe", recipe, "--system-prompt", str(folder / "system.txt"), "--warm"]
    out = folder / "package"
    assert main(["build", *flags, *more, "--out", str(out)]) == ExitCode.DONE
    return out
