"""What measurements and manifests hold, as types: read from JSON with every field checked, and
written back.

The lowest floor of the core: what is recorded here is made, shown and judged elsewhere.
"""

from __future__ import annotations

from packager.records.base import Misfit, Record
from packager.records.behaviour import Behaviour
from packager.records.contents import Alternative, Contents
from packager.records.measurement import Machine, Measurement, Sustained, ThreadSearch
from packager.records.quality import Parity, Quality, QualityVerdict
from packager.records.verdict import Verdict

__all__ = [
    "Alternative",
    "Behaviour",
    "Contents",
    "Machine",
    "Measurement",
    "Misfit",
    "Parity",
    "Quality",
    "QualityVerdict",
    "Record",
    "Sustained",
    "ThreadSearch",
    "Verdict",
]
