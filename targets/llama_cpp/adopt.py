"""The two jobs of adopting a GGUF: write down what it says of itself, and take it as it is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from packager.chat import speech
from packager.json_values import JsonObject, at, object_or_empty, objects_at
from packager.plan import converted
from packager.runtime import Report
from packager.units import human_bytes
from targets.gguf import given_text, given_types, library
from targets.gguf.given import read_given
from targets.gguf.given_shape import shape_of
from targets.llama_cpp.adopted import pooled, pooling_of
from targets.llama_cpp.build import MODEL_FILE


def describe(report: Report, *, files: list[str], out: str) -> JsonObject:
    """A job: write the texts of a checkpoint into `out`, and try its template in the sandbox.

    Raises PackError: exit code 2 for one that makes vectors or scores; 6 where the file is not what
    it says, and where its template or its ends of turn do not belong to its vocabulary.
    """
    given = read_given(Path(files[0]))
    if pooling_of(given) is not None:
        raise pooled(given)
    shape = shape_of(given)
    words = given_text.describe(given, shape, Path(out))
    spoken = speech.of_folder(Path(out))
    if spoken.template is not None:
        where = str(given.files[0])
        converted.refuse_foreign_template(where, spoken.template, set(words.texts))
        if spoken.template_end is not None:
            converted.refuse_other_ends(where, spoken.template_end, words.stops_at())
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
    stem, ending = MODEL_FILE.split(".")
    names = [
        f"{stem}-{number:05d}-of-{len(rows):05d}.{ending}" for number in range(1, len(rows) + 1)
    ]
    places = [home / name for name in (names if len(rows) > 1 else [MODEL_FILE])]
    converted.copied(report, rows, places)
    total = sum(at(row, "size", int) for row in rows)
    types = given_types.types_of(given)
    importance = given_types.imatrix_of(given)
    report.note(
        f"{given.files[0].name}: {human_bytes(total)}, {given.bits_per_weight:.2f} bits per weight"
    )
    return {
        **({"importance": {**importance, "stated_by_file": True}} if importance else {}),
        "architecture": str(given.head.text("general.architecture")),
        "artifact_bytes": total,
        "tensors": len(types),
        "types": dict(Counter(types.values())),
        "pre_tokenizer": str(given.head.text("tokenizer.ggml.pre")),
        "bits_per_weight": round(given.bits_per_weight, 4),
        "llama_cpp_python": library.version(),
    }
