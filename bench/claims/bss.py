"""Deterministic columns for larger n: how many, how near, how long."""

import numpy as np

from experiments import markdown


def table(bench):
    rows = []
    for n, d in ((32, 2000), (300, 2000)) if bench.quick else ((128, 20000), (256, 50000), (512, 100000)):
        path = bench.scratch / "X.npy"
        np.save(path, np.random.default_rng(n).standard_normal((n, d)))
        found = bench.run("sparsify", path, "--method", "bss", "--epsilon", 0.5, "--metrics", "none", ranks=2)
        rows.append((f"{n} x {d}", found["columns"], found["columns"] / n, found["draws"], found["certified_epsilon"],
                     f"{found['choose_seconds']:.1f}"))
    return markdown(("X", "columns", "by n", "steps", "certified e", "seconds"), rows)
