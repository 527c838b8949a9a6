"""`serve.py` of exports: the modules that answer over OpenAI's protocol, and what they know of a
package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from packager.checkpoint import sandbox
from packager.files import write_atomically, write_json
from packager.json_values import JsonDict
from packager.shipping.added import FOLDER, Added
from packager.shipping.apps import snippets
from packager.shipping.apps.server_settings import server_settings
from packager.shipping.shipment import Shipment

SERVER = Path(__file__).parent.parent / "server"
START = b'"""Serve this package; --help says how."""\n\nfrom server.main import main\n\nmain()\n'
_KINDS = ("engine_", "vectors_")
"""How modules begin of which a package takes one: those that know an engine."""


def module_of(own: snippets.Facts) -> str:
    """The module that knows the engine of a package."""
    kind = "engine" if own.task == "generate" else "vectors"
    return f"{kind}_{own.runtime.replace('.', '_')}"


def has_module(own: snippets.Facts) -> bool:
    """Whether there is a module for the engine and task of a package."""
    return (SERVER / f"{module_of(own)}.py").is_file()


def write_modules(folder: Path, engines: Collection[str]) -> None:
    """The modules into the new folder, of those that know an engine only these."""
    folder.mkdir()
    for path in (*sorted(SERVER.glob("*.py")), Path(sandbox.__file__)):
        if not path.name.startswith(_KINDS) or path.stem in engines:
            write_atomically(folder / path.name, path.read_bytes())


def write_settings(
    shipment: Shipment,
    own: snippets.Facts,
    file: Path,
    package: str,
    added: Sequence[Added] = (),
) -> None:
    """What the modules are told of a package, whose folder is `package` from that of the file, and
    of the adapters beside it. None of them takes pictures or sound: of a package that does the
    server says so."""
    settings: JsonDict = {**server_settings(shipment, own), "package": package}
    taken = (("hears", "sound"), ("sees", "pictures"))
    settings["left_out"] = next((words for key, words in taken if settings[key]), "")
    settings |= {"sees": False, "hears": False}
    if added:
        settings["adapters"] = {row.name: f"../{FOLDER}/{row.name}" for row in added}
    if own.runtime == "llama.cpp":
        settings["options"] = _offload(shipment)
    write_json(file, settings)


def _offload(shipment: Shipment) -> dict[str, str]:
    offload = shipment.manifest.contents.offload
    return {"gpu_layers": str(offload.gpu_layers)} if offload and offload.gpu_layers else {}
