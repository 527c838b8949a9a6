"""The temperature of a device's processor, without anything of ours that runs there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable

from packager.errors import PackError
from packager.lab.transport import Transport, run
from packager.measure.gauges.clock import hottest
from packager.records.measurement import Through

_ZONES = """for z in /sys/class/thermal/thermal_zone*; do
  [ -r "$z/temp" ] && printf '%s %s\\n' "$(cat "$z/type")" "$(cat "$z/temp")"
done 2>/dev/null
command -v dumpsys >/dev/null && dumpsys thermalservice </dev/null 2>/dev/null
:"""
_ROW = re.compile(r"(\S{1,64}) (-?\d{1,7})")
_PROCESSOR = re.compile("cpu|soc|x86_pkg|acpitz")
# Android's service of temperatures, which its shell may ask where it may not read the zones. Its
# words: AOSP, ThermalManagerService.java and Temperature.java, where type 0 is the processor.
_NOW, _AFTER = "Current temperatures from HAL:", "Current cooling devices"
_SENSOR = re.compile(r"Temperature\{mValue=(-?\d{1,4}(?:\.\d{1,9})?), mType=0, mName=")


def hottest_zone(rows: Iterable[tuple[str, float]]) -> float | None:
    """The hottest of the zones that belong to the processor, in degrees Celsius; `rows` are name
    and thousandths of a degree, as the kernel gives them."""
    own: list[float | None] = [value / 1000 for name, value in rows if _PROCESSOR.search(name)]
    return hottest({"cpu_thermal": own})


def celsius(transport: Transport) -> float | None:
    """The hottest sensor of its processor; None where it tells none."""
    told = run(transport, _ZONES).text
    rows = (_ROW.fullmatch(line.strip()) for line in told.splitlines())
    zone = hottest_zone((row[1], float(row[2])) for row in rows if row)
    return zone if zone is not None else hottest_of_android(told)


def hottest_of_android(text: str) -> float | None:
    """The hottest sensor of the processor in the answer of Android's `dumpsys thermalservice`, in
    degrees Celsius. What is kept from earlier counts only where nothing is read now."""
    now = text.partition(_NOW)[2].partition(_AFTER)[0]
    own: list[float | None] = [float(value) for value in _SENSOR.findall(now or text)]
    return hottest({"cpu_thermal": own})


def with_heat(
    through: Through | None, before: float | None, transport: Transport
) -> Through | None:
    """The way with the temperatures of a device whose agent may not read them; `before` is that of
    its beginning. A device that has gone since loses nothing but the temperature."""
    if through is None or through.temperature_after_c is not None:
        return through
    after = None
    with contextlib.suppress(PackError):
        after = celsius(transport)
    return through.but(temperature_before_c=before, temperature_after_c=after)
