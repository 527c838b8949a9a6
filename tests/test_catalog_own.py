"""Rows that a user adds to the catalogue: from a folder or a repository, checked, known everywhere."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from packager import catalog
from packager.catalog import own
from packager.catalog.licences import plain
from packager.catalog.loader import read_own
from packager.cli import main
from packager.errors import ExitCode, PackError
from packager.sources import added
from tests.support.hub_server import Hub, repository, serve
from tests.support.make_checkpoint import write_tiny


@pytest.fixture(autouse=True)
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for the rows of one test."""
    folder = tmp_path / "catalogue"
    monkeypatch.setenv(own.VARIABLE, str(folder))
    catalog.forget()
    yield folder
    monkeypatch.undo()
    catalog.forget()


def checkpoint(tmp_path: Path, name: str, **changes: Any) -> Path:
    """A folder with the config.json of that variant."""
    shape = catalog.find(name).shape
    assert shape is not None
    folder = tmp_path / "my-qwen"
    folder.mkdir(exist_ok=True)
    config = {**shape.to_config(), **changes}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("name", ["Qwen3-4B", "Qwen3-30B-A3B", "Qwen3-Next-80B-A3B-Instruct"])
def test_a_folder_becomes_a_row_with_the_shape_of_its_config(tmp_path: Path, name: str) -> None:
    variant, path, there = added.add(str(checkpoint(tmp_path, name)))
    like = catalog.find(name)
    assert (variant.repo_id, there) == ("local/my-qwen", False)
    assert variant.shape == like.shape and variant.params_active == like.params_active
    assert variant.family == like.family and variant.base
    assert catalog.find("my-qwen") == variant
    assert tomllib.loads(path.read_text())["shapes"]["own"]["hidden"] == variant.shape.hidden  # type: ignore[union-attr]


def test_a_chat_template_makes_it_a_model_to_talk_to(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path, "Qwen3-0.6B")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert added.add(str(folder))[0].chat


def test_the_command_names_file_and_way_on_and_fit_knows_the_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = checkpoint(tmp_path, "Qwen3-0.6B", vocab_size=151_999)
    assert main(["models", "add", str(folder), "--name", "me/my-qwen"]) == ExitCode.DONE
    said = capsys.readouterr()
    assert said.out.startswith("me/my-qwen added: qwen3, ") and "--weights" in said.out
    assert "qwen-pack fit --model me/my-qwen" in said.err
    ask = ["fit", "--target", "laptop-cpu", "--model", "me/my-qwen", "--recipe"]
    assert main([*ask, "openvino:int4_sym_g128", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["chosen"]["variant"] == "me/my-qwen"
    assert main(["models", "add", str(folder), "--name", "me/my-qwen", "--json"]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["variant"]["repo_id"] == "me/my-qwen"
    assert main(["doctor", "--json"]) == ExitCode.DONE
    told = json.loads(capsys.readouterr().out)["catalogue"]
    assert told["own"] == 1 and told["reviewed"] == catalog.REVIEWED and told["age_days"] >= 0
    assert main(["models", "remove", "me/my-qwen"]) == ExitCode.DONE
    with pytest.raises(PackError):
        catalog.find("me/my-qwen")


def test_a_repository_is_asked_for_its_config_and_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    like = catalog.find("Qwen3-4B")
    assert like.shape is not None
    files = repository(write_tiny(tmp_path / "tiny"))
    files["config.json"] = json.dumps(like.shape.to_config()).encode()
    with serve(Hub("me/fine-tune", files)) as hub:
        for name, value in {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": hub.endpoint,
            "HF_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
        }.items():
            monkeypatch.setenv(name, value)
        variant, _, _ = added.add("me/fine-tune")
        assert not hub.bodies("model.safetensors"), "no weights are fetched for a row"
    assert (variant.repo_id, variant.license) == ("me/fine-tune", "apache-2.0")
    assert variant.shape == like.shape and "fine-tune" in variant.notes[0]


@pytest.mark.parametrize("declared", ['x"\n[[variants]]', "other", "", 7, None])
def test_a_licence_that_is_no_id_is_not_stated(declared: object) -> None:
    assert plain(declared) is None and plain("apache-2.0") == "apache-2.0"


def test_a_repository_that_cannot_be_reached_leaves_nothing(rows: Path) -> None:
    assert main(["models", "add", "me/not-there", "--offline"]) == ExitCode.SOURCE
    assert not rows.exists()


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["nonsense"], ExitCode.USAGE),
        (["Qwen/Qwen3-0.6B"], ExitCode.USAGE),
        (["me/x", "--name", "me/y"], ExitCode.USAGE),
        (["{folder}", "--name", "Qwen/Qwen3-0.6B"], ExitCode.USAGE),
        (["{folder}", "--name", "../../x"], ExitCode.USAGE),
        (["{folder}", "--name", "one"], ExitCode.USAGE),
        (["{empty}"], ExitCode.USAGE),
    ],
)
def test_what_is_no_new_model_is_refused_and_nothing_is_written(
    words: list[str], code: int, tmp_path: Path, rows: Path
) -> None:
    (tmp_path / "empty").mkdir()
    folder = checkpoint(tmp_path, "Qwen3-0.6B")
    asked = [word.format(folder=folder, empty=tmp_path / "empty") for word in words]
    assert main(["models", "add", *asked]) == code
    assert not rows.exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "llama"},
        {"num_hidden_layers": 10**9},
        {"hidden_size": -1},
        {"architectures": ["Qwen3ForSequenceClassification"]},
        {"auto_map": {"AutoModel": "evil.py--Evil"}},
    ],
)
def test_a_configuration_that_is_none_of_ours_is_refused(
    changes: dict[str, Any], tmp_path: Path, rows: Path
) -> None:
    folder = checkpoint(tmp_path, "Qwen3-0.6B", **changes)
    assert main(["models", "add", str(folder)]) == ExitCode.INPUT
    assert not rows.exists()


