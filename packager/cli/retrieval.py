"""What `embed` and `rerank` share: the package, the texts, the child that computes."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from packager.cli.output import narrate
from packager.json_values import JsonObject, at_or_none, texts_at

if TYPE_CHECKING:
    from packager.package.manifest import Manifest

_MOST_BYTES = 64 << 20


def opened(package: Path, task: str) -> tuple[Manifest, JsonObject]:
    """The manifest of a package for that task, and the arguments of its session.

    Raises PackError: usage for a package of another task, and as packager.pipeline.bench.whole.
    """
    from packager.errors import usage
    from packager.measure.session_settings import settings_of
    from packager.package import manifest
    from packager.package.package import MODEL
    from packager.pipeline import bench
    from packager.runtime import Retrieves
    from targets import registry

    contents = manifest.read(package).contents
    runtime = registry.runtime(contents.runtime.name)
    if contents.task != task or not isinstance(runtime, Retrieves):
        other = "run" if contents.task == "generate" else contents.task
        raise usage(
            f"{package} is not made for `{task}`.",
            f"`qwen-pack {other}` asks it; `qwen-pack build --use-case {task}` builds one that is.",
        )
    known = bench.whole(package, runtime)
    if known.contents.source.dummy:
        narrate("The weights of this package are random: what follows means nothing.")
    return known, {
        "session": runtime.retrieval_session,
        "artifact": str(package / MODEL),
        "settings": settings_of(known),
    }


def lines_of(file: Path | None) -> list[str]:
    """The lines of a text file that hold something. Raises PackError (bad input) for what is not
    text."""
    from packager.errors import bad_input, usage

    if file is None:
        return []
    try:
        if file.stat().st_size > _MOST_BYTES:
            raise bad_input(f"{file} has more than {_MOST_BYTES} bytes.", "Give it in parts.")
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise bad_input(f"{file} is not UTF-8 text.", "Save it as UTF-8.") from None
    except OSError as error:
        raise usage(f"{file} cannot be read: {error.strerror}.", "Check the path.") from None
    return [line for line in text.splitlines() if line.strip()]


def asked(job: str, arguments: JsonObject) -> JsonObject:
    """The result of a job in a child process."""
    from packager.errors import usage
    from packager.pipeline.cache import BuildCache
    from packager.process import run_job

    texts = [*texts_at(arguments, "texts"), *texts_at(arguments, "documents")]
    texts += [at_or_none(arguments, name, str) or "" for name in ("query", "instruction")]
    if any("\ud800" <= char <= "\udfff" for text in texts for char in text):
        raise usage("A text is not valid UTF-8.", "Check the terminal's encoding.")
    with closing(run_job(job, arguments, BuildCache().log("run"))) as work:
        while True:
            try:
                next(work)
            except StopIteration as stop:
                result: JsonObject = stop.value.value
                return result
