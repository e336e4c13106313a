"""Rows that keep A^T D A: what was promised, and what a run finds, for several matrices and both draws."""

import statistics

from experiments import markdown


def table(bench):
    rows = []
    n, d = (2000, 20) if bench.quick else (20000, 50)
    for preset in ("practical", "coherent", "illcond"):
        bench.run("generate", preset, "--rows", n, "--cols", d, "-o", bench.scratch / preset)
        A = bench.scratch / preset / "A.npy"
        for draws in ("poisson", "replacement"):
            for epsilon in (0.5, 0.25):
                runs = [bench.run("sample", A, "--draws", draws, "--epsilon", epsilon, "--seed", seed, codes=(0, 4))
                        for seed in range(1, 4 if bench.quick else 21)]
                found = sorted(run["spectral_error"] for run in runs)
                kept = statistics.median(run["kept"] for run in runs)
                rows.append((f"{preset}, {draws}", epsilon, int(kept), statistics.median(found), found[-1],
                             sum(error > epsilon for error in found)))
    return markdown((f"A, {n} x {d}", "epsilon", "rows kept", "spectral error, median", "largest of "
                     f"{len(found)} seeds", "missed"), rows)
