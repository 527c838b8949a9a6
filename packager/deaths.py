"""How a process died, in words: what each signal means, and the one line of its log that says
why."""

from __future__ import annotations

import contextlib
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from packager.errors import ExitCode, PackError, no_room

_TAIL_BYTES = 1 << 16
_LONGEST = 300

_WORDS = {
    "SIGILL": "an instruction that this processor does not know or refuses",
    "SIGFPE": "an arithmetic error such as a division by zero",
    "SIGSEGV": "an access to memory that is not its own",
    "SIGBUS": "an access to a part of memory or of a file that is not there",
    "SIGABRT": "a failed internal check",
    "SIGKILL": "being killed from outside",
    "SIGTRAP": "a trap that its compiler set for what cannot happen",
    "SIGSYS": "a system call that is not allowed here",
}
CRASHES = frozenset(_WORDS) - {"SIGKILL"}
"""Signals that a program brings on itself: the next try in the same way would end so as well."""

_REASONS = (
    re.compile(r".*GGML_ASSERT\(.*"),
    re.compile(r".*\bggml[\w/.-]*:\d+: .*"),
    re.compile(r".*\bAssertion .* failed.*"),
    re.compile(r".*what\(\):.*"),
    re.compile(r".*\bterminate called\b.*"),
)
"""What engines say before they abort; the first that is found tells most."""


@dataclass(frozen=True, slots=True)
class Death:
    """A process that a signal ended: its name, what the log says of the reason, the most bytes it
    had resident. A process that hung was ended from here: `signal` is empty, `said` tells how it
    was seen."""

    signal: str
    said: str
    peak_bytes: int
    log: Path

    @property
    def hung(self) -> bool:
        """Whether it gave no sign of life any more."""
        return not self.signal

    @property
    def crashed(self) -> bool:
        """Whether it did that itself, and was not ended by somebody."""
        return self.hung or self.signal in CRASHES

    def words(self) -> str:
        """`SIGSEGV, an access to memory that is not its own`, and with it the reason that a failed
        check has told."""
        if self.hung:
            return self.said
        words = _WORDS.get(self.signal)
        named = f"{self.signal}, {words}" if words else f"signal {self.signal}"
        return f"{named} ({self.said})" if self.signal == "SIGABRT" and self.said else named


class Died(PackError):
    """A child process that a signal ended; the message names the job, not yet the engine."""

    def __init__(
        self, death: Death, message: str, hint: str, exit_code: ExitCode = ExitCode.BUG
    ) -> None:
        super().__init__(message, hint, exit_code)
        self.death = death


def death_of(job: str, code: int, peak: int, log: Path) -> PackError:
    """The error for a child that ended with that exit code and without a word: a Died where a
    signal ended it."""
    if code >= 0:
        last = last_line(log)
        how = f"The process {job} ended with exit code {code}{': ' + last if last else '.'}"
        return PackError(how, f"Its whole output is in {log}.", ExitCode.BUG)
    death = Death(_name(-code), reason(log), peak, log)
    if death.signal == "SIGKILL":
        full = no_room(
            f"The process was killed from outside after using {peak / 1e9:.1f} GB, most likely "
            "because memory ran out.",
            "Close other programs, choose a smaller variant, or build on a larger machine.",
        )
        return Died(death, full.message, full.hint, full.exit_code)
    last_words = f": {death.said}" if death.said and death.signal != "SIGABRT" else "."
    return Died(
        death,
        f"The process {job} ended with signal {death.words()}{last_words}",
        f"Its whole output is in {log}.",
    )


def hang_of(job: str, sign: str, peak: int, log: Path) -> Died:
    """The error for a child that was ended because it hung, which `sign` tells."""
    return Died(
        Death("", sign, peak, log),
        f"The process {job} hung: {sign}.",
        f"Its whole output is in {log}.",
        ExitCode.RESOURCE,
    )


def _name(number: int) -> str:
    """A real-time signal has a number and no name."""
    return signal.Signals(number).name if number in set(signal.Signals) else str(number)


def reason(log: Path) -> str:
    """What the end of a log says of an abort, or its last line; shortened."""
    lines = _lines(log)
    for pattern in _REASONS:
        for line in lines:
            if pattern.fullmatch(line):
                return line[:_LONGEST]
    return lines[-1][:_LONGEST] if lines else ""


def last_line(log: Path) -> str:
    """The last line of a log that is not empty, shortened."""
    lines = _lines(log)
    return lines[-1][:_LONGEST] if lines else ""


def _lines(log: Path) -> list[str]:
    with contextlib.suppress(OSError), log.open("rb") as file:
        # An engine that complains in a loop writes gigabytes.
        file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
        return [
            line.strip()
            for line in file.read().decode(errors="replace").splitlines()
            if line.strip()
        ]
    return []
