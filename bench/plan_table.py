#!/usr/bin/env python3
"""The plan against measured peak memory and time, on ten problems: the table of docs/scale.md.

    bench/plan_table.py build/release/bin/attnreg [--busy] [--only K]

Each problem is made with `generate`, planned from its headers with what `doctor` measured on as many ranks, and solved.
Memory is the largest resident set of each process, from timing.json: right on a busy machine, too. Time is that of the
solve alone, without loading, and means something on an idle machine only: --busy says so in the table's head.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

# Preset, rows, columns, ranks, options of solve and plan.
PROBLEMS = (
    ("practical", 400_000, 50, 1, ()),
    ("practical", 400_000, 50, 4, ()),
    ("practical", 1_000_000, 20, 2, ("--method", "newton")),
    ("practical", 200_000, 200, 2, ()),
    ("practical", 200_000, 200, 2, ("--storage", "half")),
    ("practical", 60_000, 300, 3, ("--method", "newton-cg")),
    ("practical", 40_000, 1000, 2, ()),
    ("practical", 10_000, 2400, 4, ()),
    ("sparse", 1_000_000, 300, 2, ()),
    ("practical", 400_000, 50, 2, ("--reproducible", "--blocks", "8")),
)


def run(ranks, *command, check=True):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    words = ["mpirun", "-n", str(ranks), *map(str, command)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if check and done.returncode != 0:
        sys.exit(f"{' '.join(words)} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def measure(program, problem, scratch):
    """One line of the table."""
    preset, rows, columns, ranks, options = problem
    data, out, doctor = scratch / "data", scratch / "run", scratch / "doctor.json"
    run(1, program, "generate", preset, "--rows", rows, "--cols", columns, "-o", data, "--force")
    A = data / ("A.npz" if preset == "sparse" else "A.npy")
    words = [A, data / "b.npy", "--weights", data / "w.npy", *options]
    doctor.write_text(run(ranks, program, "doctor", "--json", check=False).stdout)
    plan = json.loads(run(1, program, "plan", *words, "--ranks", ranks, "--threads", 1, "--doctor", doctor, "--json").stdout)
    solved = run(ranks, program, "solve", *words, "-o", out, "--force", "--quiet", check=False)
    if solved.returncode not in (0, 4, 5):
        sys.exit(f"solve {words} ended with {solved.returncode}\n{solved.stdout}{solved.stderr}")
    found = json.loads((out / "run.json").read_text())["summary"]
    peak = json.loads((out / "timing.json").read_text())["peak_memory_bytes"]
    memory, reads, seconds = plan["memory_bytes"], plan["reads"], plan["seconds"]["total"]
    node = ranks * peak["mean"]
    return (f"| {preset} {rows:,} x {columns:,} {' '.join(options)}".rstrip(), ranks, plan["method"],
            f"{memory['rank0'] / 1e6:.0f}", f"{peak['rank0'] / 1e6:.0f}", f"{memory['rank0'] / peak['rank0']:.2f}",
            f"{memory['node'] / 1e6:.0f}", f"{node / 1e6:.0f}", f"{memory['node'] / node:.2f}",
            f"{reads['typical']:.0f}, {reads['least']:.0f} to {reads['most']:.0f}", f"{found['reads_of_a']:.0f}",
            f"{plan['messages']['collectives']:.0f}",
            found["collectives"], f"{seconds:.2g}", f"{found['seconds']:.2g}"), memory["node"] / node


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", type=pathlib.Path)
    parser.add_argument("--busy", action="store_true", help="other work runs on this machine")
    parser.add_argument("--only", type=int, help="the problem of this number, from 1 on")
    arguments = parser.parse_args()
    program = arguments.program.resolve()
    problems = PROBLEMS if arguments.only is None else PROBLEMS[arguments.only - 1:arguments.only]
    busy = ", busy machine" if arguments.busy else ""
    print(f"| problem | ranks | method | MB of rank 0, plan | measured | ratio | MB of the node, plan | measured | ratio "
          f"| reads of A, plan | measured | collectives, plan | measured | s, plan | measured{busy} |")
    print("|---|--:|---|" + "--:|" * 12, flush=True)
    ratios = []
    for problem in problems:
        with tempfile.TemporaryDirectory() as scratch:
            cells, ratio = measure(program, problem, pathlib.Path(scratch))
        ratios.append(ratio)
        print(" | ".join(map(str, cells)) + " |", flush=True)
    print(f"\nRatios of the node's memory: {min(ratios):.2f} to {max(ratios):.2f}.")


if __name__ == "__main__":
    main()
