"""The formats for apps: whole, the same twice, with the package's own hashes in them, and refused
where they make no sense."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest

from packager.errors import ExitCode, PackError
from packager.files import sha256
from packager.package import manifest
from packager.package.verify import verify
from packager.records.contents import DeviceIdentity, Predicted, PredictedFootprint
from packager.shipping.apps import android
from packager.shipping.export import FORMATS, export
from packager.shipping.oci import images, without_ollama
from packager.shipping.shipment import prepare
from tests.conftest import REPOSITORY
from tests.support.make_package import write_package
from tests.support.shipping_packages import (
    AGREED,
    FORMATS_FOR_APPS,
    evil_package,
    exported,
    finish,
    gguf_package,
    instructions,
    tree,
)
from tests.support.tiny_gguf import tiny_gguf

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return gguf_package(tmp_path_factory.mktemp("made") / "tiny")


@pytest.fixture(scope="module")
def openvino(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "tiny"
    folder.mkdir()
    return write_package(folder)


def refused(package: Path, name: str, out: Path, *words: str, **more: object) -> None:
    with pytest.raises(PackError) as caught:
        finish(export(package, name, out, **{**AGREED, **more}))  # type: ignore[arg-type]
    assert caught.value.exit_code == ExitCode.USAGE, str(caught.value)
    assert caught.value.hint
    for word in words:
        assert word in f"{caught.value} {caught.value.hint}"
    assert not out.exists()


def unpacked(folder: Path, name: str, into: Path) -> Path:
    """Where the package stands in an export for apps, as a folder that `verify` takes."""
    if name == "embedded":
        subprocess.run(["tar", "-xf", folder / "rauc/update.tar", "-C", into], check=True)
        return into / "package"
    return folder / "assets/package" if name == "android" else folder / "package"


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_the_package_stands_in_it_whole_and_is_left_as_it_was(
    package: Path, tmp_path: Path, name: str
) -> None:
    before = tree(package)
    folder = exported(package, name, tmp_path / "out")
    inside = unpacked(folder, name, tmp_path)
    assert tree(inside) == before == tree(package)
    assert verify(inside) == []
    assert sorted(
        path.name for path in tmp_path.iterdir() if path.name not in ("cache", "package")
    ) == ["out"]


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_it_is_the_same_bytes_at_another_time_place_mask_zone_and_language(
    package: Path, tmp_path: Path, name: str
) -> None:
    one = exported(package, name, tmp_path / "one")
    elsewhere = tmp_path / "else where" / "other"
    shutil.copytree(package, elsewhere)
    code = (
        "import os; os.umask(0o077); from pathlib import Path; from packager.shipping.export "
        "import export; "
        f"list(export(Path({str(elsewhere)!r}), {name!r}, Path({str(tmp_path / 'two')!r}), "
        "allow_dummy=True))"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"},
    )
    assert tree(one) == tree(tmp_path / "two")
    modes = {
        path.stat().st_mode & 0o777 for path in (tmp_path / "two").rglob("*") if path.is_file()
    }
    # What the person's mask leaves; the files of an image are read by its server.
    assert modes == {0o644 if name == "docker" else 0o600}


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_a_damaged_package_is_not_exported_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    package = gguf_package(tmp_path / "tiny")
    data = bytearray((package / "model/model.gguf").read_bytes())
    data[1000] ^= 1
    (package / "model/model.gguf").write_bytes(data)
    with pytest.raises(PackError, match=r"model\.gguf is not what the manifest says"):
        exported(package, name, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny"]


def test_formats_that_make_no_sense_of_an_engine_are_refused(
    openvino: Path, tmp_path: Path
) -> None:
    refused(openvino, "ollama", tmp_path / "out", "ollama", "openvino", "GGUF")
    refused(openvino, "ios", tmp_path / "out", "does not run on iOS")
    assert FORMATS["docker"].misfit(prepare(openvino, **AGREED).manifest) is None


@pytest.mark.parametrize("name", FORMATS)
def test_a_licence_that_asks_for_an_agreement_stops_every_format_until_it_is_accepted_by_name(
    tmp_path: Path, name: str
) -> None:
    package = gguf_package(
        tmp_path / "tiny", variant={"repo_id": "Qwen/Qwen2.5-3B", "license": "qwen-research"}
    )
    for accepted in ((), ("unstated", "apache-2.0")):
        refused(
            package,
            name,
            tmp_path / "out",
            "qwen-research",
            "--accept-license qwen-research",
            accepted=accepted,
        )
    assert exported(package, name, tmp_path / "out", accepted=("qwen-research",)).exists()


@pytest.mark.parametrize("name", FORMATS_FOR_APPS)
def test_people_read_in_words_that_no_licence_is_stated(tmp_path: Path, name: str) -> None:
    """What programs read keeps the word of SPDX."""
    package = gguf_package(tmp_path / "tiny", variant={"repo_id": "local/mine", "license": None})
    out = exported(package, name, tmp_path / "out")
    (readme,) = (path for path in tree(out) if path == "README.md")
    said = tree(out)[readme].decode()
    assert "No known source states a licence of the weights" in said
    for path, data in tree(out).items():
        rows = data.decode(errors="replace").splitlines() if "/model/" not in path else []
        for row in rows:
            if "NOASSERTION" in row:
                assert path.endswith((".json", ".h", ".swift", ".kt", "Dockerfile")), (path, row)
                assert not row.lstrip().startswith(("#", "//", "*")) or "#define" in row, row


def test_a_setting_that_a_format_does_not_take_is_refused(package: Path, tmp_path: Path) -> None:
    refused(package, "zip", tmp_path / "out", "--base-image", settings={"base_image": "a"})
    refused(package, "docker", tmp_path / "out", "--device-type", settings={"device_type": "a"})
    for image in ("", "two words", "a\nRUN evil", "x@sha256:12", "-flag", "$(id)"):
        refused(
            package,
            "docker",
            tmp_path / "out",
            "not a valid image name",
            settings={"base_image": image},
        )
    for device in ("", "a\nb", " a", "x" * 101):
        refused(
            package,
            "embedded",
            tmp_path / "out",
            "not a valid device type",
            settings={"device_type": device},
        )
    refused(package, "android", tmp_path / "out", "below a size", limit=1 << 20)


def test_the_modelfile_names_the_gguf_the_context_the_template_and_its_stop(
    package: Path, tmp_path: Path
) -> None:
    folder = exported(package, "ollama", tmp_path / "out")
    text = (folder / "Modelfile").read_text()
    (source,) = re.findall(r"^FROM (.*)$", text, re.MULTILINE)
    assert sha256(folder / source) == sha256(package / "model/model.gguf")
    said = ("num_ctx 4096", "temperature 0.6", "top_k 20", "top_p 0.95", "repeat_penalty 1.05")
    assert "".join(f"\nPARAMETER {words}" for words in said) + "\n" in text
    assert '\nPARAMETER stop "<|im_end|>"\n' in text
    assert re.search(
        r'^TEMPLATE """.*<\|im_start\|>assistant\n"""$', text, re.DOTALL | re.MULTILINE
    )
    assert 'LICENSE """Apache License\n"""' in text
    assert "OLLAMA_KV_CACHE_TYPE=q8_0" in (folder / "README.md").read_text()
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True
    )


def test_a_template_that_ollamas_language_cannot_say_is_refused_and_gets_no_tag(
    tmp_path: Path,
) -> None:
    package = gguf_package(tmp_path / "tiny", files={"chat_template.jinja": b"[INST]"})
    refused(
        package, "ollama", tmp_path / "out", "chat template", "does not write every message once"
    )
    shipment = prepare(package, **AGREED)
    assert [image.suffix for image in images(shipment)] == ["", "-docker"]
    assert "chat template" in str(without_ollama(shipment))


def test_a_base_models_modelfile_has_neither_template_nor_stops(tmp_path: Path) -> None:
    package = gguf_package(tmp_path / "tiny", files={"LICENSE": b'a """ b'}, template=None)
    text = (exported(package, "ollama", tmp_path / "out") / "Modelfile").read_text()
    assert "TEMPLATE" not in text and "stop" not in text and "LICENSE" not in text


