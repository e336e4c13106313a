"""Private attention: the release beside uniform attention, over n, d, epsilon and what a neighbour is."""

import numpy as np

from experiments import markdown


def groups(n, d):
    """Rows of norm 1 with entries +-d^-1/2, in 4 groups: nine tenths of the signs are those of the group."""
    draw = np.random.default_rng(1)
    signs = np.where(draw.random((4, d)) < 0.5, -1.0, 1.0)[np.arange(n) % 4]
    return np.where(draw.random((n, d)) < 0.1, -signs, signs) / np.sqrt(d)


def table(bench):
    rows = []
    sizes = ((16, 400),) if bench.quick else ((16, 1000), (16, 100000), (64, 100000), (256, 100000))
    for n, d in sizes:
        X = bench.scratch / "X.npy"
        np.save(X, groups(n, d))
        for kind in ("row", "entry"):
            change = ("--entry-change", 2 / np.sqrt(d)) if kind == "entry" else ()
            for epsilon in (1, 8):
                found = bench.run("private", X, "--neighbours", kind, "--row-norm", 1.0001, *change, "--samples", 10000,
                                  "--dp-epsilon", epsilon, "--scale", 8, "--seed", 1)
                errors = found["not_private"]
                release, nothing = errors["release"]["attention"], errors["nothing"]["attention"]
                rows.append((f"{n} x {d}, {kind}", epsilon, found["ridge"], 8 * (1 + found["ridge"]) / 100, release, nothing,
                             "yes" if release < nothing else "no"))
    return markdown(("X, neighbours", "epsilon", "ridge", "noise of a logit", "error", "of uniform attention", "useful"),
                    rows)
