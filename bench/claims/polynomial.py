"""Polynomial attention by TensorSketch: error and time beside exact powers, on a real head and on made data."""

import json
import time

import numpy as np

from experiments import ROOT, markdown


def real_head(folder):
    home = ROOT / "examples/data/head-l2h5"
    x = np.concatenate([np.load(path) for part in ("train", "test") for path in sorted((home / part).glob("x*.npy"))])
    x = x.astype(float)
    W = {name: np.load(home / f"{name}.npy").astype(float) for name in ("WQ", "WK", "WV", "bQ", "bK", "bV")}
    for name, array in (("Q", x @ W["WQ"] + W["bQ"]), ("K", x @ W["WK"] + W["bK"]), ("V", x @ W["WV"] + W["bV"])):
        np.save(folder / f"{name}.npy", array)
    return len(x)


def made(folder, n):
    draw = np.random.default_rng(1)
    centres = draw.standard_normal((50, 16))
    for name in "QK":
        points = centres[draw.integers(50, size=n)] + 0.3 * draw.standard_normal((n, 16))
        np.save(folder / f"{name}.npy", points / np.linalg.norm(points, axis=1, keepdims=True))
    np.save(folder / "V.npy", draw.standard_normal((n, 16)))
    return n


def table(bench):
    rows = []
    degrees, counts, seeds = ((2, 4), (512, 2048), 3) if bench.quick else ((2, 4, 6), (512, 8192), 5)
    for title, make in (("real head", real_head), ("made", lambda folder: made(folder, 1000 if bench.quick else 20000))):
        n = make(bench.scratch)
        files = [bench.scratch / f"{name}.npy" for name in "QKV"]

        def timed(*words):
            begin = time.perf_counter()
            try:
                found = bench.run("apply", *files, "--kernel", "polynomial", *words, "-o", bench.scratch / "O.npy",
                                  "--force", codes=(0, 3))
            except json.JSONDecodeError:  # refused: the weights of some query sum to less than 0
                return None, np.inf
            return found, time.perf_counter() - begin

        for degree in degrees:
            exact = timed("--degree", degree)[1]
            for features in counts:
                line = [f"{title}, n = {n}", degree, features]
                for weights in ("squares", "unbiased"):
                    runs = [timed("--degree", degree, "--sketch", features, "--sketch-weights", weights, "--seed", seed)
                            for seed in range(1, seeds + 1)]
                    errors = sorted(found["error_against_exact"] for found, _ in runs if found)
                    if weights == "squares":
                        seconds = min(seconds for _, seconds in runs)
                        uniform = runs[0][0]["error_of_uniform"]
                        line += [errors[len(errors) // 2], errors[-1]]
                    else:
                        line += [seeds - len(errors), errors[len(errors) // 2] if errors else ""]
                rows.append((*line, uniform, seconds, exact))
    return markdown(("data", "degree", "M", "squares: error, median", f"largest of {seeds}",
                     f"unbiased: refused of {seeds}", "error, median", "error of the mean", "seconds", "exact"), rows)
