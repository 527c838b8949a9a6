"""The workload as options, declared once for every command, and merged with a target's default."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import click

if TYPE_CHECKING:
    from packager.device.target import Target
    from packager.need.workload import Workload

    # Generic for type checkers in every release, at run time only in later ones than the least we
    # accept.
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType

_Command = TypeVar("_Command", bound=Callable[..., Any])

Flags: TypeAlias = Mapping[str, Any]
"""Options by the names of their parameters. Any: what each holds is what its type of click made of
the words, and click hands them over untyped."""

MOST_TOKENS = 2**24
_VISION = "vision"
_INPUTS = {_VISION: ("text", "image"), "image": ("text", "image"), "audio": ("text", "audio")}
IMAGE_TOKENS = (8, 4096)
"""What llama.cpp makes of a picture at least and at most. Source: tools/mtmd/clip.cpp."""
AUDIO_SECONDS = 1200
"""What Qwen3-ASR's own package takes at once (qwen_asr/inference/utils.py)."""
_MB = 10**6
_MOST_MB = 64 * 10**6
_TURNED = (
    *("max_artifact_mb", "max_file_size", "max_memory_mb"),
    *("min_score", "modality", "license", "language"),
)
"""Flags that are no field of a Workload as they are."""
_FLAGS = (
    *("use_case", "context", "prompt", "min_decode_tps", "max_ttft_ms", *_TURNED),
    *("prefer", "dimension", "parallel", "max_image_tokens", "max_audio_seconds"),
    *("documents_per_second", "query_ms"),
)


class Number(_ParamType):
    """A finite number between `low` and `high`, whole or not; the sentence of a refusal names
    both."""

    name = "number"

    def __init__(self, low: float, high: float, whole: bool = False) -> None:
        self.low, self.high, self.whole = low, high, whole

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | int:
        """The number; refused with a sentence otherwise (exit code 2)."""
        text = str(value).replace("_", "")
        try:
            number = int(text) if self.whole else float(text)
        except (ValueError, OverflowError):
            self.fail(
                f"{_short(value)} is not a {'whole ' if self.whole else ''}number.", param, ctx
            )
        # A comparison with NaN is false, so it is refused as well.
        if not self.low <= number <= self.high:
            self.fail(
                f"{_short(value)} is not between {self.low:.0f} and {self.high:.0f}.", param, ctx
            )
        return number


def sustained_option(command: _Command) -> _Command:
    """`--sustained SECONDS`, for what measures."""
    help_text = (
        "Decode without a pause for this many more seconds, and show whether the machine throttles."
    )
    option = click.option(
        "--sustained", type=Number(0, 86400), default=0, metavar="SECONDS", help=help_text
    )
    decorated: _Command = option(command)
    return decorated


def machine_options(several: bool, python: bool = True) -> Callable[[_Command], _Command]:
    """`--on` (repeatable where `several`), `--agent` and `--cool`, for what measures elsewhere;
    `python` where our own code can take the agent's part."""
    ours = "; python[:PATH] for qwen-pack itself where Python and the engine are there."

    def decorate(command: _Command) -> _Command:
        options = (
            click.option(
                "--on",
                "machines" if several else "address",
                metavar="ADDRESS",
                multiple=several,
                help="Measure on another machine: ssh://[USER@]HOST[:PORT][/FOLDER], adb:SERIAL, "
                f"local:, or its name in `qwen-pack lab`{'; repeatable' if several else ''}.",
            ),
            click.option(
                "--agent",
                metavar="NAME|FILE",
                help="With --on: the program that runs the model there, by its name or as a file"
                f"{ours if python else '.'}",
            ),
            click.option(
                "--cool",
                type=Number(0, 150),
                metavar="DEGREES",
                help="Wait until the processor is at most this hot, in degrees Celsius.",
            ),
        )
        decorated = command
        for option in reversed(options):
            decorated = option(decorated)
        return decorated

    return decorate


class Size(_ParamType):
    """A number of bytes as people write it."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes; refused with a sentence otherwise (exit code 2)."""
        from packager.errors import PackError
        from packager.units import parse_bytes

        try:
            return value if isinstance(value, int) else parse_bytes(str(value))
        except PackError as error:
            self.fail(str(error), param, ctx)


