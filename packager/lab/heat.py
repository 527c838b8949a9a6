"""The temperature of a device's processor before anything of ours runs there."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packager.lab.transport import Transport, run
from packager.measure.gauges.clock import hottest

_ZONES = """for z in /sys/class/thermal/thermal_zone*; do
  [ -r "$z/temp" ] && printf '%s %s\\n' "$(cat "$z/type")" "$(cat "$z/temp")"
done 2>/dev/null"""
_ROW = re.compile(r"(\S{1,64}) (-?\d{1,7})")
_PROCESSOR = re.compile("cpu|soc|x86_pkg|acpitz")


def hottest_zone(rows: Iterable[tuple[str, float]]) -> float | None:
    """The hottest of the zones that belong to the processor, in degrees Celsius; `rows` are name
    and thousandths of a degree, as the kernel gives them."""
    own: list[float | None] = [value / 1000 for name, value in rows if _PROCESSOR.search(name)]
    return hottest({"cpu_thermal": own})


def celsius(transport: Transport) -> float | None:
    """The hottest sensor of its processor; None where it tells none."""
    told = run(transport, _ZONES)
    rows = (_ROW.fullmatch(line.strip()) for line in told.text.splitlines())
    return hottest_zone((row[1], float(row[2])) for row in rows if row)
