"""A fine-tune on the hub is built under its own name, as the variant that it descends from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from packager import catalog
from packager.catalog import scores
from packager.errors import ExitCode, PackError
from packager.plan.choose import named_variants
from packager.sources import hub_variant
from tests.support.hub_server import Hub, repository, serve
from tests.support.make_checkpoint import write_tiny

pytestmark = pytest.mark.slow

REPO = "somebody/My-Fine-Tune"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A fine-tune's repository, and the environment that finds it."""
    files = repository(write_tiny(tmp_path / "tiny"))
    with serve(Hub(REPO, files)) as served:
        settings = {
            "HF_HUB_OFFLINE": "0",
            "HF_HOME": str(tmp_path / "hf"),
            "HF_ENDPOINT": served.endpoint,
        }
        for name, value in {**settings, "HF_TOKEN": "", "NO_PROXY": "127.0.0.1"}.items():
            monkeypatch.setenv(name, value)
        yield served


def as_variant(hub: Hub, name: str, **config: Any) -> None:
    """The repository's configuration becomes that of a variant of the catalogue; its weights are
    not looked at."""
    shape = catalog.find(name).shape
    assert shape is not None
    hub.files["config.json"] = json.dumps({**shape.to_config(), **config}).encode()


def test_a_fine_tune_has_its_own_name_and_shape_and_no_scores_of_its_base(hub: Hub) -> None:
    as_variant(hub, "Qwen3-0.6B")
    (found,) = named_variants(REPO, "hub")
    assert (found.repo_id, found.family, found.license) == (REPO, "Qwen3", "apache-2.0")
    assert found.shape == catalog.find("Qwen3-0.6B").shape
    assert scores(found.repo_id) == ()
    assert any("no published scores" in note for note in found.notes)
    assert not hub.bodies("model.safetensors")


def test_the_model_card_decides_between_variants_of_one_shape(hub: Hub) -> None:
    shape = catalog.find("Qwen2.5-1.5B").shape
    assert shape is not None
    alike = [
        hub_variant.descends_from(shape, [name])
        for name in ("Qwen/Qwen2.5-Coder-1.5B", "qwen/qwen2.5-1.5b-instruct", "x/y")
    ]
    assert [None if one is None else one.name for one in alike][:2] == [
        "Qwen2.5-Coder-1.5B",
        "Qwen2.5-1.5B-Instruct",
    ]
    assert (
        alike[2] is not None
        and alike[2].shape is not None
        and alike[2].shape.hidden == shape.hidden
    )


def test_a_network_that_the_catalogue_does_not_have_is_taken_by_its_shape_alone(hub: Hub) -> None:
    found = hub_variant.find(REPO)
    assert found.family == "local" and found.shape is not None
    assert not found.base


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"model_type": "llama"}, "not supported"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "its own Python code"),
    ],
)
def test_a_configuration_that_is_none_of_ours_is_refused_before_any_weights(
    hub: Hub, config: dict[str, Any], words: str
) -> None:
    as_variant(hub, "Qwen3-0.6B", **config)
    with pytest.raises(PackError, match=words) as caught:
        hub_variant.find(REPO)
    assert caught.value.exit_code == ExitCode.INPUT
    assert not hub.bodies("model.safetensors")


def test_a_name_that_neither_knows_is_said_of_both(hub: Hub) -> None:
    with pytest.raises(
        PackError, match=r"no variant 'Qwen/Qwen3-0.6'.*Did you mean 'Qwen/Qwen3-0.6B'"
    ) as caught:
        hub_variant.find("Qwen/Qwen3-0.6")
    assert caught.value.exit_code == ExitCode.SOURCE
    with pytest.raises(PackError, match="no variant 'Qwen4'") as caught:
        hub_variant.find("Qwen4")
    assert caught.value.exit_code == ExitCode.USAGE


def test_the_hub_is_not_asked_where_the_weights_come_from_elsewhere(hub: Hub) -> None:
    with pytest.raises(PackError, match="no variant"):
        named_variants(REPO, "dummy")
    assert hub.asked() == []