def test_a_gguf_whose_name_a_modelfile_cannot_hold_is_refused(tmp_path: Path) -> None:
    shards = {f"model/model-0000{number}-of-00002.gguf": tiny_gguf(b"x") for number in (1, 2)}
    refused(
        gguf_package(tmp_path / "shards", files=shards),
        "ollama",
        tmp_path / "out",
        "takes one GGUF",
    )
    assert FORMATS["ollama"].misfit(manifest.read(tmp_path / "shards"))
    refused(evil_package(tmp_path / "evil"), "ollama", tmp_path / "out", "Modelfile cannot name")


def test_the_dockerfile_serves_the_model_and_downloads_nothing(
    package: Path, tmp_path: Path
) -> None:
    image = "ghcr.io/ggml-org/llama.cpp@sha256:" + "0" * 64
    folder = exported(package, "docker", tmp_path / "out", settings={"base_image": image})
    found = instructions((folder / "Dockerfile").read_text())
    assert found[:2] == [("ARG", f"BASE_IMAGE={image}"), ("FROM", "${BASE_IMAGE} AS package")]
    # The last is what is built where no --target is named.
    stages = [rest for name, rest in found if name == "FROM"]
    assert stages[1:] == ["package AS serve", "package AS llama-server"]
    starts = [json.loads(rest) for name, rest in found if name == "ENTRYPOINT"]
    assert starts[0][:2] == ["python3", "/opt/qwen-pack/serve.py"]
    assert (folder / "serve.py").is_file() and len(starts) == 2
    assert [rest for name, rest in found if name == "RUN"] == [
        "sha256sum -c SHA256SUMS > /dev/null"
    ]
    assert not any(name == "ADD" for name, _ in found)
    words = json.loads(dict(found)["ENTRYPOINT"])
    assert (
        words[0] == "llama-server"
        and words[words.index("--model") + 1] == "/opt/qwen-pack/package/model/model.gguf"
    )
    assert (
        words[words.index("--ctx-size") + 1] == "4096"
        and words[words.index("--cache-type-v") + 1] == "q8_0"
    )
    for name, rest in found:
        if name == "COPY":
            assert (folder / rest.split()[0]).exists()
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True
    )
    bare = (exported(package, "docker", tmp_path / "bare") / "Dockerfile").read_text()
    assert instructions(bare)[0] == ("ARG", "BASE_IMAGE") and "--build-arg" in bare