class Score(_ParamType):
    """`BENCHMARK=SCORE`, the benchmark under its published name, case aside."""

    name = "benchmark=score"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, float]:
        """The published name and the least score."""
        if isinstance(value, tuple):
            return value
        name, equals, score = str(value).rpartition("=")
        if not equals or not name.strip():
            self.fail(f"{_short(value)} is not BENCHMARK=SCORE, for example IFEval=60.", param, ctx)
        from packager.need.usecases import benchmark

        return benchmark(name.strip()), float(Number(0, 100).convert(score.strip(), param, ctx))


class Languages(_ParamType):
    """A language by its code or English name, or several behind commas."""

    name = "language"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """The codes. Raises PackError (usage) for an unknown one."""
        from packager.need.languages import codes

        if isinstance(value, tuple):
            return value
        return codes([word for word in str(value).split(",") if word.strip()] or [""])


class Names(_ParamType):
    """One of names that are only read when they are needed, with "did you mean"."""

    name = "name"

    def __init__(self, known: Callable[[], tuple[str, ...]], what: str) -> None:
        self.known, self.what = known, what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The name as it is known, case aside."""
        known = self.known()
        by_fold = {name.casefold(): name for name in known}
        if str(value).casefold() not in by_fold:
            from packager.names import did_you_mean

            near = did_you_mean(str(value), known) or f" Known: {', '.join(known)}."
            self.fail(f"there is no {self.what} {_short(value)}.{near}", param, ctx)
        return by_fold[str(value).casefold()]


def _short(value: Any) -> str:
    text = str(value)
    return repr(text if len(text) <= 40 else text[:37] + "...")


def _use_cases() -> tuple[str, ...]:
    from packager.need.usecases import use_case_names

    return use_case_names()


def _modalities() -> tuple[str, ...]:
    from packager.need.usecases import MODALITIES

    return (*MODALITIES, _VISION)


def _inputs(words: Any) -> tuple[str, ...] | None:
    """The inputs that were named, `vision` as text and image; None where none was."""
    named = [kind for word in words or () for kind in _INPUTS.get(word, (word,))]
    return tuple(dict.fromkeys(named)) or None


def _licences() -> tuple[str, ...]:
    from packager.catalog import licence_ids

    return ("any", *licence_ids())


_OPTIONS = (
    click.option(
        "--use-case",
        type=Names(_use_cases, "use case"),
        help="What it is for: chat, assistant, code, maths, reasoning, ...",
    ),
    click.option(
        "--context",
        type=Number(16, MOST_TOKENS, whole=True),
        help="Tokens of prompt and answer together.",
    ),
    click.option(
        "--prompt",
        type=Number(1, MOST_TOKENS, whole=True),
        help="Tokens of a typical prompt, for the time to first token.",
    ),
    click.option(
        "--min-decode-tps",
        type=Number(0, 1e6),
        help="Least tokens per second of an answer; 0 sets no minimum.",
    ),
    click.option(
        "--max-ttft-ms",
        type=Number(1, 1e9),
        help="Longest wait for the first token, in milliseconds.",
    ),
    click.option(
        "--max-artifact-mb",
        type=Number(1, _MOST_MB),
        help="Largest size of the model files, in MB (10^6 bytes).",
    ),
    click.option(
        "--max-file-size",
        type=Size(),
        help="Largest single file of the model, e.g. 2G or 1500M; GGUF is split to stay below.",
    ),
    click.option(
        "--max-memory-mb",
        type=Number(1, _MOST_MB),
        help="Most memory one model may take, in MB, below what the device has.",
    ),
    click.option(
        "--min-score",
        type=Score(),
        multiple=True,
        help="BENCHMARK=SCORE, in place of the use case's floor; repeatable.",
    ),
    click.option(
        "--modality",
        type=Names(_modalities, "modality"),
        multiple=True,
        help="An input it must take: text, image, ...; repeatable. vision is text and image, and "
        "text alone builds the decoder of a vision model without its tower.",
    ),
    click.option(
        "--license",
        type=Names(_licences, "licence"),
        multiple=True,
        help="A licence id to accept, or `any`; repeatable.",
    ),
    click.option(
        "--language",
        "--languages",
        "language",
        type=Languages(),
        multiple=True,
        help="A language of the answers, e.g. German or de; repeatable.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(["smallest", "quality", "speed", "balanced", "cost"]),
        help="How to rank what fits: least memory (default), highest scores, fastest, a balance of "
        "the three, or the cheapest answer. Recipes under 4 bits per weight always rank last.",
    ),
    click.option(
        "--dimension",
        type=Number(1, MOST_TOKENS, whole=True),
        help="How many numbers of a vector are kept, for --use-case embed; all by default.",
    ),
    click.option(
        "--parallel",
        "--concurrent-users",
        "parallel",
        type=Number(1, 4096, whole=True),
        help="Answers that are given at once, each with its own context; 1 by default.",
    ),
    click.option(
        "--max-image-tokens",
        type=Number(*IMAGE_TOKENS, whole=True),
        help="Most tokens that one picture may take, for --use-case vision; 1024 by default.",
    ),
    click.option(
        "--max-audio-seconds",
        type=Number(1, AUDIO_SECONDS, whole=True),
        help="Longest sound that is taken at once, for --use-case audio; 30 by default.",
    ),
    click.option(
        "--documents-per-second",
        type=Number(0.001, 1e6),
        help="Least rate of documents of --prompt tokens, for --use-case embed or rerank.",
    ),
    click.option(
        "--query-ms",
        type=Number(1, 1e9),
        help="Longest wait for a query's vector, for --use-case embed, in milliseconds.",
    ),
)


def workload_options(command: _Command) -> _Command:
    """Add every flag of the workload to a command; its values arrive by name and go into
    `workload_from`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def words_of(flags: Flags) -> list[str]:
    """The flags of workload and additions that were given, as words of a command line again; others
    in `flags` are ignored."""
    words: list[str] = []
    for name in (*_FLAGS, "imatrix", "calibration", "tensor_type", "repack", "adapter_inputs"):
        value = flags.get(name)
        if value is None or value is False:
            continue
        if value is True:
            words.append(f"--{name.replace('_', '-')}")
            continue
        for given in value if isinstance(value, tuple) else (value,):
            if isinstance(given, tuple):
                given = f"{given[0]}={given[1]:.15g}" if name == "min_score" else ",".join(given)
            words += [
                f"--{name.replace('_', '-')}",
                f"{given:.15g}" if isinstance(given, float) else str(given),
            ]
    return words


