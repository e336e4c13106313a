#!/usr/bin/env python3
"""What a solve's messages cost on a slow network: the second table of docs/scale.md.

    cmake --preset release -B build/delay -DATTNREG_MESSAGE_DELAY=ON && cmake --build build/delay
    bench/latency.py build/delay/bin/attnreg [--rows 20000] [--cols 20] [--repeats 3] [--ranks 2,4,8,16]

A program built like that sleeps before every collective: a time for each of log2(ranks) rounds, and one for each byte. The
slope of the wall clock over the first, divided by the rounds, is the number of collectives that follow one another; it
must be the number that timing.json counts. The slope over the second is the bytes that they carry, beside which the
plan's are put. Slopes are of medians, between runs that all sleep, since a rank wakes late where cores are busy; sleeping
ranks leave the cores to others, so that there may be more ranks than cores.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--rows", type=int, default=20000)
    parser.add_argument("--cols", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--ranks", default="2,4,8,16")
    parser.add_argument("--round", type=float, default=20e3, help="microseconds of a round")
    parser.add_argument("--byte", type=float, default=4e4, help="nanoseconds of a byte")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    print("| ranks | rounds | collectives, counted | from the slope | ratio | kB of messages, from the slope | plan |")
    print("|--:|--:|--:|--:|--:|--:|--:|", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)

        def call(ranks, delay, *words):
            environment = os.environ | {"OMP_NUM_THREADS": "1", "ATTNREG_MESSAGE_DELAY": delay}
            done = subprocess.run(["mpirun", "--oversubscribe", "-n", str(ranks), program, *map(str, words)],
                                  env=environment, capture_output=True, text=True)
            if done.returncode not in (0, 7):
                sys.exit(f"{words} ended with {done.returncode}\n{done.stdout}{done.stderr}")
            return done.stdout

        call(1, "0", "generate", "practical", "--rows", arguments.rows, "--cols", arguments.cols, "-o", scratch / "data")
        problem = [scratch / "data/A.npy", scratch / "data/b.npy", "--weights", scratch / "data/w.npy"]

        def seconds(ranks, delay):
            """Median wall clock, and the collectives of the whole run."""
            walls = []
            for _ in range(arguments.repeats):
                call(ranks, delay, "solve", *problem, "-q", "-o", scratch / "run", "--force")
                timing = json.loads((scratch / "run/timing.json").read_text())
                walls.append(timing["wall_seconds"])
            return statistics.median(walls), sum(phase["messages"] for phase in timing["phases"])

        for ranks in map(int, arguments.ranks.split(",")):
            rounds = math.ceil(math.log2(ranks))
            once, counted = seconds(ranks, f"{arguments.round}")
            twice, _ = seconds(ranks, f"{2 * arguments.round}")
            of_bytes, _ = seconds(ranks, f"{arguments.round},{arguments.byte}")
            slope = (twice - once) / (1e-6 * arguments.round * rounds)
            size = (of_bytes - once) / (1e-9 * arguments.byte)
            planned = json.loads(call(ranks, "0", "plan", *problem, "--json"))["messages"]["bytes"]
            print(f"| {ranks} | {rounds} | {counted} | {slope:.1f} | {slope / counted:.2f} | {size / 1e3:.0f} "
                  f"| {planned / 1e3:.0f} |", flush=True)


if __name__ == "__main__":
    main()
