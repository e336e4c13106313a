"""Runs are killed, or get signals, at random times, and are resumed: all have to end at the minimum of a run that nobody
touched. Part of tests/full.sh:

    python3 kills.py [--signal KILL] [--count 200] [--seed 1] [--cases solve,heads]

Half of the resumed runs have another number of ranks; some are killed again. What was killed leaves no stray file."""

import argparse
import collections
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

from command_line import run
from test_signals import Background

SAME = 1e-5  # |x - x*| / |x*|: |g| <= 1e-10 |g(0)|, conditions below 1e5
PLAIN = {"run.json", "history.csv", "status.json", "targets.csv", "path.csv", "lock", "checkpoint", "history.partial.csv",
         "timing.json", "report.html"}


def softmax(Z):
    F = np.exp(Z - Z.max(axis=-1, keepdims=True))
    return F / F.sum(axis=-1, keepdims=True)


def make_problems(directory):
    generator = np.random.default_rng(1)
    A = generator.standard_normal((60000, 24))
    b = softmax(1.5 * A @ generator.standard_normal(24) / 5 + 0.5 * generator.standard_normal(60000))
    B = np.stack([b, softmax(np.log(b) * 0.7), softmax(A[:, 0] + 0.3 * np.log(b))], axis=1)
    np.save(directory / "A.npy", A)
    np.save(directory / "b.npy", b)
    np.save(directory / "B.npy", B)
    rows, columns = 30000, 60
    indices = np.sort(generator.integers(0, columns, (rows, 6)), axis=1)
    indices += np.arange(6)  # columns of a row differ
    data = generator.standard_normal((rows, 6))
    z = np.zeros(rows)
    x = generator.standard_normal(columns + 6)
    for k in range(6):
        z += data[:, k] * x[indices[:, k]]
    np.savez(directory / "S.npz", format=b"csr", shape=np.array([rows, columns + 6]), data=data.ravel(),
             indices=indices.ravel().astype(np.int32), indptr=np.arange(0, 6 * rows + 1, 6, dtype=np.int64))
    np.save(directory / "s.npy", softmax(z + 0.3 * generator.standard_normal(rows)))
    X = generator.standard_normal((24, 3)) @ generator.standard_normal((3, 24)) / 4
    lines, layers = [], []
    V = generator.standard_normal((6, 5))
    for k in range(10):
        queries, keys = generator.standard_normal((2, 60, 24))
        F = softmax(queries @ X @ keys.T) * np.exp(0.02 * generator.standard_normal((60, 60)))
        F /= F.sum(axis=1, keepdims=True)
        np.save(directory / f"Q{k}.npy", queries)
        np.save(directory / f"K{k}.npy", keys)
        np.save(directory / f"F{k}.npy", F)
        lines.append(f"Q{k}.npy K{k}.npy F{k}.npy\n")
        small, values = generator.standard_normal((2, 40, 6))
        np.save(directory / f"T{k}.npy", small)
        np.save(directory / f"V{k}.npy", values)
        np.save(directory / f"O{k}.npy", softmax(small @ X[:6, :6] @ small.T) @ values @ V)
        layers.append(f"T{k}.npy T{k}.npy values=V{k}.npy target=O{k}.npy\n")
    (directory / "heads.txt").write_text("".join(lines))
    (directory / "layers.txt").write_text("".join(layers))


def cases(directory):
    solve = ("solve", directory / "A.npy")
    heads = ("attention", "--sequences", directory / "heads.txt")
    return {
        "solve": (*solve, directory / "b.npy", "--weight", "1e-6"),
        "newton-cg": (*solve, directory / "b.npy", "--weight", "1e-6", "--method", "newton-cg"),
        "sparse": ("solve", directory / "S.npz", directory / "s.npy", "--weight", "1e-6"),
        "starts": (*solve, directory / "b.npy", "--starts", "4"),
        "path": (*solve, directory / "b.npy", "--weights-path", "1e-3:1e-7:5"),
        "targets": (*solve, "--targets", directory / "B.npy"),
        "certificate": (*solve, directory / "b.npy", "--certificate", "full", "--epsilon", "1e-4"),
        "attention": (*heads, "--form", "softmax", "--rank", "full", "--method", "joint", "--start", "zero"),
        "heads": heads,
        "layers": ("attention", "--sequences", directory / "layers.txt"),
    }


