"""The papers of a package: licence and notice, model card, bill of materials, provenance, and the
statement of its figures.

Licence and notice follow from the inputs and are part of the content; the others are made of the
manifest's own fields, so they say what it says. None of them holds a time: the same manifest gives
the same bytes.
"""

from __future__ import annotations

import json
from pathlib import Path

from packager.escapes import json_document
from packager.files import sha256, write_atomically
from packager.json_values import JsonObject, list_at
from packager.package.manifest import FileEntry
from packager.records import Contents

CARD = "MODEL_CARD.md"
SBOM = "sbom.cdx.json"
PROVENANCE = "provenance.intoto.json"
BENCHMARK = "benchmark.intoto.json"


def added(folder: Path, data: JsonObject) -> JsonObject:
    """Write the papers that speak of the manifest `data` into `folder`, and return it with their
    rows among its files."""
    from packager.papers import benchmark, card, provenance, sbom

    contents = Contents.from_json(data)
    written = {
        CARD: card.text(contents).encode(),
        SBOM: _json(sbom.document(data, contents)),
        PROVENANCE: _json(provenance.statement(data)),
        BENCHMARK: _json(benchmark.statement(data)),
    }
    rows = []
    for name, content in written.items():
        write_atomically(folder / name, content)
        rows.append(FileEntry(name, len(content), sha256(folder / name)).as_dict())
    return {**data, "files": [*list_at(data, "files"), *rows]}


def _json(value: JsonObject) -> bytes:
    return f"{json_document(json.dumps(value, indent=2, ensure_ascii=False))}\n".encode()
