"""Where nothing fits: the sentence that says so, and which use cases no runtime serves yet; for the
terminal and the screens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from packager.need.languages import in_words
from packager.need.usecases import use_case_names
from packager.need.workload import Workload, workload_for
from packager.select.candidate import Candidate
from packager.select.rules import modality

if TYPE_CHECKING:
    from collections.abc import Iterable

    from packager.catalog import Variant
    from packager.device.target import Target


def none_fits(target: Target, workload: Workload, judged: Sequence[Candidate]) -> str:
    """That nothing fits, as one sentence: `None of 157 variants fits laptop-cpu for chat at a
    context of 4096.`"""
    variants = {candidate.variant.repo_id for candidate in judged}
    what = (
        f"{judged[0].variant.name} does not fit"
        if len(variants) == 1
        else f"None of {len(variants)} variants fits"
    )
    return (
        f"{what} {target.name} for {workload.use_case}{in_words(workload.languages)} at a "
        f"context of {workload.context}."
    )


def unserved(variants: Iterable[Variant]) -> frozenset[str]:
    """The use cases that need an input which is built of none of the variants: for them nothing
    fits on any device."""
    known = tuple(variants)
    return frozenset(
        name
        for name in use_case_names()
        if all(any(modality(variant, workload_for(name))) for variant in known)
    )
