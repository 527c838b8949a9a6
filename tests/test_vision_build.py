"""A package that sees, from a checkpoint to what leaves: two files, one manifest, every export."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest

from packager.errors import ExitCode, PackError
from packager.package import manifest
from packager.package.verify import verify
from packager.shipping import oci
from packager.shipping.apps import snippets
from packager.shipping.shipment import Shipment
from targets.llama_cpp.how_to_run import how_to_run
from targets.llama_cpp.session import model_file
from tests.support.building import within
from tests.support.vision import SHAPES, write_seeing

pytestmark = pytest.mark.engine

FLAGS = ["--target", "laptop-cpu", "--recipe", "gguf:Q8_0", "--context", "256", "--prompt", "128"]
SEEING = [*FLAGS, "--use-case", "vision", "--max-image-tokens", "64", "--max-ttft-ms", "1e8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seeing")


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    """A package of a tiny Qwen3-VL."""
    checkpoint = write_seeing(folder / "tiny-vl", "qwen3_vl")
    (checkpoint / "LICENSE").write_text("CC0")
    done = within(
        folder,
        "build",
        *SEEING,
        *("--weights", str(checkpoint), "--out", str(folder / "package")),
    )
    assert done.returncode == 0, done.stderr
    return folder / "package"


def test_both_files_are_there_and_the_manifest_says_which_is_which(built: Path) -> None:
    found = manifest.read(built)
    roles = {entry.path: entry.role for entry in found.files if entry.path.startswith("model/")}
    assert roles == {"model/mmproj.gguf": "projector", "model/model.gguf": ""}
    assert found.data["modality"] == found.contents.modality == "vision"
    tower = SHAPES["qwen3_vl"].vision
    assert tower is not None and found.contents.vision is not None
    assert found.data["vision"] == {
        "file": "model/mmproj.gguf",
        "type": "Q8_0",
        "projector": "qwen3vl_merger",
        "parameters": tower.parameters(),
        "patch_size": 16,
        "pixels_per_token": 32,
        "deepstack": [0, 1, 3],
        "max_image_tokens": 64,
    }
    assert found.data["workload"]["max_image_tokens"] == 64
    sizes = [(built / path).stat().st_size for path in roles]
    assert found.data["artifact_bytes"] == sum(sizes)
    assert model_file(built / "model").name == "model.gguf"
    assert found.contents.telling is not None


def test_the_text_model_and_the_tower_fit_together(built: Path) -> None:
    text = gguf.GGUFReader(built / "model" / "model.gguf")
    tower = gguf.GGUFReader(built / "model" / "mmproj.gguf")
    assert text.fields["general.architecture"].contents() == "qwen3vl"
    assert text.fields["qwen3vl.n_deepstack_layers"].contents() == 3
    assert tower.fields["clip.vision.projection_dim"].contents() == SHAPES["qwen3_vl"].hidden
    assert text.fields["general.name"].contents() == tower.fields["general.name"].contents()


@pytest.mark.parametrize("damage", ["missing", "changed", "renamed"])
def test_a_damaged_tower_is_found(built: Path, tmp_path: Path, damage: str) -> None:
    package = Path(shutil.copytree(built, tmp_path / "package"))
    path = package / "model" / "mmproj.gguf"
    data = bytearray(path.read_bytes())
    path.unlink()
    data[-1] ^= 1
    if damage != "missing":
        path.with_name("mmproj.gguf" if damage == "changed" else "other.gguf").write_bytes(data)
    findings = {(finding.path, finding.kind) for finding in verify(package)}
    missing = {("model/mmproj.gguf", "missing")}
    assert (
        findings
        == {
            "missing": missing,
            "changed": {("model/mmproj.gguf", "changed")},
            "renamed": missing | {("model/other.gguf", "additional")},
        }[damage]
    )


def test_a_role_that_is_unknown_is_refused(built: Path, tmp_path: Path) -> None:
    package = Path(shutil.copytree(built, tmp_path / "package"))
    data: dict[str, Any] = json.loads((package / manifest.NAME).read_text())
    data["files"][0]["role"] = "engine"
    manifest.write(package, data)
    with pytest.raises(PackError, match="an unknown role"):
        manifest.read(package)


def test_a_rebuild_gives_both_files_again(built: Path, folder: Path) -> None:
    done = within(folder, "verify", str(built), "--rebuild", "--weights", str(folder / "tiny-vl"))
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_answers_text_as_any_package_does(built: Path, folder: Path) -> None:
    done = within(folder, "run", str(built), "hello")
    assert done.returncode == 0, done.stderr


def test_the_readme_and_every_export_name_both_files(built: Path, tmp_path: Path) -> None:
    readme = (built / "README.md").read_text()
    given = "--model model/model.gguf --mmproj model/mmproj.gguf --image-max-tokens 64"
    assert f"llama-server {given}" in readme and f"llama-mtmd-cli {given}" in readme
    assert "FROM ./model/model.gguf\nFROM ./model/mmproj.gguf\n" in readme
    for form in ("ollama", "docker", "android", "ios", "embedded"):
        out = tmp_path / form
        done = within(
            tmp_path,
            *("export", str(built), "--format", form, "--out", str(out)),
            *("--accept-license", "unstated"),
        )
        assert done.returncode == 0, done.stderr
        texts = "".join(
            path.read_text(errors="replace")
            for path in out.rglob("*")
            if path.suffix in (".kt", ".swift", ".c", ".h", "") and path.is_file()
        )
        assert "mmproj.gguf" in texts, form
        named = {
            "android": 'PROJECTOR = "model/mmproj.gguf"',
            "ios": 'projector = "model/mmproj.gguf"',
            "embedded": 'QWEN_PACK_PROJECTOR "model/mmproj.gguf"',
        }
        assert named.get(form, "") in texts, form
    dockerfile = (tmp_path / "docker" / "Dockerfile").read_text()
    assert (
        '"--mmproj", "/opt/qwen-pack/package/model/mmproj.gguf", "--no-warmup", \\\n'
        '    "--image-max-tokens", "64", \\\n' in dockerfile
    )
    assert "data:image/jpeg;base64" in (tmp_path / "docker" / "README.md").read_text()
    assert "What is in this picture? ./picture.jpg" in (tmp_path / "ollama/README.md").read_text()
    assert "`ModelFiles.IMAGE_TOKENS` as" in (tmp_path / "android" / "README.md").read_text()
    lines = (tmp_path / "ollama" / "Modelfile").read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM")] == [
        "FROM ./package/model/model.gguf",
        "FROM ./package/model/mmproj.gguf",
    ]


def test_the_images_hold_the_tower_as_a_layer_of_its_own_kind(built: Path) -> None:
    found = manifest.read(built)
    own = manifest.FileEntry(manifest.NAME, 0, "0" * 64)
    shipment = Shipment(built, found, (own, *found.files))
    assert snippets.model(shipment) == "model/model.gguf"
    kinds = {
        image.suffix: [blob.media_type for blob in image.blobs] for image in oci.images(shipment)
    }
    assert "application/vnd.docker.ai.mmproj" in kinds["-docker"]
    assert "application/vnd.ollama.image.projector" in kinds["-ollama"]


def test_text_alone_is_built_when_it_is_asked_for(built: Path, folder: Path) -> None:
    out = folder / "text"
    done = within(
        folder,
        "build",
        *(*FLAGS, "--use-case", "vision", "--modality", "text", "--max-ttft-ms", "1e8"),
        *("--weights", str(folder / "tiny-vl"), "--out", str(out)),
    )
    assert done.returncode == 0, done.stderr
    found = manifest.read(out)
    assert [entry.path for entry in found.files if entry.path.startswith("model/")] == [
        "model/model.gguf"
    ]
    assert (found.contents.modality, found.contents.vision) == ("text", None)
    same = (folder / "package" / "model" / "model.gguf").read_bytes()
    assert (out / "model" / "model.gguf").read_bytes() == same
    assert "mmproj" not in (out / "README.md").read_text()


def test_a_checkpoint_whose_tower_is_cut_off_is_refused_before_anything_is_built(
    tmp_path: Path,
) -> None:
    checkpoint = write_seeing(tmp_path / "tiny", "qwen2_vl")
    (checkpoint / "preprocessor_config.json").unlink()
    done = within(
        tmp_path,
        *("build", *SEEING, "--weights", str(checkpoint), "--out", str(tmp_path / "out")),
    )
    assert done.returncode == ExitCode.INPUT
    assert "does not say how pictures are normalized" in done.stderr
    assert not (tmp_path / "out").exists()


def test_shards_of_the_text_stand_beside_one_tower() -> None:
    from targets.llama_cpp import LlamaCpp

    files = ["model/mmproj.gguf", *(f"model/model-0000{n}-of-00002.gguf" for n in (1, 2))]
    workload = {"use_case": "vision", "context": 4096, "files": files, "max_image_tokens": 256}
    text = how_to_run(LlamaCpp().recipe("Q4_K_M"), workload)
    assert "--model model/model-00001-of-00002.gguf --mmproj model/mmproj.gguf" in text
    assert "FROM ./merged.gguf\nFROM ./model/mmproj.gguf" in text
