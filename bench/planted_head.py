#!/usr/bin/env python3
"""The planted head of docs/attention.md: X = P Q^T of rank 8 behind 8 sequences of attention matrices.

    bench/planted_head.py build/release/bin/attnreg [--ranks 2] [options of `attnreg attention`]

d1 = d2 = 64, 512 queries and 512 keys a sequence, all N(0, 1), logits of standard deviation 2, no regulariser. Prints the
relative errors of the attention matrices and of X, and the program's seconds and peak memory.
"""

import json
import pathlib
import resource
import subprocess
import sys
import tempfile

import numpy as np

WIDTH, RANK, SEQUENCES, TOKENS, DEVIATION = 64, 8, 8, 512, 2.0


def attention(queries, keys, X):
    Z = queries @ X @ keys.T
    F = np.exp(Z - Z.max(axis=1, keepdims=True))
    return F / F.sum(axis=1, keepdims=True)


def main():
    program, options = sys.argv[1], sys.argv[2:]
    ranks = "2"
    if options[:1] == ["--ranks"]:
        ranks, options = options[1], options[2:]
    generator = np.random.default_rng(1)
    X = generator.standard_normal((WIDTH, RANK)) @ generator.standard_normal((RANK, WIDTH))
    X *= DEVIATION / np.linalg.norm(X)  # Var(q^T X k) = |X|^2
    inputs = [generator.standard_normal((2, TOKENS, WIDTH)) for _ in range(SEQUENCES)]
    targets = [attention(queries, keys, X) for queries, keys in inputs]
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        lines = []
        for k, ((queries, keys), target) in enumerate(zip(inputs, targets)):
            for role, array in (("q", queries), ("k", keys), ("b", target)):
                np.save(directory / f"{role}{k}.npy", array)
            lines.append(" ".join(str(directory / f"{role}{k}.npy") for role in "qkb"))
        (directory / "list.txt").write_text("\n".join(lines) + "\n")
        subprocess.run(["mpirun", "-n", ranks, program, "attention", "--sequences", directory / "list.txt", "--threads",
                        "1", "-q", "-o", directory / "run", *options], check=True, stdout=subprocess.DEVNULL)
        summary = json.loads((directory / "run/run.json").read_text())["summary"]
        found = np.load(directory / "run/X.npy")
    error = sum(np.linalg.norm(attention(q, k, found) - b) ** 2 for (q, k), b in zip(inputs, targets))
    size = sum(np.linalg.norm(b) ** 2 for b in targets)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{summary['termination']}: error of F {np.sqrt(error / size):.1e}, "
          f"of X {np.linalg.norm(found - X) / np.linalg.norm(X):.1e}; {summary['seconds']:.2f} s, "
          f"{summary['iterations']} + {summary['start_iterations']} steps, {peak:.0f} MB in the largest process")


if __name__ == "__main__":
    main()
