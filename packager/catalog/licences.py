"""Which licences of weights ask for an agreement before the weights are passed on; the data is
catalog/licenses.toml."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import cache
from typing import Any

from packager.catalog import UNSTATED
from packager.errors import PackError, usage

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,99}")


def stated(listed: str | None, kind: str, facts: Mapping[str, Any]) -> str | None:
    """The licence of the weights: what their repository declares at the commit that was fetched,
    else what the catalogue lists."""
    declared = facts.get("license") if kind == "hub" else None
    return plain(declared) or listed


def plain(declared: object) -> str | None:
    """The licence id that somebody declares; None for `other` and for what is no id."""
    known_by = isinstance(declared, str) and _ID.fullmatch(declared)
    return str(declared) if known_by and str(declared).casefold() != "other" else None


@cache
def known() -> dict[str, dict[str, Any]]:  # Any: texts and flags, checked by the loader
    """Per licence id: `name`, `spdx`, `research_only`, `source`, and `agreement` where one is asked
    for."""
    from packager.catalog.loader import read_licenses

    return read_licenses()


def spdx(licence: str | None) -> str:
    """The SPDX id, `LicenseRef-...` for a licence without one, `NOASSERTION` where none is
    stated."""
    if licence is None:
        return "NOASSERTION"
    row = known().get(licence.casefold())
    return str(row["spdx"]) if row else f"LicenseRef-{licence}"


def named(licence: str | None) -> str:
    """The same for people: as SPDX writes it, or in words that none is stated."""
    return "not stated by any known source" if licence is None else spdx(licence)


def sentence(licence: str | None) -> str:
    """What people read about the licence of the weights in a package."""
    if licence is None:
        return (
            "No known source states a licence of the weights, so what it allows is unknown: ask "
            "their publisher before you use or pass them on."
        )
    return (
        f"Licence of the weights: {spdx(licence)}; the package has its text, or says where to find "
        "it."
    )


def agreement(licence: str | None) -> str | None:
    """What a licence asks of who passes the weights on, as the end of a sentence; None where
    nothing must be agreed to.

    A licence that nobody states, or that is not known here, must be accepted by name as well.
    """
    if licence is None:
        return "is not stated by any known source, so what it allows is unknown"
    row = known().get(licence.casefold())
    return row.get("agreement") if row else "is not known to qwen-pack"


def refusal(licence: str | None, accepted: Collection[str]) -> PackError | None:
    """Why weights under this licence may not be passed on yet (exit code 2); None when they may."""
    reason = agreement(licence)
    name = licence or UNSTATED
    if reason is None or name.casefold() in {item.casefold() for item in accepted}:
        return None
    return usage(
        f"The licence of the weights ({name}) {reason}.",
        f"When you have agreed to it, export with: --accept-license {name}",
    )
