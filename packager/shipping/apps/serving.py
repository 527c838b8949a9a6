"""`serve.py` of exports: the modules that answer over OpenAI's protocol, and what they know of a
package."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from packager.files import write_atomically, write_json
from packager.json_values import JsonDict
from packager.shipping.added import FOLDER, Added
from packager.shipping.apps import modules, snippets
from packager.shipping.apps.server_settings import server_settings
from packager.shipping.server.settings import kind_of
from packager.shipping.shipment import Shipment

_MODULES = "packager.shipping.server"
_SERVER = Path(__file__).parent.parent / "server"
_START = '''"""{doc}; --help says how."""

import os
import signal
import sys
from pathlib import Path

# Until the modules are there, Ctrl-C has nothing to clear away.
quiet = signal.getsignal(signal.SIGINT) is signal.default_int_handler
if quiet:
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))

here = Path(__file__).resolve().parent
modules = str(here / "{folder}")
sys.path.insert(0, modules)
# The processes that it starts find them there as well.
others = os.environ.get("PYTHONPATH")
os.environ["PYTHONPATH"] = os.pathsep.join([modules, others] if others else [modules])

from {module} import main  # noqa: E402

if quiet:
    signal.signal(signal.SIGINT, signal.default_int_handler)
main({argument})
'''
SETTINGS = "settings.json"
"""What the server of one package is told, beside its modules."""
_ENGINES = {
    "llama.cpp": ("llama-cpp-python", "jinja2", "psutil"),
    "openvino": ("openvino-genai", "jinja2"),
    "onnxruntime": ("onnxruntime-genai", "jinja2"),
}
_RETRIEVE = {"openvino": ("openvino-genai",), "onnxruntime": ("onnxruntime", "tokenizers", "numpy")}
"""Distributions for vectors and scores."""
_PICTURES, _SOUND = ("pillow",), ("soundfile", "soxr")
"""What reads the files of requests; see pyproject.toml's extras `vision` and `sound`."""


def start(module: str, doc: str, argument: str) -> bytes:
    """The program that calls `main` of a module with an expression of the folder `here`."""
    text = _START.format(folder=modules.FOLDER, module=module, doc=doc, argument=argument)
    return text.encode()


def module_of(own: snippets.Facts) -> str:
    """The module that knows the engine of a package."""
    kind = "vectors"
    if own.task == "generate":
        kind = kind_of(own.runtime, sees=own.sees, hears=bool(own.audio_seconds))
    return f"{kind}_{own.runtime.replace('.', '_')}"


def has_module(own: snippets.Facts) -> bool:
    """Whether there is a module for the engine and task of a package, and for llama.cpp whether the
    manifest says with what context it is opened."""
    opens = own.context > 0 or own.runtime != "llama.cpp"
    return opens and (_SERVER / f"{module_of(own)}.py").is_file()


def installed(own: snippets.Facts) -> tuple[str, ...]:
    """The distributions that the server of a package needs, that of the engine first."""
    if own.task != "generate":
        return _RETRIEVE[own.runtime]
    if not own.projector and not own.sees and not own.audio_seconds:
        return _ENGINES[own.runtime]
    return (*_ENGINES[own.runtime], *(_SOUND if own.audio_seconds else _PICTURES))


def write_modules(folder: Path, packages: Collection[snippets.Facts], *more: str) -> None:
    """The modules for these packages into the folder of an export, and those that `more` names."""
    engines = sorted({f"{_MODULES}.{module_of(own)}" for own in packages})
    texts = any(own.task == "generate" for own in packages)
    chats = (f"{_MODULES}.requests", "packager.checkpoint.sandbox") if texts else ()
    modules.write_tree(folder / modules.FOLDER, [f"{_MODULES}.main", *engines, *chats, *more])


def write_one(
    shipment: Shipment, own: snippets.Facts, folder: Path, added: Sequence[Added] = ()
) -> None:
    """`serve.py`, its modules and its settings beside the folder of one package."""
    write_modules(folder, [own])
    argument = f'here / "{modules.FOLDER}" / "{SETTINGS}"'
    write_atomically(folder / "serve.py", start(f"{_MODULES}.main", "Serve this package", argument))
    settings = folder / modules.FOLDER / SETTINGS
    write_settings(shipment, own, settings, f"../{snippets.FOLDER}", added)


def write_settings(
    shipment: Shipment,
    own: snippets.Facts,
    file: Path,
    package: str,
    added: Sequence[Added] = (),
) -> None:
    """What the modules are told of a package, whose folder is `package` from that of the file, and
    of the adapters beside it."""
    settings: JsonDict = {**server_settings(shipment, own), "package": package}
    if added:
        settings["adapters"] = {row.name: f"../{FOLDER}/{row.name}" for row in added}
    write_json(file, settings)
