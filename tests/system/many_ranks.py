"""Many ranks on a tiny problem, most of them without a row, run after run: each ends as on one rank, with the same x, and
leaves nothing in the directory of temporary files, nor in /dev/shm. Every fifth run has an input that is refused. Part of
tests/full.sh; no other program of MPI may run beside it:

    python3 many_ranks.py [--count 500] [--ranks 64]"""

import argparse
import os
import pathlib
import sys
import tempfile

import numpy as np

from command_line import run

SAME = 1e-9  # |x - x*| / |x*|: |g| <= 1e-10 |g(0)|, and Newton's last step squares it
SHARED_MEMORY = pathlib.Path("/dev/shm")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--ranks", type=int, default=64)
    arguments = parser.parse_args()
    failures = 0
    with tempfile.TemporaryDirectory(prefix="attnreg-ranks-") as name:
        directory = pathlib.Path(name)
        temporary = directory / "tmp"
        temporary.mkdir()
        generator = np.random.default_rng(1)
        A = generator.standard_normal((40, 3))
        b = np.exp(A @ (1, -1, 0.5) + 0.3 * generator.standard_normal(40))
        np.save(directory / "A.npy", A)
        np.save(directory / "b.npy", b / b.sum())
        np.save(directory / "bad.npy", np.where(np.arange(40) == 17, np.nan, b / b.sum()))
        solve = lambda target, ranks: run("solve", directory / "A.npy", directory / target, "-o", directory / "run", "--force",
                                          "-q", ranks=ranks, environment={"TMPDIR": str(temporary)})
        if solve("b.npy", 1).code != 0:
            sys.exit("the problem is not solved on one rank")
        known = np.load(directory / "run" / "x.npy")
        before = set(os.listdir(SHARED_MEMORY))
        for k in range(arguments.count):
            target, code = ("bad.npy", 3) if k % 5 == 4 else ("b.npy", 0)
            result = solve(target, arguments.ranks)
            left = [*os.listdir(temporary), *(set(os.listdir(SHARED_MEMORY)) - before)]
            x = np.load(directory / "run" / "x.npy")
            if result.code != code or left or np.abs(x - known).max() > SAME * np.abs(known).max():
                failures += 1
                print(f"run {k}: left {left}, x {x}, {result!r}", flush=True)
    print(f"{arguments.count} runs on {arguments.ranks} ranks, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
