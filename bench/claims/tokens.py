"""Few keys of attention heads: errors of the outputs, by the ways to choose them."""

import numpy as np

from claims._heads import as_one, save, sequences
from experiments import markdown

NAMES = ("mean", "uniform", "recent", "topk", "hyperattention", "kdeformer")


def large(generator, clusters, n, d):
    """Q, K and V of N(0, 1), or keys and values in clusters with noise."""
    Q, K, V = (generator.standard_normal((n, d)) for _ in range(3))
    if clusters:
        member = generator.integers(0, clusters, n)
        K, V = (2 * generator.standard_normal((clusters, d))[member] + 0.3 * noise for noise in (K, V))
    return Q, K, V


def table(bench):
    generator, rows = np.random.default_rng(1), []

    def row(label, files, keep, *options, ranks=1, others=("mixed", "output")):
        words = ("sparsify", "--tokens", "--queries", files[0], "--keys", files[1], "--values", files[2], "--scale",
                 "1/sqrt-d", "--keep", keep, *options)
        found = bench.run(*words, ranks=ranks)
        errors = {error["name"]: error["output"] for error in found["errors"]}
        drawn = [bench.run(*words, "--method", method, ranks=ranks)["errors"][0]["output"] for method in others]
        rows.append((label, f"{keep} of {found['keys']}", errors["chosen"], *drawn, *(errors[name] for name in NAMES),
                     f"{found['choose_seconds']:.1f}"))

    heads, tests = sequences("train"), sequences("test")
    apart, together = save(bench.scratch, "apart", heads), save(bench.scratch, "one", map(as_one, heads))
    other = save(bench.scratch, "test", map(as_one, tests))[0]
    for keep in (64, 32, 16):
        row("head, 6 sequences", apart, keep)
    row("the same, causal", apart, 32, "--mask", "causal", "--keep-first", 1)
    for keep in (192, 96):
        row("head, one sequence", together, keep)
    row("the same, other queries", together, 96, "--check-queries", other)
    n, d = (512, 16) if bench.quick else (16384, 64)
    for label, clusters in (("clusters", 64), ("Gaussian", 0)):
        row(label, save(bench.scratch, label, large(generator, clusters, n, d)), n // 16, ranks=2)
    return markdown(("keys", "kept", "halving", "mixed", "output", "mean of V", "uniform", "most recent",
                     "top-k by mass", "HyperAttention", "KDEformer", "seconds"), rows)
