"""A turn ends at every token that a file of the checkpoint, or its template, ends one with; tokens
keep their flags."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from packager.chat import speech
from packager.chat.ends import ends_of
from packager.chat.profile import Profile
from packager.errors import PackError
from packager.process import run_job
from targets.gguf.tokenizer import CONTROL, USER_DEFINED, Vocabulary, with_ends
from tests.conftest import REPOSITORY
from tests.support.shipping_packages import CHATML
from tests.support.tiers import thorough

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"
IDS = {"<|endoftext|>": 3, "<|im_end|>": 5, "</tool_call>": 6}
END_OF_TEXT, END_OF_TURN, END_OF_CALL = 2022, 2024, 2037
UNASKED = range(2041, 2044)
"""Ids of the tiny model; the last are those of files, at which llama.cpp stops unasked."""
PROFILE = Profile(
    "off",
    None,
    'Be "brief".\n简短',
    ({"type": "function", "function": {"name": "now", "parameters": {"type": "object"}}},),
    {"temperature": 0.5, "top_k": 7},
)
RECIPES = {"llama.cpp": "Q8_0", "openvino": "int8_sym", "onnxruntime": "int8_sym_b32"}


@pytest.mark.parametrize(
    ("generation", "tokenizer", "config", "template", "ids", "notes"),
    [
        ([5, 3], "<|im_end|>", 5, "<|im_end|>", (5, 3), 0),
        (3, "<|im_end|>", 3, "<|im_end|>", (3, 5), 1),
        (None, "<|im_end|>", 5, None, (5,), 0),
        (None, None, [5, 3], None, (5, 3), 0),
        (None, None, None, "<|im_end|>", (5,), 0),
        ([5, 3, 6], "<|im_end|>", 5, "<|im_end|>", (5, 3, 6), 0),
        (None, "<|endoftext|>", 3, "<|im_end|>", (3, 5), 1),
        (-1, None, None, None, (5,), 1),
        (None, None, None, None, (5,), 1),
    ],
)
def test_all_ends_count_and_a_note_says_where_files_disagree(
    generation: Any, tokenizer: Any, config: Any, template: Any, ids: tuple[int, ...], notes: int
) -> None:
    files = ({"eos_token_id": config}, {"eos_token_id": generation}, {"eos_token": tokenizer})
    found = ends_of(*files, IDS, template)
    assert found.ids == ids
    assert len(found.notes) == notes


def test_a_checkpoint_that_ends_nowhere_is_refused_with_the_one_thing_to_do() -> None:
    with pytest.raises(PackError, match="which token ends a turn") as caught:
        ends_of({}, {}, {}, {"a": 0}, None)
    assert "eos_token_id" in caught.value.hint


@pytest.mark.parametrize("inner", [(), ("text_config",), ("thinker_config", "text_config")])
def test_an_end_that_a_cut_vocabulary_left_behind_ends_nothing_and_is_said(
    inner: tuple[str, ...],
) -> None:
    text = {"vocab_size": 8, "eos_token_id": 151645}
    config: dict[str, Any] = text
    for key in reversed(inner):
        config = {key: config}
    found = ends_of(config, {"eos_token_id": [5, 151643]}, {}, IDS, None)
    assert found.ids == (5,)
    assert [note.partition(",")[0] for note in found.notes] == [
        "generation_config.json ends a turn at 151643",
        "config.json ends a turn at 151645",
    ]
    assert ends_of(config, {"eos_token_id": 151643}, {}, IDS, None).ids == (5,)


def test_a_ggufs_slots_take_the_ends_that_llama_cpp_does_not_know() -> None:
    tokens = ["a", "<|endoftext|>", "<|im_end|>", "</tool_call>", "<|own|>", "<|more|>"]
    types = [1, CONTROL, CONTROL, USER_DEFINED, CONTROL, CONTROL]
    plain = Vocabulary(tokens, types, [], "qwen2", {"eos": 2}, {}, 2)
    assert with_ends(plain, (2, 1)) == plain
    one, two = with_ends(plain, (2, 1, 3)), with_ends(plain, (2, 3, 1, 4))
    assert (one.special["eos"], one.end_of_turn, one.end_of_message) == (2, 3, None)
    assert {two.end_of_turn, two.end_of_message} == {3, 4}
    unsaid = Vocabulary(tokens, types, [], "qwen2", {}, {}, 2)
    assert with_ends(unsaid, (4, 2)).special["eos"] == 4
    with pytest.raises(PackError, match=r"room for 2 .* 3: </tool_call>, <\|own\|>, <\|more\|>"):
        with_ends(plain, (2, 3, 4, 5))


def variation(folder: Path, *, alone: str | None = None, **files: dict[str, Any] | None) -> Path:
    """The tiny model with other keys in its JSON files (None: no such file); `alone` is an added
    token that is a word of its own."""
    shutil.copytree(TINY, folder)
    for name, changes in files.items():
        path = folder / f"{name}.json"
        if changes is None:
            path.unlink()
            continue
        merged = json.loads(path.read_text()) | changes
        path.write_text(
            json.dumps({key: value for key, value in merged.items() if value is not None})
        )
    path = folder / "tokenizer.json"
    definition = json.loads(path.read_text())
    for entry in definition["added_tokens"]:
        entry["single_word"] = entry["content"] == alone
    path.write_text(json.dumps(definition))
    return folder


TEMPLATE = CHATML.replace("{{ '<|im_start|>'", "{% generation %}{{ '<|im_start|>'").replace(
    "'<|im_end|>\\n' }}", "eos_token + '\\n' }}{% endgeneration %}"
)


@pytest.fixture(scope="module", params=["llama.cpp", thorough("openvino"), thorough("onnxruntime")])
def built(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, dict[str, Any]]:
    """What each engine's artifact of three checkpoints is found to be, beside them."""
    folder, engine = tmp_path_factory.mktemp(request.param), request.param
    named = [
        {"name": "default", "template": TEMPLATE},
        {"name": "tool_use", "template": "{{ bos_token }}T" + TEMPLATE},
    ]
    only_end_of_text = {"eos_token_id": END_OF_TEXT}
    fine_tuned = variation(
        folder / "fine_tuned",
        generation_config=only_end_of_text,
        config=only_end_of_text,
        tokenizer_config={"chat_template": named, "bos_token": "<|endoftext|>"},
    )
    ends = {"eos_token_id": [END_OF_TURN, END_OF_TEXT, END_OF_CALL]}
    calling = variation(folder / "calling", generation_config=ends)
    nothing = {"eos_token_id": None, "bos_token_id": None}
    flagged = variation(
        folder / "flagged",
        generation_config=None,
        config=nothing,
        tokenizer_config={"eos_token": None, "chat_template": None, "added_tokens_decoder": None},
        alone="<tool_call>",
    )
    plain = Profile().as_dict()
    arguments = {
        "engine": engine,
        "weights": RECIPES[engine],
        "checkpoints": {
            str(fine_tuned): plain,
            str(flagged): plain,
            str(calling): PROFILE.as_dict(),
        },
    }
    work = run_job("tests.support.speech_jobs:build_and_check", arguments, folder / "log")
    while True:
        try:
            next(work)
        except StopIteration as stop:
            found: dict[str, Any] = stop.value.value
            break
    return engine, {**found, "folder": folder}


