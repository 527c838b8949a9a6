"""How hot a device is, by what it tells, and waiting until it is cool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from packager.errors import NotHere
from packager.events import StageNote
from packager.lab.heat import celsius, hottest_of_android, hottest_zone, with_heat
from packager.lab.transport import parse
from packager.pipeline import cooling
from packager.records.measurement import Through


def test_a_hot_processor_is_waited_for_and_one_that_stays_hot_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cooling, "_PAUSE_S", 0.0)
    readings = iter([61.2, 61.0, None, 45.0, 38.0])
    events = list(cooling.cool(lambda: next(readings), 38))
    said = [event.text for event in events if isinstance(event, StageNote)]
    assert said == [f"the processor has {degrees} °C" for degrees in (61, 45, 38)]
    assert list(cooling.cool(lambda: 30.0, 38)) == []
    with pytest.raises(NotHere, match="reports no processor temperature"):
        list(cooling.cool(lambda: None, 38))
    monkeypatch.setattr(cooling, "LONGEST_S", 0.0)
    with pytest.raises(NotHere, match="still has 60 °C"):
        list(cooling.cool(lambda: 60.0, 38))


def test_the_hottest_zone_is_one_of_the_processor() -> None:
    rows = [("battery", 90000.0), ("cpu-0-1", 41000.0), ("x86_pkg_temp", 55000.0)]
    assert hottest_zone(rows) == 55.0
    assert hottest_zone([("battery", 40000.0)]) is None


# An abridged answer of Android 12 (android.stackexchange.com, question 246774), with other values.
THERMAL = """Thermal Status: 0
Cached temperatures:
\tTemperature{mValue=88.8, mType=0, mName=AP, mStatus=0}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=41.25, mType=0, mName=CPU1, mStatus=0}
\tTemperature{mValue=71.0, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=-99.9, mType=0, mName=none, mStatus=0}
Current cooling devices from HAL:
Temperature static thresholds from HAL:
\tTemperatureThreshold{mType=0, mName=AP, mHotThrottlingThresholds=[NaN, 95.0]}
"""


def test_a_phone_whose_sensors_are_closed_tells_its_heat_by_its_own_service(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert hottest_of_android(THERMAL) == 41.25
    assert hottest_of_android(THERMAL.partition("HAL Ready")[0]) == 88.8
    assert hottest_of_android("Can't find service: thermalservice\n") is None
    dumpsys = tmp_path / "bin" / "dumpsys"
    dumpsys.parent.mkdir()
    dumpsys.write_text(f"#!/bin/sh\n[ $1 = thermalservice ] && cat <<'END'\n{THERMAL}END\n")
    dumpsys.chmod(0o755)
    monkeypatch.setenv("PATH", f"{dumpsys.parent}:{os.environ['PATH']}")
    if any(Path("/sys/class/thermal").glob("thermal_zone*")):
        return  # this machine's own sensors come first
    assert celsius(parse("local:")) == 41.25
    way = with_heat(Through(transport="adb", screen="on"), 30.0, parse("local:"))
    assert way is not None
    assert (way.temperature_before_c, way.temperature_after_c) == (30.0, 41.25)
    known = Through(temperature_after_c=50.0)
    assert with_heat(known, 30.0, parse("local:")) == known
