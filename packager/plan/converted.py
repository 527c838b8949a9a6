"""A folder that another converter wrote for an engine: which of its files are taken, the texts of a
checkpoint from them, and the copy.

Only what the engine reads is taken, and looked at with suspicion first. What else lies in the
folder stays out of every engine's sight.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path

from packager.chat import speech
from packager.checkpoint.adapter import TEMPLATE_FILES, TOKENIZER_FILES
from packager.checkpoint.described import mark
from packager.checkpoint.folder import converted_files, is_weights, read_json, safe_files
from packager.checkpoint.template import render_apart
from packager.checkpoint.tokenizer import check_tokenizer
from packager.errors import bad_input
from packager.files import copy_hashed, write_json
from packager.foreign import names_in
from packager.inspection import unsafe_files
from packager.inspection.unsafe import shown
from packager.json_values import (
    JsonDict,
    JsonObject,
    at,
    object_or_empty,
    objects_at,
)
from packager.runtime import Report
from packager.scratch import temporary_folder

GENERATION = "generation_config.json"
TEXTS = ("config.json", GENERATION, *TOKENIZER_FILES, *TEMPLATE_FILES)
"""What lies beside a graph and says how the model speaks."""
_MARKER = re.compile(
    r"<\|[^|<>\s]{1,60}\|>|</?(?:start|end)_of_(?:turn|text)>|\[/?INST\]|<</?SYS>>|</?s>"
)
"""What templates of any family write for control tokens."""
_ANSWER = "the answer of 7"
_ANOTHER = "Get the model from whoever published it, or convert the checkpoint with `build`."


def folder_of(place: Path, main: str) -> Path | None:
    """The folder whose file `main` makes it one of a converted model, named by itself or by that
    file; None for anything else, and for a checkpoint with a conversion beside its weights."""
    if place.name == main and place.is_file():
        return place.parent
    if not place.is_dir() or not (place / main).is_file():
        return None
    return None if any(map(is_weights, names_in(place))) else place


def files_of(
    folder: Path, needed: Collection[str], wanted: Collection[str], runtime: str
) -> dict[str, Path]:
    """The files that are taken by name, those that an engine needs first.

    Raises PackError (exit code 6) where one of `needed` is missing, for a link out of the folder,
    and for whatever no engine should be shown.
    """
    files = converted_files(folder, needed) | safe_files(folder, wanted)
    missing = next((name for name in needed if name not in files), None)
    if missing is not None:
        raise bad_input(
            f"{folder} has no {missing}, which {runtime} needs.",
            "Get all files of the model from where it was published.",
        )
    reason = unsafe_files(files, runtime)
    if reason is not None:
        raise bad_input(
            f"{folder} is not safe to open: its file {reason.replace('model/', '', 1)}.",
            _ANOTHER,
        )
    return files


def has_template(files: Mapping[str, Path]) -> bool:
    """Whether a folder brings a chat template."""
    if not files.keys().isdisjoint(TEMPLATE_FILES):
        return True
    settings = files.get("tokenizer_config.json")
    return settings is not None and bool(read_json(settings).get("chat_template"))


def describe(
    files: Mapping[str, Path], vocab: int, config: JsonObject, generation: JsonObject, out: Path
) -> speech.Speech:
    """Write the texts of a checkpoint into the new folder `out`: those of the model as they are,
    `config` and, where it says anything, `generation` in place of its own. Returns how it speaks.

    Raises PackError (exit code 6) for a tokenizer that the embedding of `vocab` rows has no room
    for, for a template of another family, and for one whose turns would not end.
    """
    out.mkdir(parents=True)
    for name in (*TOKENIZER_FILES, *TEMPLATE_FILES, *([] if generation else [GENERATION])):
        if name in files:
            shutil.copyfile(files[name], out / name)
    write_json(out / "config.json", config)
    if generation:
        write_json(out / GENERATION, generation)
    mark(out, "converted")
    folder = next(iter(files.values())).parent
    if "tokenizer.json" not in files:
        raise bad_input(
            f"{folder} has no tokenizer.json, so nothing says which tokens it means.",
            "Put the checkpoint's own tokenizer.json into the folder.",
        )
    tokenizer_config = files.get("tokenizer_config.json")
    check_tokenizer(
        folder, dict(files), vocab, {} if tokenizer_config is None else read_json(tokenizer_config)
    )
    spoken = speech.of_folder(out)
    if spoken.template is not None:
        ids = _tokens(files["tokenizer.json"])
        refuse_foreign_template(str(folder), spoken.template, ids)
        own = generation or (read_json(files[GENERATION]) if GENERATION in files else {})
        stops, end = _stops_at(own, ids), spoken.template_end
        if end is not None and stops is not None:
            refuse_other_ends(str(folder), end, stops)
    return spoken


def refuse_foreign_template(where: str, template: str, known: Collection[str]) -> None:
    """Raise PackError (exit code 6) for a template of another family: it writes markers that are no
    tokens here, and the model would read them letter by letter."""
    turns = [*speech.QUESTION, {"role": "assistant", "content": _ANSWER}]
    with temporary_folder() as scratch:
        text = render_apart(template, turns, scratch / "log", add_generation_prompt=False)
    strange = next((marker for marker in _MARKER.findall(text) if marker not in known), None)
    if strange is not None:
        raise bad_input(
            f"The chat template of {where} writes {shown(strange)}, which is not a token of its "
            "vocabulary.",
            _ANOTHER,
        )


def refuse_other_ends(where: str, end: str, stops_at: Collection[str]) -> None:
    """Raise PackError (exit code 6) where the engine does not stop at the token with which the
    template ends a turn."""
    if end not in stops_at:
        at_these = ", ".join(sorted(map(shown, stops_at))) or "nothing"
        raise bad_input(
            f"The chat template of {where} ends a turn with {shown(end)}, and the model stops at "
            f"{at_these}: its answers would not end.",
            _ANOTHER,
        )


def take(
    report: Report, *, checkpoint: str, recipe: JsonObject, workload: JsonObject, out: str
) -> JsonObject:
    """A runtime's build job for a folder that is there: copy its files, every byte compared with
    the digests that were taken when it was found.

    `recipe.inputs.adopted[]` have path, size and sha256. Raises PackError (exit code 6) where one
    has changed since.
    """
    rows = objects_at(object_or_empty(recipe, "inputs"), "adopted")
    home = Path(out)
    home.mkdir(parents=True)
    copied(report, rows, [home / Path(at(row, "path", str)).name for row in rows])
    settings = object_or_empty(recipe, "settings")
    return {
        "artifact_bytes": sum(at(row, "size", int) for row in rows),
        "types": dict(object_or_empty(settings, "types")),
        "bits_per_weight": settings.get("bits_per_weight"),
    }


def copied(report: Report, rows: list[JsonObject], places: list[Path]) -> None:
    """Copy the files of `rows` to `places`, in their order. Raises PackError (exit code 6) where
    one is no longer what its digest says."""
    total, done = sum(at(row, "size", int) for row in rows), 0
    for row, place in zip(rows, places, strict=True):
        source = Path(at(row, "path", str)).resolve()
        copy = copy_hashed(source, place)
        while True:
            try:
                done += next(copy)
            except StopIteration as stop:
                if stop.value != row["sha256"]:
                    raise bad_input(
                        f"{source} has changed since it was looked at.", "Start the build again."
                    ) from None
                break
            report.progress(done, total)


def _tokens(path: Path) -> Mapping[str, int]:
    """Every token of a tokenizer.json with its id."""
    definition: JsonDict = dict(read_json(path))
    vocab = object_or_empty(object_or_empty(definition, "model"), "vocab")
    added = {
        at(row, "content", str): at(row, "id", int)
        for row in objects_at(definition, "added_tokens")
    }
    return {**{text: at(vocab, text, int) for text in vocab}, **added}


def _stops_at(generation: JsonObject, ids: Mapping[str, int]) -> frozenset[str] | None:
    """Texts of the tokens at which the engine ends a turn; None where its settings leave that to
    its tokenizer."""
    declared = generation.get("eos_token_id")
    if declared is None:
        return None
    ends = declared if isinstance(declared, list) else [declared]
    return frozenset(text for text, number in ids.items() if number in ends)