@pytest.mark.engine
def test_a_base_model_trained_on_chats_stops_at_both_of_its_ends_in_every_engine(
    built: Any,
) -> None:
    _, found = built
    result = found["fine_tuned"]
    assert result.get("findings") == [], result
    assert {END_OF_TEXT, END_OF_TURN} <= set(result["ends"]) <= {END_OF_TEXT, END_OF_TURN, *UNASKED}
    assert 0 < result["stopped_after"] < 32
    assert any(
        "generation_config.json ends a turn at <|endoftext|>" in note for note in result["notes"]
    )


@pytest.mark.engine
def test_several_ends_and_a_profile_arrive_in_every_engine(built: Any) -> None:
    _, found = built
    result = found["calling"]
    assert result.get("findings") == [], result
    assert set(result["ends"]) - set(UNASKED) == {END_OF_TEXT, END_OF_TURN, END_OF_CALL}
    assert result["template"] == speech.of_folder(found["folder"] / "calling", PROFILE).template


@pytest.mark.engine
def test_a_token_whose_flags_an_engine_does_not_keep_is_a_finding_and_no_end_is_found_by_its_name(
    built: Any,
) -> None:
    _, found = built
    result = found["flagged"]
    assert END_OF_TURN in result["ends"], result
    assert any("<tool_call>" in finding for finding in result["findings"])
    assert any("No file says where a turn ends" in note for note in result["notes"])
