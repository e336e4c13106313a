#!/usr/bin/env python3
"""attnreg beside PyTorch on a real attention head: who predicts unseen text how well, after how much CPU time.

    bench/heads/compare.py build/release/bin/attnreg DATA [--seconds 30] [--repeats 5]

DATA: a directory with train/list.txt and test/list.txt of sequences of one length. attnreg gets no option but the lists
(and --threads 1): its CPU time is that of start and solve on all ranks, median of the repeats, which are spread between
the runs of PyTorch. PyTorch, on one core, is told the rank that attnreg found; its time is that until its held-out error
is first within 10 % of the lowest that it reaches in --seconds. Prints a table in Markdown. PyTorch is Debian's
python3-torch; without it its rows are skipped.
"""

import argparse
import importlib.util
import json
import pathlib
import statistics
import subprocess
import sys

import heads

NEAR = 1.1
PEER = pathlib.Path(__file__).parent / "torch_head.py"


def torch_run(data, rank, dtype, seconds):
    """The first point of a run that predicts within 10 % of its best, and the lowest error."""
    result = subprocess.run([sys.executable, str(PEER), data / "train", data / "test", "--rank", str(rank), "--type",
                             dtype, "--seconds", str(seconds)], capture_output=True, text=True, check=True)
    points = [json.loads(line) for line in result.stdout.splitlines()]
    lowest = min(point["held_out"] for point in points)
    return next(point for point in points if point["held_out"] <= NEAR * lowest), lowest


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("data", type=pathlib.Path)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    data, held_out = arguments.data, arguments.data / "test/list.txt"

    def ours(options, ranks):
        return heads.recover(arguments.program, data / "train/list.txt", *options, held_out=held_out, ranks=ranks)

    runs = {}  # of (options, ranks)

    def repeat():
        for options, ranks in (((), 1), ((), 2)):
            runs.setdefault((options, ranks), []).append(ours(options, ranks))

    repeat()
    rank = runs[(), 1][0]["rank"]
    torch_rows = []
    if importlib.util.find_spec("torch") is None:
        print("SKIPPED: NO PYTORCH HERE, so that attnreg has nothing beside it; apt-get install python3-torch",
              file=sys.stderr)
    else:
        for r in (rank, 0):
            for dtype in ("float32", "float64"):
                torch_rows.append((r, dtype, *torch_run(data, r, dtype, arguments.seconds)))
                repeat()
    while len(runs[(), 1]) < arguments.repeats:
        repeat()
    runs[("--rank", "full"), 1] = [ours(("--rank", "full"), 1)]

    print("| | X | CPU s | held-out error | lowest in "
          f"{arguments.seconds:g} s | fit's error | reads of B | PyTorch's CPU s / attnreg's |")
    print("|---|---|--:|--:|--:|--:|--:|--:|")
    base = statistics.median(run["cpu_seconds"] for run in runs[(), 1])
    for (options, ranks), heads_found in runs.items():
        head = heads_found[0]
        seconds = statistics.median(run["cpu_seconds"] for run in heads_found)
        what = f"rank {head['rank']}, found" if not options else "any"
        print(f"| attnreg, {ranks} rank{'s' * (ranks > 1)} | {what} | {seconds:.3g} | "
              f"{head['held_out']['all']['error']:.1e} | | {head['fit']['all']['error']:.1e} | {head['reads']} | |")
    for r, dtype, point, lowest in torch_rows:
        what = f"rank {r}, told" if r else "any"
        print(f"| PyTorch, {dtype} | {what} | {point['seconds']:.3g} | {point['held_out']:.1e} | {lowest:.1e} | "
              f"{point['fit']:.1e} | | {point['seconds'] / base:.0f} |")


if __name__ == "__main__":
    main()