def test_the_server_in_a_container_says_which_python_it_takes(
    package: Path, openvino: Path, tmp_path: Path
) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    wanted = f"Python {project['requires-python'].removeprefix('>=')} or newer"
    for number, source in enumerate((package, openvino)):
        folder = exported(source, "docker", tmp_path / str(number))
        assert wanted in (folder / "README.md").read_text()


def test_an_image_holds_what_it_copies_also_of_a_package_without_a_context(
    tmp_path: Path,
) -> None:
    for runtime in ("llama.cpp", "openvino"):
        package = gguf_package(
            tmp_path / runtime, runtime={"name": runtime, "version": "1"}, workload={}
        )
        folder = exported(package, "docker", tmp_path / f"{runtime}-docker")
        copied = [
            rest.split()[0]
            for name, rest in instructions((folder / "Dockerfile").read_text())
            if name == "COPY"
        ]
        assert ("serve.py" in copied) == (runtime == "openvino")
        assert all((folder / name).exists() for name in copied), copied


def test_the_way_of_drafting_that_pays_is_told_to_every_server(tmp_path: Path) -> None:
    ways = {
        "mtp": ["--spec-type", "draft-mtp", "--spec-draft-n-max", "3"],
        "lookup": [
            *("--spec-type", "ngram-simple", "--spec-ngram-simple-size-n", "4"),
            *("--spec-ngram-simple-size-m", "3"),
        ],
    }
    for how, flags in ways.items():
        told: dict[str, object] = {"how": how, "pays": True, "drafted": 3, "ngram": 4}
        package = gguf_package(tmp_path / how, speculation=told)
        docker = exported(package, "docker", tmp_path / f"{how}-docker")
        words = json.loads(dict(instructions((docker / "Dockerfile").read_text()))["ENTRYPOINT"])
        place = words.index("--spec-type")
        assert words[place : place + len(flags)] == flags
        settings = json.loads((docker / "server" / "settings.json").read_text())
        assert settings["session"]["speculation"] == {"how": how, "rollback": 4, "drafted": 3}
        embedded = exported(package, "embedded", tmp_path / f"{how}-embedded")
        assert f"`{' '.join(flags)}` before `--model`" in (embedded / "README.md").read_text()
    lost = gguf_package(tmp_path / "lost", speculation={**told, "pays": False})
    docker = exported(lost, "docker", tmp_path / "lost-docker")
    assert "--spec" not in (docker / "Dockerfile").read_text()


