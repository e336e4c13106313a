#!/usr/bin/env python3
"""The table of docs/sparsification.md: four kinds of X, all methods of `attnreg sparsify`.

    bench/sparsify_table.py build/release/bin/attnreg [TRIALS]

Each X is 50 x 20000, scaled so that the largest entry of X X^T is r = 0.1. A cell has the entry error
max |P(Y) / P(X) - 1| by that of Y = 0, the spectral error, and the output error by that of Y = 0: the 99th percentile
over TRIALS seeds (100; jl 8; bss and topk have no randomness).
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROWS, COLUMNS, LARGEST = 50, 20000, 0.1
METHODS = {"leverage, Poisson": ("leverage",), "leverage, replacement": ("leverage", "--draws", "replacement"),
           "uniform": ("uniform",), "norm": ("norm",), "jl": ("jl",), "topk": ("topk",)}


def gaussian(generator):
    return generator.standard_normal((ROWS, COLUMNS))


def heavy_columns(generator):
    X = gaussian(generator) * np.abs(generator.standard_cauchy(COLUMNS)) ** 0.75
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def one_direction_in_3_columns(generator):
    X, v = gaussian(generator), generator.standard_normal(ROWS)
    v /= np.linalg.norm(v)
    X -= np.outer(v, v @ X)
    X[:, :3] += 8 * v[:, None]
    return X


def clusters(generator):
    return np.repeat(generator.standard_normal((5, COLUMNS)), ROWS // 5, axis=0) + 0.3 * gaussian(generator)


def run(program, path, method, *options):
    """The figures of one run; code 4 says that epsilon was missed."""
    command = [program, "sparsify", path, "--method", *method, *options, "--threads", "1", "--json"]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode not in (0, 4):
        raise SystemExit(f"{' '.join(map(str, command))}: {result.stderr}")
    report = json.loads(result.stdout)
    Y, zero = report["errors"]["Y"], report["errors"]["zero"]
    return report["columns"], Y["entry"] / zero["entry"], Y["spectral"], Y["output"] / zero["output"]


def cell(runs):
    columns, *errors = np.quantile(np.array(runs), 0.99, axis=0, method="inverted_cdf")
    return int(columns), " ".join(f"{error:.2g}" for error in errors)


def main():
    program, trials = pathlib.Path(sys.argv[1]).resolve(), int(sys.argv[2]) if len(sys.argv) > 2 else 100
    print("| X, draws | " + " | ".join(METHODS) + " | bss, e = 0.5 |\n|" + "---|" * (len(METHODS) + 2))
    cases = [(kind, 1704) for kind in (gaussian, heavy_columns, one_direction_in_3_columns, clusters)]
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory) / "X.npy"
        for kind, draws in [*cases, (heavy_columns, 6814)]:
            X = kind(np.random.default_rng(1))
            np.save(path, X * np.sqrt(LARGEST / np.abs(X @ X.T).max()))
            cells = []
            for method in METHODS.values():
                repeats = {"jl": min(trials, 8), "topk": 1}.get(method[0], trials)
                cells.append(cell([run(program, path, method, "--columns", str(draws), "--seed", str(seed))
                                   for seed in range(1, repeats + 1)])[1])
            chosen, errors = cell([run(program, path, ("bss",), "--epsilon", "0.5")])
            print(f"| {kind.__name__.replace('_', ' ')}, {draws} | {' | '.join(cells)} | {errors} ({chosen} columns) |",
                  flush=True)


if __name__ == "__main__":
    main()
