"""The picture of an export's report, and the page around it; in a child, with matplotlib.

One point an artifact: latency to the right, accuracy (or agreement with the source) upwards, bytes
as its area. What is on the Pareto front is filled, the rest is a ring; what lies beyond a limit is
on grey.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeml.exporter.events import Done, Row
from edgeml.exporter.judging.certificate import sentence
from edgeml.exporter.reporting.report import Contents
from edgeml.targets.sources import framework

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A7A7A")
"""Of the targets: M. Okabe and K. Ito's, which people with any colour vision tell apart."""

INK, FAINT, SHADE = "#24292f", "#8c959f", "#f0f2f4"
LARGEST, SMALLEST = 1500.0, 60.0
"""Areas of points, in square points."""


def draw(contents: Contents) -> int:
    """In the child: write the file; returns its size in bytes."""
    framework("matplotlib").use("agg")
    path = Path(contents.path)
    if path.suffix == ".png":
        data = _picture(contents, form="png")
    else:
        svg = _picture(contents, form="svg").decode()
        data = _page(contents, svg[svg.index("<svg") :]).encode()
    path.write_bytes(data)
    return len(data)


def _picture(contents: Contents, *, form: str) -> bytes:
    pyplot = framework("matplotlib.pyplot")
    settings = {
        "font.family": "sans-serif",
        "font.size": 10,
        "svg.fonttype": "path",
        "svg.hashsalt": "edgeml",
        "axes.edgecolor": FAINT,
        "text.color": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with pyplot.rc_context(settings):
        figure, axes = pyplot.subplots(figsize=(8.6, 5.2), dpi=160, layout="constrained")
        _plot(figure, axes, contents, titled=form == "png")  # a page has its own
        stream = io.BytesIO()
        bare = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        metadata = bare if form == "svg" else {"Software": None}
        figure.savefig(stream, format=form, metadata=metadata)
        pyplot.close(figure)
    return stream.getvalue()


def _plot(figure: Any, axes: Any, contents: Contents, *, titled: bool) -> None:
    rows = [row for row in contents.rows if row.p50_ms is not None and row.cosine is not None]
    rows = [msgspec.structs.replace(row, accuracy=_paired(row, contents.done)) for row in rows]
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(visible=True, color="#e4e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel("median latency, ms")
    axes.set_ylabel(_merit_name(contents.rows))
    title = f"{contents.done.name} {contents.done.version}"
    where = f"{contents.done.machine} ({contents.done.isa}), one core"
    # Both above the plot's left edge: the name, and below it where it was measured.
    axes.set_title(where, loc="left", fontsize=9, color=FAINT)
    axes.annotate(
        title if titled else "",
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 24),
        textcoords="offset points",
        fontsize=13,
        fontweight="bold",
    )
    if not rows:
        text = "Nothing could be both run and measured here."
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=FAINT)
        return
    targets = list(dict.fromkeys(row.target for row in contents.rows))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(targets)}
    largest = max(row.bytes for row in rows)
    latencies = [row.p50_ms for row in rows if row.p50_ms is not None]
    if max(latencies) > 8 * min(latencies):
        axes.set_xscale("log")
        ticker = framework("matplotlib.ticker")
        axes.xaxis.set_major_formatter(ticker.FuncFormatter(_plain))
        axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    floor = _floor(rows)
    for row in sorted(rows, key=lambda each: -each.bytes):  # small ones on top
        area = max(SMALLEST, LARGEST * row.bytes / largest)
        colour = colours[row.target]
        axes.scatter(
            [row.p50_ms],
            [max(_merit(row) or 0.0, floor)],
            s=area,
            facecolors=colour if row.front else "white",
            edgecolors=colour,
            alpha=0.85 if row.front else 0.7,
            linewidths=1.4,
            linestyle="-" if row.passed else ":",
            zorder=3,
        )
    _frame(axes, rows, floor)
    _limits(axes, contents)
    _label(figure, axes, rows, floor)
    _legend(axes, colours, rows)


