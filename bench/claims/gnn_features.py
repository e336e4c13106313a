"""Graph networks by blocks of features: memory and time over B, beside the plain order and SciPy."""

import json
import os
import subprocess
import sys

import numpy as np
import scipy.sparse as sparse

from experiments import markdown

# A process for each order of SciPy, since its peak is that of the whole process. Convolution, one layer after another.
PEER = """
import json, pathlib, sys, time
import numpy as np, scipy.sparse as sparse
home, blocks = sys.argv[1], int(sys.argv[2])
def megabytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name)) * 1024 / 1e6
G, H = sparse.load_npz(home + "/G.npz").tocsr(), np.load(home + "/H.npy")
W = [np.load(f"{home}/W{k}.npy") for k in range(2)]
G = G + sparse.identity(G.shape[0], format="csr")
root = sparse.diags(1 / np.sqrt(np.asarray(G.sum(axis=1)).ravel()))
S = (root @ G @ root).tocsr()
pathlib.Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
before = megabytes("VmRSS:")
best = np.inf
for repeat in range(3):
    begin, out = time.perf_counter(), H
    for layer in W:
        total, width = np.zeros((len(out), layer.shape[1])), -(-layer.shape[0] // blocks)
        for k in range(0, layer.shape[0], width):
            total += (S @ np.ascontiguousarray(out[:, k:k + width])) @ layer[k:k + width]
        out = np.maximum(total, 0)
    best = min(best, time.perf_counter() - begin)
peak = megabytes("VmHWM:") - before
np.save(home + "/peer.npy", out)
print(json.dumps([peak, best]))
"""


def nearest_neighbours(points, count):
    """An undirected graph: each point and those nearest to it."""
    from sklearn.neighbors import kneighbors_graph
    graph = kneighbors_graph(points, count)
    return graph.maximum(graph.T).tocsr()


def drawn(nodes, degree, draw):
    """As many random edges, with degrees that differ."""
    ends = (nodes * draw.random((nodes * degree // 2, 2)) ** (1, 2)).astype(int)
    graph = sparse.coo_matrix((np.ones(len(ends)), ends.T), shape=(nodes, nodes)).tocsr()
    graph = graph.maximum(graph.T)
    graph.setdiag(0)
    graph.eliminate_zeros()
    graph.data[:] = 1
    return graph.tocsr()


def lines(bench, title, graph, draw, attention):
    features, widths = (32, (16, 4)) if bench.quick else (256, (64, 16))
    home, before = bench.scratch, features
    sparse.save_npz(home / "G.npz", graph)
    np.save(home / "H.npy", draw.standard_normal((graph.shape[0], features)))
    for k, width in enumerate(widths):
        np.save(home / f"W{k}.npy", draw.standard_normal((before, width)) / np.sqrt(before))
        np.save(home / f"a{k}.npy", draw.standard_normal((2, width)) / np.sqrt(width))
        before = width
    names = [",".join(str(home / f"{name}{k}.npy") for k in range(2)) for name in "Wa"]
    words = ["experiment", "gnn-features", home / "G.npz", home / "H.npy", "--layers", names[0], "--messages", "--blocks",
             "1,2,4,8,16", "-o", home / "out", "--force", *(("--attention", names[1]) if attention else ())]
    table = bench.run(*words)["tables"][0]
    found = np.load(home / "out/H_out.npy")
    for blocks, tiles, held, peak, seconds, difference in table["rows"]:
        if tiles and blocks not in (1, 16):
            continue
        order = "messages of all edges" if blocks == 0 else f"{blocks:.0f} blocks" + (", in tiles" if tiles else "")
        rows = (title, "plain order" if order == "1 blocks" else order, held, "" if peak is None else peak, seconds)
        assert difference < 1e-12
        yield rows
    two = bench.run(*words, ranks=2)
    assert two["tables"][0]["rows"][0][5] == 0
    assert abs(np.load(home / "out/H_out.npy") - found).max() <= 1e-12 * abs(found).max()
    if attention:
        return
    for blocks in (1, 16):
        done = subprocess.run([sys.executable, "-c", PEER, str(home), str(blocks)], check=True, capture_output=True,
                              text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
        peak, seconds = json.loads(done.stdout)
        assert abs(np.load(home / "peer.npy") - found).max() <= 1e-10 * abs(found).max()
        yield (title, f"SciPy, {blocks} block{'s' * (blocks > 1)}", "", peak, seconds)


def table(bench):
    draw = np.random.default_rng(1)
    nodes = 2000 if bench.quick else 100000
    rows = list(lines(bench, f"drawn, {nodes} nodes", drawn(nodes, 10, draw), draw, False))
    points = draw.standard_normal((nodes // 5, 8))
    rows += lines(bench, f"nearest neighbours, {nodes // 5} nodes, attention", nearest_neighbours(points, 10), draw, True)
    return markdown(("graph", "order", "held, MB", "peak, MB", "seconds"), rows)