def test_ai_packs_stay_below_a_size_and_hold_every_byte_once(package: Path, tmp_path: Path) -> None:
    limit = 1 << 16
    finish(android.write(prepare(package, **AGREED), tmp_path / "out", None, pack_bytes=limit))
    packs = sorted(path for path in (tmp_path / "out/play").iterdir() if path.is_dir())
    assert len(packs) >= 3
    held: dict[str, bytes] = {}
    for pack in packs:
        inside = tree(pack / "src/main/assets/package#group_enough_memory")
        assert 0 < sum(map(len, inside.values())) <= limit
        assert not held.keys() & inside.keys()
        held |= inside
        assert f'packName = "{pack.name}"' in (pack / "build.gradle.kts").read_text()
    assert held == tree(tmp_path / "out/assets/package")
    assert (
        held["model/model.gguf.001"] + held["model/model.gguf.002"]
        == (package / "model/model.gguf").read_bytes()
    )


def test_devices_get_the_model_from_the_memory_on_that_it_was_planned_for(
    package: Path, tmp_path: Path
) -> None:
    space = "{http://schemas.android.com/apk/config}"
    root = xml.parse(
        exported(package, "android", tmp_path / "out") / "play/device_targeting_config.xml"
    ).getroot()
    (group,) = root.findall(f"{space}device-group")
    (selector,) = group.findall(f"{space}device-selector")
    assert (group.attrib, selector.attrib) == (
        {"name": "enough_memory"},
        {"ram-min-bytes": "2000000000"},
    )
    device = DeviceIdentity(kind="phone", memory_bytes=8 << 30)
    peak = Predicted(footprint=PredictedFootprint(peak=10**9))
    phone = manifest.read(package).contents.but(device=device, predicted=peak)
    assert android.least_memory(phone) == 8 * 10**9
    laptop = phone.but(device=device.but(kind="laptop"), predicted=None)
    assert android.least_memory(laptop) == 0


def test_what_play_does_not_deliver_has_app_assets_alone(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(android, "PLAY_BYTES", 1000)
    folder = exported(package, "android", tmp_path / "out")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "assets", "kotlin"]
    assert "there are no packs here" in (folder / "README.md").read_text()


def test_the_asset_pack_of_ios_is_fetched_on_demand_and_named_alike_in_swift(
    package: Path, tmp_path: Path
) -> None:
    folder = exported(package, "ios", tmp_path / "out")
    rows = json.loads((folder / "Manifest.json").read_text())
    assert rows == {
        "assetPackID": "tiny",
        "downloadPolicy": {"onDemand": {}},
        "fileSelectors": [{"directory": "package"}],
        "platforms": ["iOS"],
    }
    assert 'assetPackID = "tiny"' in (folder / "swift/ModelFiles.swift").read_text()
    assert (folder / rows["fileSelectors"][0]["directory"]).is_dir()


@pytest.mark.parametrize(
    ("name", "source"), [("android", "kotlin/ModelFiles.kt"), ("ios", "swift/ModelFiles.swift")]
)
def test_sources_hold_path_size_and_hash_of_every_file(
    package: Path, tmp_path: Path, name: str, source: str
) -> None:
    text = (exported(package, name, tmp_path / "out") / source).read_text()
    for path in [entry.path for entry in prepare(package, **AGREED).files]:
        size, digest = (package / path).stat().st_size, sha256(package / path)
        assert re.search(rf'"{re.escape(path)}", (size: )?{size}L?, (sha256: )?"{digest}"', text), (
            path
        )
