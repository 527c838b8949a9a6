"""The two jobs of adopting a GGUF: write down what it says of itself, and take it as it is."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from packager.chat import speech
from packager.checkpoint.template import render_apart
from packager.errors import bad_input
from packager.files import copy_hashed
from packager.inspection.unsafe import shown
from packager.json_values import JsonObject, at, object_or_empty, objects_at
from packager.runtime import Report
from packager.scratch import temporary_folder
from packager.units import human_bytes
from targets.gguf import given_text, given_types, library
from targets.gguf.given import Given, read_given
from targets.gguf.given_shape import shape_of
from targets.llama_cpp.build import MODEL_FILE

_MARKER = re.compile(
    r"<\|[^|<>\s]{1,60}\|>|</?(?:start|end)_of_(?:turn|text)>|\[/?INST\]|<</?SYS>>|</?s>"
)
"""What templates of any family write for control tokens."""
_ANSWER = "the answer of 7"
_ANOTHER = "Get the file from whoever published it, or convert the checkpoint with `build`."


def describe(report: Report, *, files: list[str], out: str) -> JsonObject:
    """A job: write the texts of a checkpoint into `out`, and try its template in the sandbox.

    Raises PackError (exit code 6) where the file is not what it says, and where its template or
    its ends of turn do not belong to its vocabulary.
    """
    given = read_given(Path(files[0]))
    shape = shape_of(given)
    words = given_text.describe(given, shape, Path(out))
    spoken = speech.of_folder(Path(out))
    if spoken.template is not None:
        _refuse_foreign_template(given, spoken.template, words)
        _refuse_other_ends(given, spoken, words)
    types = given_types.types_of(given)
    report.note(
        f"{given.files[0].name}: {len(types)} tensors, {given.bits_per_weight:.2f} bits per weight"
    )
    return {
        "architecture": str(given.head.text("general.architecture")),
        "bits_per_weight": round(given.bits_per_weight, 4),
        "template": spoken.template is not None,
        "ends": list(spoken.end_texts),
    }


def _refuse_foreign_template(given: Given, template: str, words: given_text.Words) -> None:
    """A template of another family writes markers that are no tokens here: the model would read
    them letter by letter."""
    turns = [*speech.QUESTION, {"role": "assistant", "content": _ANSWER}]
    with temporary_folder() as scratch:
        text = render_apart(template, turns, scratch / "log", add_generation_prompt=False)
    known = set(words.texts)
    strange = next((mark for mark in _MARKER.findall(text) if mark not in known), None)
    if strange is not None:
        raise bad_input(
            f"The chat template of {given.files[0]} writes {shown(strange)}, which is not a token "
            "of its vocabulary.",
            _ANOTHER,
        )


def _refuse_other_ends(given: Given, spoken: speech.Speech, words: given_text.Words) -> None:
    """Where the template ends a turn, the engine has to stop."""
    end = spoken.template_end
    if end is not None and end not in words.stops_at():
        at = ", ".join(sorted(map(shown, words.stops_at()))) or "nothing"
        raise bad_input(
            f"The chat template of {given.files[0]} ends a turn with {shown(end)}, and the file "
            f"stops at {at}: its answers would not end.",
            _ANOTHER,
        )


def take(
    report: Report, *, checkpoint: str, recipe: JsonObject, workload: JsonObject, out: str
) -> JsonObject:
    """The runtime's build job for a model that is there: copy its files, every byte compared with
    the digests that were taken when it was found.

    `recipe.inputs.files[]` have path, size and sha256. Raises PackError (exit code 6) where one has
    changed since.
    """
    rows = objects_at(object_or_empty(recipe, "inputs"), "adopted")
    given = read_given(Path(str(rows[0]["path"])))
    home = Path(out)
    home.mkdir(parents=True)
    total, done = sum(at(row, "size", int) for row in rows), 0
    for number, row in enumerate(rows):
        source = Path(str(row["path"])).resolve()
        name = MODEL_FILE
        if len(rows) > 1:
            stem, ending = MODEL_FILE.split(".")
            name = f"{stem}-{number + 1:05d}-of-{len(rows):05d}.{ending}"
        copy = copy_hashed(source, home / name)
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
    types = given_types.types_of(given)
    told = given_types.imatrix_of(given)
    report.note(
        f"{given.files[0].name}: {human_bytes(total)}, {given.bits_per_weight:.2f} bits per weight"
    )
    return {
        **({"importance": {**told, "stated_by_file": True}} if told else {}),
        "architecture": str(given.head.text("general.architecture")),
        "artifact_bytes": total,
        "tensors": len(types),
        "types": dict(Counter(types.values())),
        "pre_tokenizer": str(given.head.text("tokenizer.ggml.pre")),
        "bits_per_weight": round(given.bits_per_weight, 4),
        "llama_cpp_python": library.version(),
    }