def results(directory):
    return {path.name: np.load(path) for path in directory.glob("*.npy")}


def is_same(found, wanted):
    if set(found) != set(wanted):
        return False
    if "P.npy" in wanted:  # any factors of X
        found, wanted = ({"X": r["P.npy"] @ r["Q.npy"].T} for r in (found, wanted))
    return all(np.abs(found[key] - wanted[key]).max() <= SAME * np.abs(wanted[key]).max() for key in wanted)


class Trial:
    def __init__(self, directory, number, rng):
        self.directory, self.number, self.rng = directory, number, rng
        self.counts = collections.Counter()

    def __call__(self, command, wanted, seconds):
        out = self.directory / "run"
        shutil.rmtree(out, ignore_errors=True)
        ranks = self.rng.choice((1, 2, 3))
        background = Background(*command, "-o", out, "--checkpoint", 0, "-q", ranks=ranks)
        problem = self.end(background, out, seconds, ranks)
        while problem is None and (out / "checkpoint").exists():
            again = self.rng.choice((1, 2, 3)) if self.rng.random() < 0.5 else ranks
            if self.rng.random() < 0.2:
                problem = self.end(Background("resume", out, "-q", ranks=again), out, seconds, again)
                continue
            result = run("resume", out, ranks=again)
            self.counts["resumed"] += 1
            self.counts["beyond the beginning"] += "from the beginning" not in result.stderr
            if result.code != 0:
                problem = repr(result)
        if problem is None and not is_same(results(out), wanted):
            problem = "another minimum"
        if problem is None:
            stray = [path.name for path in out.iterdir() if path.name not in PLAIN and path.suffix != ".npy"]
            problem = f"stray files {stray}" if stray or (out / "lock").exists() else None
        return problem

    def end(self, background, out, seconds, ranks):
        """Sends the signal at a random time of the solve; None, or what is wrong then."""
        start = time.monotonic()
        while not (out / "checkpoint").exists() and background.process.poll() is None and time.monotonic() < start + 20:
            time.sleep(0.002)
        time.sleep(self.rng.random() * seconds)
        before = time.monotonic()
        try:
            background.send(self.number, self.rng.randrange(ranks))
        except (ProcessLookupError, IndexError, FileNotFoundError):
            pass  # it is over
        background.end()
        self.counts["signals"] += 1
        if self.number == signal.SIGKILL:
            return None
        late = time.monotonic() - before
        self.counts["slowest end, ms"] = max(self.counts["slowest end, ms"], round(1000 * late))
        status = json.loads((out / "status.json").read_text())
        ended = (status["state"], status["exit_code"])
        if ended not in (("stopped", 75), ("done", 0)):
            return f"status {ended}"
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--signal", default="KILL")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cases", default="")
    arguments = parser.parse_args()
    number = signal.Signals["SIG" + arguments.signal]
    rng = random.Random(arguments.seed)
    failures = 0
    with tempfile.TemporaryDirectory(prefix="attnreg-kills-") as name:
        directory = pathlib.Path(name)
        make_problems(directory)
        os.environ["ATTNREG_WATCHDOG"] = "20"
        known = {}
        for name, command in cases(directory).items():
            if arguments.cases and name not in arguments.cases.split(","):
                continue
            whole = directory / "whole"
            before = time.monotonic()
            result = run(*command, "-o", whole, "--force", "--checkpoint", 0, "-q", ranks=1)
            if result.code != 0:
                sys.exit(f"{name}: {result!r}")
            known[name] = (command, results(whole), max(0.05, time.monotonic() - before - 0.4))
        trial = Trial(directory, number, rng)
        for k in range(arguments.count):
            name = sorted(known)[k % len(known)]
            problem = trial(*known[name])
            if problem:
                failures += 1
                print(f"trial {k}, {name}: {problem}", flush=True)
                keep = pathlib.Path(tempfile.gettempdir()) / f"attnreg-kill-{arguments.signal}-{k}"
                shutil.copytree(directory / "run", keep, dirs_exist_ok=True)
    print(f"{arguments.signal}, seed {arguments.seed}: {arguments.count} runs, {failures} failed; " +
          ", ".join(f"{key} {value}" for key, value in trial.counts.items()))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
