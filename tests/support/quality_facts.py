"""What an engine's job found of an artifact, and the verdict on it."""

from __future__ import annotations

from typing import Any

import pytest

from packager.errors import ExitCode, PackError
from packager.quality.thresholds import limits
from packager.quality.verdict import check, judged
from packager.records import Quality
from tests.conftest import REPOSITORY

TINY = REPOSITORY / "tests" / "models" / "tiny-qwen3"


TEXT = {"name": "a text", "sha256": "0" * 64}


def verdict_of(facts: dict[str, Any], grade: str, allow: bool = False) -> Quality:
    return judged({**facts, "text": TEXT}, limits(grade), None, allow)


def refusal_of(quality: dict[str, Any]) -> str:
    with pytest.raises(PackError) as caught:
        check(quality)
    assert caught.value.exit_code is ExitCode.BUDGET
    assert "--allow-quality-loss" in caught.value.hint
    return caught.value.message


def facts_with(**figures: float) -> dict[str, Any]:
    found = {
        "tokens": 100,
        "broken": 0,
        "kl_mean": 0.01,
        "kl_p95": 0.05,
        "kl_max": 0.2,
        "top1": 0.95,
        "perplexity": 9.9,
    }
    found |= {"reference_perplexity": 9.8, "perplexity_ratio": 1.01, **figures}
    same = {
        "texts": 1,
        "tokens": 2,
        "control_tokens": 3,
        "conversations": 1,
        "ends": [1],
        "stopped_after": 4,
        "notes": [],
        "findings": [],
    }
    return {
        "figures": found,
        "parts": [],
        "text": TEXT,
        "vocabulary": 1000,
        "compare_seconds": 1.0,
        "parity": same,
    }
