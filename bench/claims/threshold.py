"""Threshold attention on real and on random logits: the error by the share of exact entries and the background."""

import numpy as np

from claims._heads import as_one, save, sequences
from experiments import markdown

BACKGROUNDS = ("row-mean", "exp-of-mean", "zero")


def table(bench):
    rows = []

    def row(label, files, scale, choice):
        names = BACKGROUNDS[:2] if "--tau" in choice else BACKGROUNDS  # a query may have no logit above tau
        found = [bench.run("apply", *files, "--kernel", "threshold", "--scale", scale, *choice, "--background", name,
                           "--compare", "-o", bench.scratch / "O.npy", "--force") for name in names]
        marked, pairs = found[0]["marked"], found[0]["classical_queries"]
        errors = [one["error_against_softmax"] for one in found]
        rows.append((label, " ".join(map(str, choice)), f"{100 * marked / pairs:.2g} %", *errors,
                     *["-"] * (len(BACKGROUNDS) - len(errors))))

    head = save(bench.scratch, "head", map(as_one, sequences("train")))
    for top in (2, 8, 32, 128):
        row("real head", head, "1/sqrt-d", ("--top", top))
    for tau in (2, 4):
        row("real head", head, "1/sqrt-d", ("--tau", tau))
    generator = np.random.default_rng(1)
    Q, K, V = (generator.standard_normal((768, 32)) for _ in range(3))
    for deviation in (1, 2, 3):
        files = save(bench.scratch, f"random{deviation}", (deviation * Q, K, V))
        row(f"random, deviation {deviation}", files, "1/sqrt-d", ("--top", 32))
    return markdown(("logits", "exact", "share", *BACKGROUNDS), rows)
