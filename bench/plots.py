"""Plots of a report: throughput against batch size, latency percentiles, latency against rate."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bench.errors import BenchError
from bench.histogram import Histogram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NINES: Final = (0.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99)


def plot_rows(rows: Sequence[dict[str, Any]], directory: Path) -> list[Path]:
    """Draw what the rows of a path report have; the files that were written.

    Raises BenchError without matplotlib.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise BenchError(
            "plots need matplotlib: python -m pip install --group bench, in a checkout"
        ) from error
    mpl.use("Agg")
    directory.mkdir(parents=True, exist_ok=True)
    drawn = [
        _throughput(rows, directory / "throughput-by-batch-size.png"),
        _percentiles(rows, directory / "latency-percentiles.png"),
        _latency_by_rate(rows, directory / "latency-by-rate.png"),
    ]
    return [path for path in drawn if path]


def _throughput(rows: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """MB/s against the bytes of a batch, closed loop, a line per subject."""
    lines: dict[str, dict[float, float]] = defaultdict(dict)
    for row in rows:
        work = row["work"]
        if work["kind"] == "produce" and not work["rate"]:
            megabytes_per_s = row["median"]["bytes_per_s"] / 1e6
            best = lines[row["subject"]].get(work["batch_bytes"], 0.0)
            lines[row["subject"]][work["batch_bytes"]] = max(best, megabytes_per_s)
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for name, line in lines.items():
            axes.plot(sorted(line), [line[at] for at in sorted(line)], marker="o", label=name)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("bytes of a batch")
        axes.set_ylabel("MB/s")
        axes.set_title("Produce throughput")

    return _saved(path, draw)


def _percentiles(rows: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """Latency against percentile, for the cases at a fixed rate."""
    chosen = [row for row in rows if row["work"].get("rate") and row["latency"]]
    if not chosen:
        return None

    def draw(axes: Axes) -> None:
        for row in chosen:
            histogram = Histogram(row["latency"])
            values = [histogram.percentile_ms(percent) for percent in NINES]
            label = f"{row['subject']}: {row['case']}"
            axes.plot([1 / (1 - percent / 100) for percent in NINES], values, label=label)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks([1 / (1 - percent / 100) for percent in (50, 90, 99, 99.9, 99.99)])
        axes.set_xticklabels(["50 %", "90 %", "99 %", "99.9 %", "99.99 %"])
        axes.set_xlabel("percentile")
        axes.set_ylabel("ms since the request was due")
        axes.set_title("Latency at a fixed rate")

    return _saved(path, draw)


def _latency_by_rate(rows: Sequence[dict[str, Any]], path: Path) -> Path | None:
    """p50 and p99 against the rate, for subjects that were measured at several."""
    lines: dict[str, dict[float, tuple[float, float]]] = defaultdict(dict)
    for row in rows:
        if rate := row["work"].get("rate"):
            median = row["median"]
            lines[row["subject"]][rate] = (median["p50_ms"], median["p99_ms"])
    lines = {name: line for name, line in lines.items() if len(line) > 1}
    if not lines:
        return None

    def draw(axes: Axes) -> None:
        for name, line in lines.items():
            rates = sorted(line)
            axes.plot(rates, [line[at][0] for at in rates], marker="o", label=f"{name} p50")
            axes.plot(
                rates,
                [line[at][1] for at in rates],
                marker="^",
                linestyle="--",
                label=f"{name} p99",
            )
        axes.set_yscale("log")
        axes.set_xlabel("requests/s")
        axes.set_ylabel("ms since the request was due")
        axes.set_title("Latency against rate")

    return _saved(path, draw)


def _saved(path: Path, draw: Any) -> Path:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.add_subplot()
    draw(axes)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    return path
