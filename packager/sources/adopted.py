"""A model that somebody else has converted, as a source: its files, the texts that it brings, and
what it is compared with."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from packager import __version__
from packager.checkpoint.adapter import TEMPLATE_FILES, TOKENIZER_FILES
from packager.checkpoint.described import mark
from packager.checkpoint.folder import checkpoint_files, is_license, read_json
from packager.errors import bad_input, usage
from packager.files import expanded, write_json
from packager.json_values import JsonDict, JsonObject, at, object_at
from packager.process import resolve
from packager.runtime import Report
from packager.sources.digests import digests

HELD_AGAINST = "held-against"
"""The folder below a model's own texts with the tokenizer that it is compared with."""
_GENERATION = "generation_config.json"


@dataclass(frozen=True, slots=True)
class AdoptedFiles:
    """`files` are absolute paths of the model's files, `describe` the job that writes the texts of
    a checkpoint from them (packager.plan.adopted). `tokenizer` is a folder whose tokenizer and
    template the model is held against, None for its own."""

    files: tuple[str, ...]
    describe: str
    tokenizer: str | None = None

    def as_arguments(self) -> JsonObject:
        """As JSON, for `fetch`."""
        return {**asdict(self), "files": list(self.files)}


def fetch(
    report: Report,
    *,
    files: list[str],
    describe: str,
    tokenizer: str | None,
    against: JsonObject | None,
    kind: str,
    repo_id: str,
    out: str,
) -> JsonObject:
    """A job: hash the files, write the model's own texts into `out`, and bring the checkpoint that
    it is compared with.

    `against` has `job` and `arguments`, as the source of that checkpoint. The facts are those of a
    source with `base`, the folder of the files seen from `out`; `license` is what the file says;
    `against` are the facts of that checkpoint. Raises PackError: exit code 6 where the model is not
    what it says, and whatever the other source raises.
    """
    paths = [Path(name) for name in files]
    home = paths[0].parent
    total, done = sum(path.stat().st_size for path in paths), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        report.progress(done, total)

    sha256s = digests(home, {path.name: path for path in paths}, count)
    described: JsonObject = resolve(describe)(report, files=files, out=out)
    if tokenizer is not None:
        _held_against(Path(tokenizer), Path(out))
    # Licences that lie beside the model are its papers.
    for path in sorted(home.iterdir()):
        if is_license(path.name) and path.is_file() and not path.is_symlink():
            shutil.copyfile(path, Path(out) / path.name)
    facts: JsonDict = {
        **described,
        "kind": kind,
        "repo_id": repo_id,
        "revision": None,
        "license": None,
        "folder": out,
        "base": str(home),
        **({"held_against": HELD_AGAINST} if tokenizer is not None else {}),
        "notes": [],
        "files": [
            {"path": path.name, "size": path.stat().st_size, "sha256": sha256s[path.name]}
            for path in paths
        ],
    }
    if against is None:
        return facts
    # Beside the texts, where the source writes a folder of its own.
    other = str(Path(out).with_name("against"))
    arguments = object_at(against, "arguments")
    facts["against"] = resolve(at(against, "job", str))(report, **arguments, out=other)
    return facts


def _held_against(tokenizer: Path, out: Path) -> None:
    """A folder below the model's texts: its shape, with the tokenizer, the template and the ends of
    turn of another folder."""
    files = checkpoint_files(tokenizer)
    wanted = (*TOKENIZER_FILES, *TEMPLATE_FILES, _GENERATION)
    if "tokenizer.json" not in files and "vocab.json" not in files:
        raise bad_input(
            f"{tokenizer} has no tokenizer.json.", "Name the folder of the model's own tokenizer."
        )
    folder = out / HELD_AGAINST
    folder.mkdir()
    config: JsonDict = dict(read_json(out / "config.json"))
    tables = [config]
    if isinstance(config.get("text_config"), dict):
        inner: JsonDict = dict(object_at(config, "text_config"))
        config["text_config"] = inner
        tables.append(inner)
    for table in tables:
        for name in ("eos_token_id", "bos_token_id"):
            table.pop(name, None)
    write_json(folder / "config.json", config)
    for name in wanted:
        if name in files:
            shutil.copyfile(files[name], folder / name)
    mark(folder, "tokenizer")


def tokenizer_folder(text: str | None) -> str | None:
    """The absolute path of a folder with a tokenizer. Raises PackError (usage) for what is none."""
    if text is None:
        return None
    folder = expanded(text).absolute()
    if not folder.is_dir():
        raise usage(f"--tokenizer names {text!r}, which is not a folder.", "Check --tokenizer.")
    return os.path.normpath(folder)


def stamp(adopted: AdoptedFiles) -> str:
    """A text that changes whenever the files do: by what `stat` says of every file."""
    paths: Sequence[Path] = [Path(name) for name in adopted.files]
    if adopted.tokenizer is not None:
        paths = [*paths, *checkpoint_files(Path(adopted.tokenizer)).values()]
    digest = hashlib.sha256()
    for path in paths:
        status = path.stat()
        digest.update(
            f"{path}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ino}\0".encode(
                "utf-8", "surrogateescape"
            )
        )
    # What is written of a model may change from version to version.
    return f"{adopted.describe} {__version__} {digest.hexdigest()}"
