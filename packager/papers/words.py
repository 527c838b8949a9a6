"""What a model is for and where its limits are, from a manifest's inputs alone: the card and the
bill of materials say the same."""

from __future__ import annotations

from packager.catalog.licences import known
from packager.need.languages import in_words
from packager.recipe import REPACK, marks_of
from packager.records import Contents
from packager.records.contents import Need
from packager.records.origin import AdoptedOf


def summary(contents: Contents) -> str:
    """What the package is, in a sentence."""
    adopted = contents.source.adopted
    if adopted is not None:
        return (
            f"A model that somebody else had converted, taken as {contents.recipe.id} of "
            f"{contents.variant.repo_id} for {contents.runtime.name} ({_known(adopted)}), planned "
            f"for {contents.target}."
        )
    if contents.adapter is not None:
        named = " and ".join(adapter.location for adapter in contents.source.adapters)
        return (
            f"The adapter {named}, which {contents.runtime.name} adds to the package "
            f"{contents.adapter.base.name} of {contents.variant.repo_id} while it computes."
        )
    what = "Random weights in the shape of" if contents.source.dummy else "The weights of"
    return (
        f"{what} {contents.variant.repo_id}{_changes(contents)}, "
        f"converted to {contents.recipe.id} for "
        f"{contents.runtime.name}, planned for {contents.target}."
    )


def _known(adopted: AdoptedOf) -> str:
    """How the variant of an adopted model is known."""
    return {
        "user": "so its builder said",
        "against": "it was compared with it",
        "name": "by its own name and its shape",
        "shape": "the only variant of its shape",
    }.get(adopted.by, "which variant it is made from is not known")


def _changes(contents: Contents) -> str:
    """What became of the weights before they were converted."""
    source = contents.source
    changes = ""
    if source.quantized:
        changes = f", dequantized from {source.quantized}"
        if REPACK in marks_of(contents.recipe.id):
            changes = f", whose groups were taken over as they were stored ({source.quantized})"
    if source.adapters:
        named = " and ".join(adapter.location for adapter in source.adapters)
        changes += f", merged with the adapter {named}"
    return changes


def users(contents: Contents) -> str:
    """For whom it is."""
    kind = {"embed": "an embedder", "rerank": "a reranker"}.get(contents.task, "a language model")
    return (
        f"Developers who put {kind} on {contents.target} or a device like it, "
        "with their own interface."
    )


def uses(contents: Contents) -> list[str]:
    """What it was planned for."""
    need = contents.workload or Need()
    purpose = f"{need.use_case or 'general'}{in_words(need.languages)}"
    own = contents.retrieval
    if own is not None and own.task == "embed":
        return [
            f"{purpose}: text in, a vector of {own.dimension} numbers out, texts of up to "
            f"{need.context} tokens."
        ]
    if own is not None:
        return [
            f"{purpose}: a query and a document in, a score from 0 to 1 out, up to {need.context} "
            "tokens together."
        ]
    if contents.audio is not None and contents.audio.window_seconds is not None:
        return [
            f"{purpose}: text and a sound of up to {contents.audio.max_audio_seconds} seconds in, "
            f"text out, up to {need.context} tokens of prompt and answer."
        ]
    if contents.audio is not None:
        most = contents.audio.max_audio_seconds
        return [
            f"{purpose}: sound in, what is said in it out as text, {most} seconds at once; a "
            "longer sound is cut into pieces."
        ]
    taken = "text in"
    if contents.vision is not None:
        taken = f"text and pictures of up to {contents.vision.max_image_tokens} tokens in"
    return [f"{purpose}: {taken}, text out, up to {need.context} tokens of prompt and answer."]


_LEFT_OUT = {
    "text": "Text only: images and sound are not part of the package.",
    "vision": "Sound is not part of the package.",
    "audio": "Images are not part of the package.",
}


def limits(contents: Contents) -> list[str]:
    """Where it must not be relied on, a sentence each."""
    sentences = []
    if contents.task != "generate":
        return _limits_of_retrieval(contents)
    if contents.source.dummy:
        sentences.append(
            "Its weights are random: its answers mean nothing, and it exists to measure size, "
            "speed and "
            "memory."
        )
    else:
        sentences.append(
            "Its answers can be wrong, made up, out of date or unfair: check what matters before "
            "anyone acts on it."
        )
        sentences.append(
            "Safety was not tested here: what its publisher says about training data, languages "
            "and safety is about the unquantized model."
        )
    if contents.source.adopted:
        sentences.append(
            "Who converted it, from what and how, is not proved, and it cannot be built again: "
            "`qwen-pack attest` compares it with a checkpoint."
        )
    summary_of_recipe = contents.recipe.summary
    how = f" ({summary_of_recipe})" if summary_of_recipe else ""
    sentences.append(
        f"Quantizing{how} changes answers: the measured divergence says how much on average, your "
        "own texts say more."
    )
    if contents.source.quantized:
        sentences.append(
            f"Its weights had been quantized before ({contents.source.quantized}): the measured "
            "divergence is relative to them, so that earlier loss is not part of it."
        )
    sentences.append(
        f"Prompt and answer together hold {contents.context} tokens; longer ones were not planned "
        "for."
    )
    heard = contents.quality.sounds if contents.quality else None
    if heard is not None and heard.moved:
        sentences.append(heard.moved)
    sentences.append(_LEFT_OUT[contents.modality])
    return sentences + _limits_of_licence(contents)


def _limits_of_retrieval(contents: Contents) -> list[str]:
    sentences = []
    if contents.source.dummy:
        sentences.append(
            "Its weights are random: its results mean nothing, and it exists to measure size, "
            "speed and "
            "memory."
        )
    sentences.append(
        "Vectors of another model, another recipe or another number of kept numbers cannot be "
        "compared with these: rebuild the index when the package changes."
        if contents.task == "embed"
        else "A score orders documents of one query; it is not a probability, and scores of two "
        "queries cannot be compared."
    )
    sentences.append(
        "What ranks first is close to the query in meaning, which does not make it true."
    )
    sentences.append(f"A text holds {contents.context} tokens; the rest is cut off.")
    return sentences + _limits_of_licence(contents)


def _limits_of_licence(contents: Contents) -> list[str]:
    sentences = []
    row = known().get((contents.variant.license or "").casefold()) or {}
    if row.get("agreement"):
        sentences.append(f"Its licence ({row['name']}) {row['agreement']}.")
    elif contents.variant.license is None:
        sentences.append("No known source states its licence: find out what it allows.")
    elif not row:
        sentences.append("Its licence is not known to qwen-pack: find out what it allows.")
    return sentences
