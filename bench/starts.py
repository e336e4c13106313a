#!/usr/bin/env python3
"""The table of docs/algorithms.md, section 13: how often the default start ends at the best of 30 random starts.

    bench/starts.py build/release/bin/attnreg [--problems 50] [--starts 30] [--rows 1000] [--cols 20]
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

PROBLEMS = {
    "practical": ["practical"],
    "misfit, noise 2": ["misfit"],
    "misfit, noise 4": ["misfit", "--logit-noise", "4"],
    "misfit, Zipf": ["misfit", "--zipf"],
}
SAME = 1e-6  # of L(0), as the program has it


def minima_of(program, directory, options, starts):
    """The ends of all starts, lowest first, and L(0)."""
    subprocess.run([program, "generate", *options, "-o", directory], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([program, "solve", directory / "A.npy", directory / "b.npy", "--weights", directory / "w.npy", "-q",
                    "--starts", starts, "-o", directory / "run"], stdout=subprocess.DEVNULL)
    return (json.loads((directory / "run/run.json").read_text())["minima"],
            json.loads((directory / "meta.json").read_text())["loss_at_0"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    for name, default in (("--problems", 50), ("--starts", 30), ("--rows", 1000), ("--cols", 20)):
        parser.add_argument(name, type=int, default=default)
    arguments = parser.parse_args()
    print("| problems | several minima | minima, median | default at the best | L above the best, median and largest "
          "| one random start at the best |\n|---|---|---|---|---|---|")
    for name, preset in PROBLEMS.items():
        counts, excess, random_share = [], [], []
        for seed in range(1, arguments.problems + 1):
            with tempfile.TemporaryDirectory() as directory:
                options = [*preset, "--rows", str(arguments.rows), "--cols", str(arguments.cols), "--seed", str(seed)]
                minima, at_zero = minima_of(arguments.program, pathlib.Path(directory), options, str(arguments.starts))
            best = minima[0]["value"]
            default = [m for m in minima if not all(start.startswith("random") for start in m["from"])]
            above = default[0]["value"] - best if default else float("inf")
            counts.append(len(minima))
            excess.append(0 if above <= SAME * at_zero else above / best)
            random_share.append(sum(start.startswith("random") for start in minima[0]["from"]) / arguments.starts)
        missed = [e for e in excess if e > 0]
        above = f"{statistics.median(missed):.2g}, {max(missed):.2g}" if missed else "-"
        print(f"| {name} | {sum(c > 1 for c in counts)} of {len(counts)} | {statistics.median(counts):.0f} "
              f"| {len(excess) - len(missed)} of {len(excess)} | {above} | {100 * statistics.mean(random_share):.0f} % |",
              flush=True)


if __name__ == "__main__":
    main()
