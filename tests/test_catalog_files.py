"""The catalogue's files: whatever is wrong in one is refused with the file and the key named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from packager.catalog.benchmarks import read_scores
from packager.catalog.counts import read_counts
from packager.catalog.loader import FOLDER, read_all
from packager.errors import ExitCode, PackError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the catalogue that a test may damage."""
    copy = tmp_path / "catalog"
    shutil.copytree(FOLDER, copy, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return copy


def change(file: Path, old: str, new: str) -> None:
    """Replace the first occurrence; a test whose `old` is gone says so itself."""
    text = file.read_text("utf-8")
    assert old in text, f"{file.name} no longer holds {old!r}"
    file.write_text(text.replace(old, new, 1), "utf-8")


ROW = 'repo_id = "Qwen/Qwen3-0.6B"'
AT = r"qwen3\.toml: variants\[0\] \(Qwen/Qwen3-0\.6B\)"


def test_an_undamaged_copy_is_read(folder: Path) -> None:
    assert read_all(folder) == read_all()


@pytest.mark.parametrize(
    ("file", "old", "new", "complaint"),
    [
        (
            "qwen3.toml",
            ROW,
            f"{ROW}\nlicence = 'mit'",
            AT + r"\.licence is not a key of the catalogue\. Did you mean 'license'",
        ),
        ("qwen3.toml", ROW, f"{ROW}\ncontext = '32k'", AT + r"\.context must be int, not str"),
        ("qwen3.toml", ROW, f"{ROW}\ncontext = true", AT + r"\.context must be int, not bool"),
        ("qwen3.toml", ROW, f"{ROW}\ncontext = -1", AT + r"\.context is -1, which is below zero"),
        (
            "qwen3.toml",
            ROW,
            f"{ROW}\nkind = 'poet'",
            AT + r"\.kind is 'poet'; it must be one of general, coder",
        ),
        (
            "qwen3.toml",
            ROW,
            f"{ROW}\nlicense = 'mit'",
            AT + r"\.license is 'mit', which licenses\.toml does not define",
        ),
        (
            "qwen3.toml",
            ROW,
            f"{ROW}\nvision = 5",
            AT + r"\.sources has no 'vision', the source of vision = 5",
        ),
        (
            "qwen3.toml",
            ROW,
            f"{ROW}\nnearest = 'Qwen/Qwen9'",
            r"names 'Qwen/Qwen9' as nearest to Qwen/Qwen3-0\.6B, which is not listed",
        ),
        ("qwen3.toml", ROW, "", r"qwen3\.toml: variants\[0\] has no 'repo_id'"),
        ("qwen3.toml", ROW, 'repo_id = "Qwen/Qwen3-8B"', r"lists Qwen/Qwen3-8B twice"),
        (
            "qwen3.toml",
            'family = "Qwen3"',
            'family = "Qwen9"',
            AT + r"\.family is 'Qwen9', which \[families\] does not define",
        ),
        (
            "qwen3.toml",
            'shape = "qwen3-0.6b"',
            'shape = "qwen9"',
            AT + r"\.shape is 'qwen9', which shapes\.toml does not define",
        ),
        ("qwen3.toml", 'model_type = "qwen3"', "", AT + " has no 'model_type', nor has its family"),
        (
            "qwen3.toml",
            'repo_id = "ms-swift"',
            'repo_id = "nowhere"',
            AT + r"\.sources\.repo_id names the source 'nowhere'",
        ),
        (
            "qwen3.toml",
            'repo_id = "ms-swift"',
            'repo_id = " "',
            AT + r"\.sources\.repo_id names no source",
        ),
        (
            "qwen3.toml",
            '[families."Qwen3"]',
            '[families."Qwen3"]\nsize = 1',
            r"qwen3\.toml: families\.Qwen3\.size is not a key",
        ),
        (
            "qwen3.toml",
            "[sources]",
            "[source]",
            r"qwen3\.toml\.source is not a key of the catalogue\. Did you mean 'sources'",
        ),
        ("qwen3.toml", "[sources]", "[sources", r"qwen3\.toml cannot be read: .* line 1"),
        (
            "shapes.toml",
            "hidden = 2048",
            "hidden = 2048.0",
            r"shapes\.toml: shapes\.qwen-1\.8b\.hidden must be int, not float",
        ),
        ("shapes.toml", "hidden = 2048", "", r"shapes\.toml: shapes\.qwen-1\.8b has no 'hidden'"),
        (
            "shapes.toml",
            "active = 4,",
            "",
            r"shapes\.toml: shapes\.qwen1\.5-moe-a2\.7b\.experts has no 'active'",
        ),
        (
            "shapes.toml",
            "interval = 4,",
            "intervall = 4,",
            r"hybrid\.intervall is not a key of the catalogue\. Did you mean 'interval'",
        ),
        (
            "licenses.toml",
            "research_only = false",
            "research_only = 0",
            r"licenses\.apache-2\.0\.research_only must be bool, not int",
        ),
        ("licenses.toml", "source =", "from =", r"licenses\.apache-2\.0\.from is not a key"),
    ],
)
def test_a_mistake_is_refused_with_file_and_key_named(
    folder: Path, file: str, old: str, new: str, complaint: str
) -> None:
    change(folder / file, old, new)
    with pytest.raises(PackError, match=complaint) as caught:
        read_all(folder)
    assert caught.value.exit_code == ExitCode.INPUT


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "shapes.toml").unlink()
    with pytest.raises(PackError, match=r"shapes\.toml is missing"):
        read_all(folder)


