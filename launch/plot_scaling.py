#!/usr/bin/env python3
"""Plots the results of launch/scaling.py: launch/plot_scaling.py DIR... writes DIR/scaling.svg (needs matplotlib).

Left the time of a solve for one read of A over the ranks, with the ideal line; right reads of A and collectives per
step, which must not depend on the ranks where all solve the same problem. Oversubscribed runs are on the right only.
"""

import csv
import pathlib
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402  (after the choice of the backend)


def read(directory):
    with open(directory / "scaling.csv", newline="") as file:
        return [{name: float(value) if value else None for name, value in line.items()}
                for line in csv.DictReader(file)]


def plot_seconds(axes, lines):
    """For one read of A: rounding may decide whether a solve has a last step."""
    timed = [line for line in lines if not line["oversubscribed"]]
    ranks = [line["ranks"] for line in timed]
    milliseconds = [1e3 * line["seconds"] / line["reads"] for line in timed]
    weak = len({line["rows"] for line in lines}) > 1
    ideal = [milliseconds[0] if weak else milliseconds[0] * ranks[0] / count for count in ranks]
    axes.semilogx(ranks, milliseconds, "o-", base=2, label="measured")
    axes.semilogx(ranks, ideal, "--", base=2, color="grey", label="ideal")
    axes.set_ylim(bottom=0)
    axes.set_ylabel("ms")
    axes.set_title(f"a solve's time for a read of A, {'weak' if weak else 'strong'}, {lines[0]['rows']:.0f} x "
                   f"{lines[0]['columns']:.0f}" + (" on the first" if weak else ""), fontsize="medium")


def plot_counts(axes, lines):
    for name, label in (("reads_per_step", "reads of A"), ("collectives_per_step", "collectives")):
        axes.semilogx([line["ranks"] for line in lines], [line[name] for line in lines], "o-", base=2, label=label)
    axes.set_ylim(bottom=0)
    axes.set_title("counts per step", fontsize="medium")


def plot(directory):
    lines = read(directory)
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    plot_seconds(left, lines)
    plot_counts(right, lines)
    for axes in (left, right):
        axes.set_xlabel("ranks")
        axes.set_xticks([line["ranks"] for line in lines], [f"{line['ranks']:.0f}" for line in lines])
        axes.grid(True, which="both", alpha=0.3)
        axes.legend(loc="lower left")
    figure.savefig(directory / "scaling.svg")
    print(directory / "scaling.svg")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    for argument in sys.argv[1:]:
        plot(pathlib.Path(argument))