def _made_for(model: str | None) -> str | None:
    """The use case of a variant of the catalogue that gives no text; None for every other name."""
    from packager import catalog
    from packager.select.rules import RETRIEVAL_KINDS

    wanted = (model or "").strip().casefold()
    for variant in catalog.load() if wanted else ():
        if wanted in (variant.repo_id.casefold(), variant.name.casefold()):
            return RETRIEVAL_KINDS.get(variant.kind)
    return None


def workload_from(flags: Flags, target: Target | None, model: str | None = None) -> Workload:
    """The workload of the flags (others in `flags` are ignored) over the target's default over the
    use case's own. Without a use case a `model` of the catalogue that gives no text says its own.

    Raises PackError (usage) where they contradict each other.
    """
    from packager.need.workload import merge

    given = {name: flags.get(name) for name in _FLAGS}
    given["use_case"] = given["use_case"] or _made_for(model)
    # Of a Workload, whose types `merge` checks.
    fields: dict[str, Any] = {name: given[name] for name in _FLAGS if name not in _TURNED}
    fields["max_artifact_bytes"] = (
        None if given["max_artifact_mb"] is None else round(given["max_artifact_mb"] * _MB)
    )
    fields["max_file_bytes"] = given["max_file_size"]
    fields["max_memory_bytes"] = (
        None if given["max_memory_mb"] is None else round(given["max_memory_mb"] * _MB)
    )
    fields["min_scores"] = dict(given["min_score"]) if given["min_score"] else None
    fields["modality"] = _inputs(given["modality"])
    fields["licenses"] = tuple(given["license"]) if given["license"] else None
    fields["languages"] = (
        tuple(dict.fromkeys(code for some in given["language"] for code in some))
        if given["language"]
        else None
    )
    return merge(fields, target.workload if target else None)
