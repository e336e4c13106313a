#!/usr/bin/env python3
"""Goal G24: k targets solved together against k single solves, in one run.

    attnreg generate practical --rows 200000 --cols 200 -o practical
    bench/targets.py build/release/bin/attnreg practical [--targets 16] [--repeats 3]

The targets are softmax(A x) for k random x, logits of standard deviation 3. Prints seconds (those of the summary, the
loading left out), reads of A, and the ratio; medians of the repeats.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

import numpy as np


def solve(program, *arguments):
    """The `summary` or the `targets` of run.json."""
    with tempfile.TemporaryDirectory() as directory:
        subprocess.run([program, "solve", *map(str, arguments), "-q", "-o", directory], check=True,
                       stdout=subprocess.DEVNULL)
        run = json.loads((pathlib.Path(directory) / "run.json").read_text())
    return run.get("targets") or [run["summary"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("problem", type=pathlib.Path)
    parser.add_argument("--targets", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    A = np.load(arguments.problem / "A.npy", mmap_mode="r")
    Z = A @ (3 * np.random.default_rng(1).standard_normal((A.shape[1], arguments.targets)))
    B = np.exp(Z - Z.max(axis=0))
    B /= B.sum(axis=0)
    common = [arguments.problem / "A.npy", "--weights", arguments.problem / "w.npy"]
    together, alone, reads = [], [], {}
    with tempfile.TemporaryDirectory() as directory:
        files = [pathlib.Path(directory) / f"{k}.npy" for k in range(arguments.targets)]
        np.save(files[0].with_name("B.npy"), B)
        for k, file in enumerate(files):
            np.save(file, np.ascontiguousarray(B[:, k]))
        for _ in range(arguments.repeats):
            joint = solve(arguments.program, common[0], "--targets", files[0].with_name("B.npy"), *common[1:])
            single = [solve(arguments.program, common[0], file, *common[1:])[0] for file in files]
            together.append(max(target["seconds"] for target in joint))
            alone.append(sum(summary["seconds"] for summary in single))
            reads = {"together": sum(target["reads_of_a"] for target in joint),
                     "alone": sum(summary["reads_of_a"] for summary in single)}
    ratio = statistics.median(a / b for a, b in zip(together, alone))
    print(f"{arguments.targets} targets: {statistics.median(together):.3f} s together, {statistics.median(alone):.3f} s "
          f"alone, ratio {ratio:.3f}; reads {reads['together']:.1f} and {reads['alone']:.1f}")


if __name__ == "__main__":
    main()
