"""Which real faults the statistics see, at what strength, and after how many samples.

    python benchmarks/drift_faults.py --data FOLDER [--splits N] [--write]

FOLDER holds photos/*.jpg, sensors/*.csv with labelled_windows.json, and spoken-digits/*.wav named
digit_speaker_take. ``--write`` puts the tables into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import msgspec
from faults import photos, sensors, sound
from faults.windows import CLEAN, FOUND, LEVEL, SIZES, Seen, Study
from page import setting, table, write_section


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    photos: Study
    cameras: tuple[photos.OneCamera, ...]
    sound: tuple[Study, ...]
    sensors: tuple[sensors.Watched, ...]


def rows(data: Path, *, splits: int) -> Measured:
    """Measure."""
    of_photos, cameras = photos.measure(data / "photos", splits=splits)
    return Measured(
        photos=of_photos,
        cameras=tuple(cameras),
        sound=tuple(sound.measure(data / "spoken-digits", splits=splits)),
        sensors=tuple(sensors.measure(data / "sensors")),
    )


def markdown(measured: Measured) -> str:
    """The tables, and what they say."""
    return "\n\n".join(
        (
            setting("numpy"),
            _rule(measured.photos.splits),
            "### Camera: 250 photos of 224x224, each of another scene",
            _faults(measured.photos.seen),
            _unseen(measured.photos.seen),
            _false_alarms((measured.photos,)),
            _cameras(measured.cameras),
            "### Microphone: 600 spoken digits of one second at 8 kHz, four speakers",
            _faults([seen for study in measured.sound for seen in study.seen]),
            _unseen([seen for study in measured.sound for seen in study.seen]),
            _false_alarms(measured.sound),
            "### Sensors: four series with labelled failures",
            _sensors(measured.sensors),
        )
    )


def _rule(splits: int) -> str:
    sizes = ", ".join(map(str, SIZES))
    return (
        f"A window of n samples ({sizes}) is held against a baseline of half of all samples, none "
        "of them in the window, statistic by statistic, by a two-sample χ² on the counts and a "
        f"z-test of their means; it raises where the smallest p-value is below {LEVEL:g} over the "
        f"number of tests. Split anew {splits} times. *After* is the smallest window that raises "
        f"in {FOUND:.0%} of the splits. *Separation* is |2·AUC − 1| between single samples with "
        "the fault and without, of the statistic that separates best: 0 sees nothing, 1 tells each "
        "one."
    )


def _faults(seen: Sequence[Seen]) -> str:
    lines: list[tuple[str, ...]] = []
    for fault, group in groupby(seen, key=lambda each: each.fault):
        lines += [
            (
                fault if i == 0 else "",
                each.strength,
                f"`{each.statistic}`" if each.separation >= 0.1 else "–",
                f"{each.separation:.2f}",
                each.frames,
            )
            for i, each in enumerate(group)
        ]
    return table(("fault", "strength", "seen best in", "separation", "after"), lines)


def _unseen(seen: Sequence[Seen]) -> str:
    hidden = [each for each in seen if each.frames.startswith(">")]
    named = (
        f"{fault} ({', '.join(each.strength for each in group)})"
        for fault, group in groupby(hidden, key=lambda each: each.fault)
    )
    return f"Not seen in {SIZES[-1]}: {'; '.join(named) or 'nothing'}."


def _false_alarms(studies: Sequence[Study]) -> str:
    windows = sum(study.splits * CLEAN for study in studies)
    shares = (
        sum(study.false_alarms[i] * study.splits * CLEAN for study in studies) / windows
        for i in range(len(SIZES))
    )
    listed = ", ".join(f"{share:.1%} of n = {n}" for n, share in zip(SIZES, shares, strict=True))
    return f"Windows without a fault that raised, of {windows} each: {listed}."


def _cameras(cameras: Sequence[photos.OneCamera]) -> str:
    reach = photos.JITTER // 2
    return (
        f"For a fixed camera flips are another matter. {photos.CAMERAS} of them, each "
        f"{photos.VIEWS} frames of one photo whose view wanders by up to {reach} pixels either way "
        "under light of ± 20 %, against as many others, flipped or not:\n\n"
    ) + table(
        ("fault", "seen best in", "separation", "without the fault"),
        [
            (each.flip, f"`{each.statistic}`", f"{each.separation:.2f}", f"{each.unflipped:.2f}")
            for each in cameras
        ],
    )


def _sensors(watched: Sequence[sensors.Watched]) -> str:
    def line(series: str, rule: str) -> tuple[str, ...]:
        each = [w for w in watched if w.series == series and w.rule == rule]
        length, training = sensors.SERIES[series]
        return (
            f"{series.replace('_', ' ')}, {length / sensors.timedelta(hours=1):g} h, "
            f"{training.days} days",
            str(each[0].failures),
            *(f"{w.found}, {w.false_a_month:.1f}" if w.armed else "not armed" for w in each),
        )

    def rule(name: str, title: str, thresholds: Sequence[float]) -> str:
        return table(
            ("series, window, training data", "failures", *(f"{title} {t:g}" for t in thresholds)),
            [line(series, name) for series in sensors.SERIES],
        )

    return (
        "Failures found, and alarms outside the labelled spans in a month, at each threshold. "
        "First a fixed limit on the distance from the training data, W1 in standard deviations:\n\n"
        + rule("distance", "W1 >", sensors.DISTANCES)
        + "\n\nThen the collector's monitor, by its evidence; it arms itself only once its own "
        "reference shows that its false alarms are as few as promised:\n\n"
        + rule("evidence", "evidence ≥", sensors.EVIDENCE)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Real faults on real recordings.")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recordings")
    parser.add_argument("--splits", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="into docs/benchmarks.md")
    arguments = parser.parse_args()
    text = markdown(rows(arguments.data, splits=arguments.splits))
    if arguments.write:
        write_section("drift faults", text)
    print(text)


if __name__ == "__main__":
    main()