def _floor(rows: Sequence[Row]) -> float:
    """Below which points stand at the bottom, so that a collapsed one takes no room from the rest:
    three times as far down as the worst that passed."""
    values = [value for row in rows if (value := _merit(row)) is not None]
    passed = [value for row in rows if row.passed and (value := _merit(row)) is not None]
    if not passed or rows[0].metric == "mse":
        return min(values)
    best = max(values)
    return max(min(values), best - max(3 * (best - min(passed)), 0.01 * abs(best)))


def _frame(axes: Any, rows: Sequence[Row], floor: float) -> None:
    """Room around the points, for their areas and labels."""
    values = [max(value, floor) for row in rows if (value := _merit(row)) is not None]
    low, high = min(values), max(values)
    room = max((high - low) * 0.22, 0.004 * max(abs(high), 1e-9))
    axes.set_ylim(low - room, high + room)
    times = [row.p50_ms for row in rows if row.p50_ms is not None]
    if axes.get_xscale() == "log":
        ratio = (max(times) / min(times)) ** 0.14
        axes.set_xlim(min(times) / ratio, max(times) * ratio)
    else:
        span = max(max(times) - min(times), 0.3 * max(times))
        axes.set_xlim(max(0, min(times) - 0.22 * span), max(times) + 0.22 * span)
    shown = framework("matplotlib.ticker")
    if rows[0].metric not in ("mse",) and high <= 1.0 + 1e-9:
        axes.yaxis.set_major_formatter(shown.FuncFormatter(percent))


def percent(value: float, _: object = None) -> str:
    """A tick of a share, with as many digits as it has: matplotlib's steps may be of 0.25 %."""
    # Room above 100 % is room, and no value.
    return "" if value > 1 + 1e-9 else f"{round(value * 100, 4):g} %"


def _plain(value: float, _: object) -> str:
    return f"{value:g}"


def _limits(axes: Any, contents: Contents) -> None:
    limits, done = contents.limits, contents.done
    left, right = axes.get_xlim()
    bottom, top = axes.get_ylim()
    if limits.latency_ms is not None:
        right = max(right, limits.latency_ms * 1.1)
        axes.axvspan(limits.latency_ms, right, color=SHADE, zorder=0)
        axes.axvline(limits.latency_ms, color=FAINT, linewidth=1, linestyle="--", zorder=1)
        axes.set_xlim(left, right)
    best = done.source_accuracy
    if limits.accuracy_drop is not None and done.metric != "mse":
        least = (1.0 if best is None else best) - limits.accuracy_drop
        bottom = min(bottom, least - 0.1 * (top - least))
        axes.axhspan(bottom, least, color=SHADE, zorder=0)
        axes.axhline(least, color=FAINT, linewidth=1, linestyle="--", zorder=1)
    if best is not None:
        top = max(top, best + 0.06 * (top - bottom))
        axes.axhline(best, color=INK, linewidth=1, linestyle=":", zorder=1)
        axes.annotate(
            "source model",
            (1, best),
            xycoords=("axes fraction", "data"),
            xytext=(-4, 3),
            textcoords="offset points",
            ha="right",
            fontsize=8,
        )
    axes.set_ylim(bottom, top)


