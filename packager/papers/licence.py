"""Licence and notice of the weights: the checkpoint's own files, and what it lacks of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from packager.catalog.licences import agreement, known, spdx
from packager.checkpoint.folder import is_license
from packager.escapes import line
from packager.files import write_atomically
from packager.foreign import bounded_bytes, names_in
from packager.json_values import JsonObject, at_or_none
from packager.limits import LICENSE_BYTES
from packager.package.manifest import safe_path

LICENSE = "LICENSE"
NOTICE = "NOTICE"
_TEXTS = Path(__file__).parent / "texts"


def write(
    folder: Path,
    checkpoint: Path,
    variant: JsonObject,
    recipe: str,
    *,
    dummy: bool,
    adapters: Sequence[str] = (),
    adopted: bool = False,
    apart: bool = False,
) -> list[str]:
    """Write the licence papers of a package into `folder`, and return their names.

    What the checkpoint brings goes along as it is. Where it brings no text, the standard one stands
    in, or name and address of a licence whose text we do not have; a notice says what the licence
    wants said, and what was changed. `adapters` are the names of those that were merged; they
    are all that the package holds where they are kept `apart`. `adopted` says that the weights
    were converted by somebody else.
    """
    written = _brought(folder, checkpoint)
    have = {name.upper() for name in written}
    if not any(name.startswith(("LICEN", "COPYING")) for name in have):
        write_atomically(folder / LICENSE, text(variant).encode())
        written.append(LICENSE)
    if not any(name.startswith("NOTICE") for name in have):
        text_of_notice = notice(
            variant, recipe, dummy=dummy, adapters=adapters, adopted=adopted, apart=apart
        )
        write_atomically(folder / NOTICE, text_of_notice.encode())
        written.append(NOTICE)
    return written


def _brought(folder: Path, checkpoint: Path) -> list[str]:
    papers = {
        name.casefold(): checkpoint / name for name in names_in(checkpoint) if is_license(name)
    }
    written = []
    for path in (
        papers.values()
    ):  # one of LICENSE and License: they are the same file on half of the world's disks
        if path.is_file() and safe_path(path.name):
            write_atomically(folder / path.name, bounded_bytes(path, LICENSE_BYTES))
            written.append(path.name)
    return written


def text(variant: JsonObject) -> str:
    """The text of the licence, or name and address of one whose text we do not have."""
    shipped = _TEXTS / f"{spdx(at_or_none(variant, 'license', str))}.txt"
    if shipped.is_file():
        return shipped.read_text(encoding="utf-8")
    licence, page = at_or_none(variant, "license", str), address(variant)
    if licence is None:
        return (
            f"No known source states a licence for the weights of {_model(variant)}.\n"
            f"Ask their publisher before you use or pass them on{f': {page}' if page else '.'}\n"
        )
    row = known().get(licence.casefold()) or {}
    reason = agreement(licence)
    return (
        f"The weights of {_model(variant)} are under the licence "
        f"{line(str(row.get('name', licence)))} ({line(spdx(licence))}).\n"
        f"{f'It {reason}.' if row and reason else 'Read it before you use them.'}\n"
        "The checkpoint from which this package was built came without its "
        f"text{f', which is at {page}' if page else '.'}\n"
    )


def notice(
    variant: JsonObject,
    recipe: str,
    *,
    dummy: bool,
    adapters: Sequence[str] = (),
    adopted: bool = False,
    apart: bool = False,
) -> str:
    """What the licence wants said in all copies, and that the files were changed, which every one
    of them wants said."""
    licence = at_or_none(variant, "license", str) or ""
    row = known().get(licence.casefold()) or {}
    wanted = f"{row['notice']}\n\n" if row.get("notice") else ""
    merged = f"merged with the adapter {' and '.join(adapters)} and " if adapters else ""
    if apart:
        return (
            f"{wanted}This is the adapter {line(' and '.join(adapters))} for the weights of "
            f"{_model(variant)}, converted by qwen-pack; those weights are not part of it. "
            "manifest.json has the details.\n"
        )
    if dummy:
        return (
            f"{wanted}The weights are random numbers in the shape of {_model(variant)}, "
            "made by qwen-pack; they are not that model's.\n"
        )
    if adopted:
        return (
            f"{wanted}The weights were converted to {line(recipe)} by somebody else, as those of "
            f"{_model(variant)}, and are in here as they came. What was changed before is not "
            "known.\n"
        )
    return (
        f"{wanted}Changed: the weights of {_model(variant)} were {line(merged)}"
        f"converted to {line(recipe)} by qwen-pack. manifest.json has the details.\n"
    )


def address(variant: JsonObject) -> str | None:
    """Where the publisher keeps this model and its licence; None for a folder of somebody's own."""
    owner = str(variant["repo_id"]).partition("/")[0]
    return None if owner == "local" else f"https://huggingface.co/{quote(str(variant['repo_id']))}"


def _model(variant: JsonObject) -> str:
    return line(str(variant["repo_id"]))
