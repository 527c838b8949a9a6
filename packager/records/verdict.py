"""A verdict: one budget of the workload against what was measured."""

from __future__ import annotations

from packager.records.base import Number, Record


class Verdict(Record, frozen=True, kw_only=True):
    """`measured` and `passed` are None while the device has not been measured; `enforced` says
    whether missing it fails the build."""

    rule: str
    limit: Number
    unit: str
    enforced: bool
    measured: Number | None = None
    passed: bool | None = None

    @property
    def failed(self) -> bool:
        """Whether it was missed and must not be."""
        return self.enforced and self.passed is False
