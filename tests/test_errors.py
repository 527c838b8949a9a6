"""One table from exceptions to sentences and exit codes."""

from __future__ import annotations

import errno

import pytest

from packager.errors import ExitCode, PackError, from_foreign


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device", "/x/y"),
            "disk is full, writing '/x/y'",
            ExitCode.RESOURCE,
        ),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), "permission", ExitCode.USAGE),
        (
            FileNotFoundError(errno.ENOENT, "No such file", "/x"),
            "no file or folder '/x'",
            ExitCode.USAGE,
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "/x"),
            "is a file, not a folder",
            ExitCode.USAGE,
        ),
        (
            FileExistsError(errno.EEXIST, "File exists", "/dev/null"),
            "is a file, not a folder",
            ExitCode.USAGE,
        ),
        (
            OSError(errno.ENOTEMPTY, "Directory not empty", "/x/tmp/new", None, "/x/out"),
            "has written '/x/out' meanwhile, and nothing is replaced",
            ExitCode.USAGE,
        ),
        (
            FileExistsError(errno.EEXIST, "File exists", "/dev/null", None, "/x/out.zip"),
            "has written '/x/out.zip' meanwhile, and nothing is replaced",
            ExitCode.USAGE,
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "/x"), "is a folder", ExitCode.USAGE),
        (RuntimeError("Symlink loop from '/x/y'"), "'/x/y' contains a loop", ExitCode.USAGE),
        (MemoryError(), "Memory ran out", ExitCode.RESOURCE),
    ],
)
def test_errors_of_the_system_become_a_sentence_and_an_exit_code(
    error: Exception, words: str, code: ExitCode
) -> None:
    known = from_foreign(error)
    assert known is not None
    assert words in known.message
    assert known.hint
    assert known.exit_code == code


def test_our_own_errors_pass_as_they_are() -> None:
    error = PackError("What happened.", "The way on.", 5)  # type: ignore[arg-type]
    assert from_foreign(error) is error
    assert error.exit_code is ExitCode.SOURCE
    assert str(error) == "What happened. The way on."


@pytest.mark.parametrize(
    "bug",
    [
        ValueError("x"),
        KeyError("x"),
        RuntimeError("x"),
        OSError("no number"),
        FileExistsError(errno.EEXIST, "File exists", "/"),
        ZeroDivisionError(),
    ],
)
def test_a_bug_is_not_dressed_as_anything_else(bug: Exception) -> None:
    assert from_foreign(bug) is None


def test_the_exit_codes_are_the_ones_that_scripts_rely_on() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "DONE": 0,
        "BUG": 1,
        "USAGE": 2,
        "NOTHING_FITS": 3,
        "BUDGET": 4,
        "SOURCE": 5,
        "INPUT": 6,
        "RESOURCE": 7,
        "INTERRUPTED": 130,
    }
