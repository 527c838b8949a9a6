"""What else a build takes, each as a line of the options: what it is called, what it means, and how
it is read from an ask and written into one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from packager.errors import PackError, bad_input, usage
from packager.files import expanded
from packager.need.usecases import MODALITIES, benchmark
from packager.units import parse_bytes
from tui.ask import Ask, BuildOptions, Wish

Takes = Literal["text", "file", "folder", "consent"]
YES = "yes"
"""What a consent that is given reads as; one that is not is empty."""
_FOREVER_S = 86400
_LABEL = 13
_DIGITS = 15
_OF_WISH = ("parallel", "max_file_bytes", "licenses", "min_scores", "modality")
"""Fields of Wish that have their line here."""


@dataclass(frozen=True, slots=True)
class Option:
    """One line. `name` is the flag without its dashes; `read` gives the text of an ask, empty where
    nothing is said; `write` raises PackError for a text that is none; `usual` is what holds where
    nothing is said, and `example` stands in the empty field."""

    name: str
    label: str
    section: str
    means: str
    read: Callable[[Ask], str]
    write: Callable[[Ask, str], Ask]
    example: str = ""
    takes: Takes = "text"
    usual: str = "none"


# Any: arguments of an Option, whose two functions share a type of their own.
def _wish(field: str, text: Callable[[Any], str], value: Callable[[str], Any]) -> dict[str, Any]:
    def read(ask: Ask) -> str:
        known = getattr(ask.wish, field)
        return "" if known is None else text(known)

    def write(ask: Ask, words: str) -> Ask:
        return ask.wishing(**{field: value(words) if words else None})

    return {"read": read, "write": write}


# Any: see _wish.
def _own(
    field: str, value: Callable[[str], Any], empty: Any = None, text: Callable[[Any], str] = str
) -> dict[str, Any]:
    def read(ask: Ask) -> str:
        known = getattr(ask.options, field)
        return "" if known == empty else text(known)

    def write(ask: Ask, words: str) -> Ask:
        chosen = value(words) if words else empty
        return replace(ask, options=replace(ask.options, **{field: chosen}))

    return {"read": read, "write": write}


def _consent(field: str) -> dict[str, Any]:
    return {**_own(field, bool, False, lambda _: YES), "takes": "consent", "usual": "no"}


def _whole(low: int, high: int) -> Callable[[str], int]:
    def value(words: str) -> int:
        digits = words.replace(",", "").replace("_", "")
        whole = digits.isdecimal() and len(digits) <= _DIGITS
        if not whole or not low <= int(digits) <= high:
            raise usage(f"{words!r} is not a whole number from {low:,} to {high:,}.")
        return int(digits)

    return value


def _seconds(words: str) -> float:
    try:
        value = float(words.removesuffix("s").strip())
    except ValueError:
        value = -1.0
    if not 0 <= value <= _FOREVER_S:
        raise usage(f"{words!r} is not a number of seconds up to {_FOREVER_S:,}.")
    return value


def _words(words: str) -> list[str]:
    return words.replace(",", " ").split()


def _scores(words: str) -> tuple[tuple[str, float], ...]:
    scores: dict[str, float] = {}
    # Names of benchmarks have spaces in them; commas stand between several.
    for one in filter(None, (part.strip() for part in words.split(","))):
        name, _, least = one.rpartition("=")
        try:
            value = float(least)
        except ValueError:
            value = -1.0
        if not name.strip() or not 0 <= value <= 100:
            raise usage(f"{one!r} is not BENCHMARK=SCORE.", "Write for example IFEval=60.")
        scores[benchmark(name.strip())] = value
    return tuple(scores.items())


def _licences(words: str) -> tuple[str, ...]:
    from packager import catalog

    return tuple(_known(word, ("any", *catalog.licence_ids()), "licence") for word in _words(words))


def _inputs(words: str) -> tuple[str, ...]:
    named = [_known(word, (*MODALITIES, "vision"), "input") for word in _words(words)]
    # As the command line reads them: what sees or listens reads as well.
    whole = {"vision": ("text", "image"), "image": ("text", "image"), "audio": ("text", "audio")}
    return tuple(dict.fromkeys(kind for word in named for kind in whole.get(word, (word,))))


def _known(word: str, known: tuple[str, ...], what: str) -> str:
    from packager.names import did_you_mean

    by_fold = {name.casefold(): name for name in known}
    if word.casefold() not in by_fold:
        near = did_you_mean(word, known) or f" Known: {', '.join(known)}."
        raise usage(f"There is no {what} {word!r}.{near}")
    return by_fold[word.casefold()]


def _file(words: str) -> str:
    path = expanded(words)
    if not path.is_file():
        raise usage(f"There is no file {words!r}.", "Check the path.")
    return str(path)


def _folder(words: str) -> str:
    path = expanded(words)
    if not path.is_dir():
        raise usage(f"There is no folder {words!r}.", "Check the path.")
    return str(path)


def _checkpoint(words: str) -> str:
    """A folder, or a repository of the hub as it stands."""
    path = expanded(words)
    return str(path) if path.is_dir() else words


def _version(words: str) -> str:
    from packager.shipping.versions import ordered

    ordered(words)
    return words


def _readable_text(words: str) -> str:
    from packager.quality.gate import Gate

    path = _file(words)
    try:
        Gate(Path(path)).text  # noqa: B018
    except UnicodeDecodeError:
        raise bad_input(f"{path} is not text.", "Name a file in UTF-8.") from None
    return path


OPTIONS = (
    Option(
        "parallel",
        "At once",
        "Limits",
        "Answers that are given at once, each with a separate context; one unless you say more.",
        example="1",
        usual="1",
        **_wish("parallel", str, _whole(1, 4096)),
    ),
    Option(
        "max-file-size",
        "File size",
        "Limits",
        "Largest single file of the model; GGUF is split to stay below.",
        example="no limit, or 2G",
        usual="no limit",
        **_wish("max_file_bytes", lambda size: f"{size / 10**6:.15g}M", parse_bytes),
    ),
    Option(
        "license",
        "Licences",
        "Limits",
        "Licences to accept, with commas between several, or any.",
        example="what permits commercial use; apache-2.0, any",
        usual="what permits commercial use",
        **_wish("licenses", ", ".join, _licences),
    ),
    Option(
        "min-score",
        "Scores",
        "Limits",
        "Least published scores, in place of the use case's own floor on the same benchmark.",
        example="those of the use case; IFEval=60",
        usual="those of the use case",
        **_wish(
            "min_scores",
            lambda rows: ", ".join(f"{name}={least:g}" for name, least in rows),
            _scores,
        ),
    ),
    Option(
        "modality",
        "Inputs",
        "Limits",
        "What it must take: text, image, video, audio. Text alone builds a vision model without "
        "its tower.",
        example="those of the use case; text, image",
        usual="those of the use case",
        **_wish("modality", ", ".join, _inputs),
    ),
    Option(
        "revision",
        "Revision",
        "Source",
        "Commit, tag or branch of the hub's repository.",
        example="the newest; a commit, tag or branch",
        usual="the newest",
        **_own("revision", str),
    ),
    Option(
        "offline",
        "Offline",
        "Source",
        "Use what the hub's cache holds, and never ask the network.",
        example="never ask the network",
        **_consent("offline"),
    ),
    Option(
        "against",
        "Against",
        "Source",
        "The checkpoint that a converted model was made from: its tokens are compared, and what "
        "it lost.",
        example="a folder or OWNER/NAME",
        takes="folder",
        **_own("against", _checkpoint),
    ),
    Option(
        "tokenizer",
        "Tokenizer",
        "Source",
        "The folder with the tokenizer and template alone that a converted model is held against.",
        example="a folder",
        takes="folder",
        **_own("tokenizer", _folder),
    ),
    Option(
        "imatrix",
        "Imatrix",
        "Conversion",
        "Importance matrix of llama-imatrix, for gguf recipes: which weights matter most.",
        example="a .gguf or .dat of llama-imatrix",
        takes="file",
        **_own("imatrix", _file),
    ),
    Option(
        "calibration",
        "Calibration",
        "Conversion",
        "Collect an importance matrix over this text, for gguf recipes.",
        example="a text file",
        takes="file",
        **_own("calibration", _file),
    ),
    Option(
        "tensor-type",
        "Types",
        "Conversion",
        "Types of the tensors that patterns match, for gguf recipes; with spaces between several.",
        example="attn_v=Q8_0",
        **_own("tensor_types", lambda words: tuple(_words(words)), (), " ".join),
    ),
    Option(
        "repack",
        "Repack",
        "Conversion",
        "Take over what a checkpoint stores in groups of 4 bits, number for number.",
        example="take the checkpoint's own 4-bit numbers",
        **_consent("repack"),
    ),
    Option(
        "adapter-inputs",
        "LoRA inputs",
        "Conversion",
        "The graph of an onnx recipe gets inputs for the matrices of an adapter, which is packaged "
        "by itself.",
        example="the graph takes adapters",
        **_consent("adapter_inputs"),
    ),
    Option(
        "sustained",
        "Sustained",
        "Measuring",
        "Decode without a pause for this many more seconds, and show whether the machine "
        "throttles.",
        example="0 s",
        usual="0 s",
        **_own("sustained_s", _seconds, 0, lambda value: f"{value:.15g}"),
    ),
    Option(
        "quality-text",
        "Gate's text",
        "Measuring",
        "The quality gate reads this text instead of ours: one like what the model will read.",
        example="ours, or a text file",
        usual="ours",
        takes="file",
        **_own("quality_text", _readable_text),
    ),
    Option(
        "quality-tokens",
        "Its tokens",
        "Measuring",
        "Tokens of it that the quality gate reads; by the model's size unless you say.",
        example="by the model's size",
        usual="by the model's size",
        **_own("quality_tokens", _whole(2, 10**6)),
    ),
    Option(
        "allow-quality-loss",
        "Any loss",
        "Measuring",
        "Write the package even where it lost too much; its manifest says so.",
        example="package it even if it lost too much",
        **_consent("allow_quality_loss"),
    ),
    Option(
        "package-version",
        "Version",
        "Package",
        "The package's own version; verify --min-version refuses older ones.",
        example="none, or 1.4.0",
        **_own("version", _version),
    ),
)
"""Every one, in the order of the screen."""


def written(ask: Ask, texts: dict[str, str]) -> Ask:
    """The ask with what stands on the lines, by their names. Raises WrongOption for the first that
    is none, and PackError where two contradict each other."""
    for option in OPTIONS:
        try:
            ask = option.write(ask, texts[option.name].strip())
        except PackError as error:
            raise WrongOption(option.name, error) from error
    ask.options.additions()
    return ask


def listed(ask: Ask) -> list[tuple[str, str]]:
    """Every line as text with its style, by section: what is said, or muted what goes without
    saying."""
    parts: list[tuple[str, str]] = [
        ("Options", "bold"),
        ("  o changes them\n", "$foreground-muted"),
    ]
    section = OPTIONS[0].section
    for option in OPTIONS:
        parts += [("\n", "")] if option.section != section else []
        section, said = option.section, option.read(ask)
        parts.append((f"{option.label:<{_LABEL}}", ""))
        parts.append((f"{said}\n", "bold") if said else (f"{option.usual}\n", "$foreground-muted"))
    return parts


def cleared(ask: Ask) -> Ask:
    """The ask with nothing said on any line."""
    nothing = dict.fromkeys(_OF_WISH)
    return replace(ask.wishing(**nothing), options=BuildOptions())


def flags(ask: Ask) -> list[str]:
    """What the lines say, as words of the command line."""
    of_wish = {field: getattr(ask.wish, field) for field in _OF_WISH}
    return [*Wish(**of_wish).flags(), *ask.options.flags()]


class WrongOption(Exception):
    """A line holds what it cannot take: its name, and the error."""

    def __init__(self, name: str, error: PackError) -> None:
        super().__init__(str(error))
        self.name, self.error = name, error
