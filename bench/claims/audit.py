"""solve --audit: flips of bits that it finds, against the theory, in a build that can play them; what it costs."""

import os
import shutil
import statistics
import subprocess
import sys

from experiments import ROOT, Bench, markdown

PARTS, TILE = 32, 12  # of an evaluation with 4096 x 32 on one rank: sums of 128 rows, eight a tile; one of a tile


def plays_faults(program):
    """A wrong plan is refused by programs that read it."""
    if shutil.which(program) is None:
        return False
    command = [str(program), "--version"]
    return subprocess.run(command, env=os.environ | {"ATTNREG_FAULT": "none"}, capture_output=True).returncode == 2


def detection(bench):
    program = next((p for p in (bench.program, ROOT / "build/dev/bin/attnreg") if plays_faults(p)), None)
    if program is None:
        sys.exit("the table of found flips takes a program with -D ATTNREG_FAULT_INJECTION=ON, in build/dev for one")
    faulty = Bench(program, bench.quick, bench.scratch)
    faulty.run("generate", "practical", "--rows", 4096, "--cols", 32, "-o", bench.scratch / "flips")
    A, b = (bench.scratch / "flips" / name for name in ("A.npy", "b.npy"))
    trials, rows = 10 if bench.quick else 200, []
    for rate in (0.05, 0.2):
        for flips in (1, 3):
            os.environ["ATTNREG_FAULT"] = ",".join(f"0:sums:flip50:{PARTS * k + TILE}" for k in range(1, flips + 1))
            runs = [faulty.run("solve", A, b, "--method", "newton-cg", "--start", "zero", "--audit", rate, "--seed", seed)["audit"]
                    for seed in range(1, trials + 1)]
            del os.environ["ATTNREG_FAULT"]
            found = sum(run["repeated"] > 0 for run in runs)
            expected = 1 - (1 - rate) ** flips
            rows.append((rate, flips, found / trials, expected, (expected * (1 - expected) / trials) ** 0.5,
                         sum(run["misjudged"] for run in runs)))
    return markdown(("rate", "evaluations with a flip", f"found, of {trials} runs", "1 - (1 - rate)^k", "deviation",
                     "wrong alarms"), rows)


def cost(bench):
    """Each round solves at all rates: seconds are medians, and those against no audit medians of a round's ratios."""
    n, d, rounds = (20000, 20, 1) if bench.quick else (200000, 200, 5)
    rates = (0, 0.01, 0.05)
    bench.run("generate", "practical", "--rows", n, "--cols", d, "-o", bench.scratch / "cost")
    A, b = (bench.scratch / "cost" / name for name in ("A.npy", "b.npy"))
    rows = []
    for method in ("newton-cg", "newton", "surrogate"):
        runs = [[bench.run("solve", A, b, "--method", method, "--audit", rate, ranks=2) for rate in rates] for _ in range(rounds)]
        seconds = [[run["summary"]["seconds"] for run in of_round] for of_round in runs]
        for k, rate in enumerate(rates):
            run = runs[0][k]
            audit = run.get("audit", {"evaluations": 0, "reads": 0, "repeated": 0, "misjudged": 0})
            rows.append((f"{method}, rate {rate}", audit["evaluations"], f"{run['summary']['reads_of_a']:.2f}",
                         f"{audit['reads']:.2f}", f"{statistics.median(of_round[k] for of_round in seconds):.2f}",
                         f"{statistics.median(of_round[k] / of_round[0] for of_round in seconds) - 1:+.1%}",
                         audit["repeated"] + audit["misjudged"]))
    return markdown((f"{n} x {d}, 2 ranks", "evaluations", "reads of A", "for the audit", "seconds",
                     "against no audit", "alarms"), rows)


def table(bench):
    return detection(bench) + "\n\n" + cost(bench)