def test_a_file_that_is_no_text_is_named(folder: Path) -> None:
    (folder / "qwen.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PackError, match=r"qwen\.toml cannot be read"):
        read_all(folder)


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            "MMLU = 45.3",
            'MMLU = "45.3"',
            r"scores\.toml: published\[0\] \(Qwen/Qwen-1_8B\)\.scores\.MMLU is '45\.3'",
        ),
        ('kind = "base"', 'kind = "bass"', r"\.kind is 'bass'; it must be one of base, instruct"),
        (
            'kind = "base"',
            'kind = "base"\nmode = "dreaming"',
            r"\.mode is 'dreaming'; it must be one of thinking, non-thinking",
        ),
        ('kind = "base"', 'kind = "base"\nyear = 2023', r"\.year is not a key"),
        (
            'source = "qwen-84"',
            'source = "somewhere"',
            r"names the source 'somewhere', which \[sources\] does not define",
        ),
        (
            'MMLU = "5-shot"',
            'Chess = "5-shot"',
            r"\.protocols\.Chess has no score in the same table",
        ),
    ],
)
def test_a_mistake_in_the_scores_is_refused_with_the_key_named(
    folder: Path, old: str, new: str, complaint: str
) -> None:
    change(folder / "scores.toml", old, new)
    with pytest.raises(PackError, match=complaint):
        read_scores(folder / "scores.toml")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (
            '"Qwen/Qwen-7B" = 7721324544',
            '"Qwen/Qwen-7B" = "7B"',
            r"stored\.Qwen/Qwen-7B is '7B'; a count is a positive whole number",
        ),
        (
            '"redundant-output"',
            '"moonlight"',
            r"is 'moonlight', which \[differences\] does not define",
        ),
        ("reason =", "why =", r"printed\[0\]\.why is not a key"),
        (
            'reason = "the post rounds to one decimal"',
            "",
            r"printed\[0\] has a tolerance without a reason",
        ),
        (
            "variants =",
            "variant =",
            r"printed\[0\]\.variant is not a key of the catalogue\. Did you mean 'variants'",
        ),
    ],
)
def test_a_mistake_in_the_counts_is_refused_with_the_key_named(
    folder: Path, old: str, new: str, complaint: str
) -> None:
    change(folder / "parameters.toml", old, new)
    with pytest.raises(PackError, match=complaint):
        read_counts(folder / "parameters.toml")