def test_rows_of_the_catalogue_itself_stay() -> None:
    assert main(["models", "remove", "Qwen3-0.6B"]) == ExitCode.USAGE


def test_a_row_that_the_catalogue_has_meanwhile_stands_behind_it(
    tmp_path: Path, rows: Path
) -> None:
    path = added.add(str(checkpoint(tmp_path, "Qwen3-0.6B")), "me/x")[1]
    path.write_text(path.read_text().replace("me/x", "Qwen/Qwen3-4B"))
    catalog.forget()
    assert catalog.find("Qwen3-4B").sources["shape"] != "config"
    assert len([one for one in catalog.load() if one.name == "Qwen3-4B"]) == 1


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("hidden = 1024", "hidden = 1025", "parameters"),
        ("hidden = 1024", "hiden = 1024", "hidden"),
        ('kind = "general"', 'kind = "genius"', "kind"),
        ("[sources]", "[sources", "cannot be read"),
        ('[shapes."own"]', '[shapes."other"]', "shape"),
    ],
)
def test_a_file_that_was_spoilt_is_named_with_its_key_and_a_way_on(
    old: str, new: str, word: str, tmp_path: Path
) -> None:
    path = added.add(str(checkpoint(tmp_path, "Qwen3-0.6B")), "me/x")[1]
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(PackError) as caught:
        read_own({})
    assert path.name in caught.value.message and word in caught.value.message
    assert caught.value.exit_code == ExitCode.INPUT
    assert caught.value.hint == (
        f"Mend the file, or take it out of the catalogue: qwen-pack models remove {path.name}"
    )
    catalog.forget()
    assert main(["models", "remove", path.name]) == ExitCode.DONE and not path.exists()


@pytest.mark.parametrize("name", ["me/x", "x", "me--x.toml", "me--x"])
def test_a_spoilt_row_is_taken_away_by_its_name_and_no_other_one_is(
    name: str, tmp_path: Path, rows: Path
) -> None:
    path = added.add(str(checkpoint(tmp_path, "Qwen3-0.6B")), "me/x")[1]
    other = added.add(str(checkpoint(tmp_path, "Qwen3-1.7B")), "me/y")[1]
    path.write_text("x = [")
    catalog.forget()
    with pytest.raises(PackError, match=r"me--x\.toml cannot be read"):
        added.remove("me/z")
    assert added.remove(name) == path
    assert list(rows.iterdir()) == [other] and catalog.find("me/y").name == "y"


def test_a_row_in_two_files_is_said_with_both_and_not_blamed_on_the_installation(
    tmp_path: Path, rows: Path
) -> None:
    path = added.add(str(checkpoint(tmp_path, "Qwen3-0.6B")), "me/x")[1]
    (rows / "zz copy.toml").write_text(path.read_text())
    catalog.forget()
    with pytest.raises(PackError, match=r"zz copy\.toml and me--x\.toml both have") as caught:
        catalog.load()
    assert caught.value.hint.endswith("models remove 'zz copy.toml'")
    assert added.remove("zz copy.toml").name == "zz copy.toml" and catalog.find("me/x").name == "x"


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_a_note_or_a_source_says_is_read_back(note: str, source: str) -> None:
    shape = catalog.find("Qwen3-0.6B").shape
    assert shape is not None
    variant = replace(catalog.find("Qwen3-0.6B"), notes=(note,))
    document = tomllib.loads(own._text(variant, shape, source))
    shown = (document["variants"][0]["notes"][0], document["sources"]["config"])
    assert shown == tuple(text.encode("utf-8", "replace").decode() for text in (note, source))