def _label(figure: Any, axes: Any, rows: Sequence[Row], floor: float) -> None:
    """Each point's precision beside it, where it covers no other label."""
    figure.canvas.draw()
    taken: list[Any] = []
    halo = framework("matplotlib.patheffects").withStroke(linewidth=3, foreground="white")
    largest = max(row.bytes for row in rows)
    for row in sorted(rows, key=lambda each: (not each.chosen, not each.front)):
        radius = (max(SMALLEST, LARGEST * row.bytes / largest) / 3.1416) ** 0.5 + 3
        merit = _merit(row) or 0.0
        below = f" ↓ {merit:.3g}" if merit < floor else ""
        text = axes.annotate(
            _short(row) + (" ✓" if row.chosen else "") + below,
            (row.p50_ms, max(merit, floor)),
            textcoords="offset points",
            fontsize=8.5,
            fontweight="bold" if row.chosen else "normal",
            color=INK if row.front or row.chosen else FAINT,
            zorder=5,
        )
        text.set_path_effects([halo])
        places = [
            (radius, 0, "left", "center"),
            (0, radius, "center", "bottom"),
            (0, -radius, "center", "top"),
            (-radius, 0, "right", "center"),
            (radius, radius, "left", "bottom"),
            (radius, -radius, "left", "top"),
            (0, radius + 12, "center", "bottom"),
            (0, -radius - 12, "center", "top"),
        ]
        for x, y, across, up in places:
            text.set_position((x, y))
            text.set_ha(across)
            text.set_va(up)
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(text.get_window_extent())


def _legend(axes: Any, colours: dict[str, str], rows: Sequence[Row]) -> None:
    lines = framework("matplotlib.lines")

    def mark(colour: str, *, filled: bool) -> Any:
        return lines.Line2D(
            [],
            [],
            marker="o",
            linestyle="",
            markersize=8,
            markeredgecolor=colour,
            markerfacecolor=colour if filled else "white",
        )

    shown = [name for name in colours if any(row.target == name for row in rows)]
    handles = [mark(colours[name], filled=True) for name in shown]
    names = list(shown)
    if any(row.front for row in rows):
        handles.append(mark(INK, filled=True))
        names.append("on the Pareto front")
    if any(not row.front for row in rows):
        handles.append(mark(INK, filled=False))
        names.append("beaten by another")
    axes.legend(
        handles,
        names,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.13),
        ncols=min(6, len(names)),
        frameon=False,
        fontsize=9,
        title="area: bytes",
        title_fontsize=8,
    )


def _short(row: Row) -> str:
    return f"mixed {len(row.float_layers)}" if row.precision == "mixed" else row.precision


def _paired(row: Row, done: Done) -> float | None:
    """An accuracy that can be set beside the others', though the check saw other samples."""
    if row.accuracy is None or row.drop is None or done.source_accuracy is None:
        return row.accuracy
    return row.accuracy if row.metric == "mse" else done.source_accuracy - row.drop


def _merit(row: Row) -> float | None:
    if row.accuracy is not None:
        return row.accuracy
    return row.agreement if row.agreement is not None else row.cosine


def _merit_name(rows: Sequence[Row]) -> str:
    named = next((row.metric for row in rows if row.accuracy is not None), "")
    if named:
        return {"top-1": "top-1 accuracy", "auc": "AUC", "f1": "F1"}.get(
            named, "mean squared error" if named == "mse" else named
        )
    if any(row.agreement is not None for row in rows):
        return "same decision as the source model"
    return "cosine to the source model's outputs"


def _page(contents: Contents, svg: str) -> str:
    jinja = framework("jinja2")
    template = (Path(__file__).parent / "report.html").read_text()
    environment = jinja.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    # One place for all: what is not in the table of a row is a dash.
    page: str = environment.from_string(template).render(
        done=contents.done,
        rows=contents.rows,
        refusals=contents.refusals,
        limits=_limit_words(contents),
        certificates=[
            (row, sentence(row.certificate)) for row in contents.rows if row.certificate is not None
        ],
        svg=jinja.utils.markupsafe.Markup(svg),
        merit=_merit_name(contents.rows),
        judged=any(row.accuracy is not None for row in contents.rows),
        short=_short,
        number=_number,
        size=_size,
    )
    return page


def _limit_words(contents: Contents) -> list[str]:
    limits = contents.limits
    words = [
        ("accuracy drop at most {:g} points", limits.accuracy_drop, 100),
        ("latency at most {:g} ms", limits.latency_ms, 1),
        ("memory at most {:g} MB", limits.memory_mb, 1),
        ("size at most {:g} MB", limits.size_bytes, 1e-6),
    ]
    return [text.format(value * factor) for text, value, factor in words if value is not None]


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
