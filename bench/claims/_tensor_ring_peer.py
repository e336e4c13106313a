"""TensorLy's tensor ring ALS, drawn or not, from several starts: [[sweeps, residual, seconds], ...] as JSON.

    python _tensor_ring_peer.py T.npy RANK DRAWS STARTS SWEEPS RESIDUAL
"""

import json
import sys
import time

import numpy as np
import tensorly as tl
from tensorly.decomposition import tensor_ring_als, tensor_ring_als_sampled


def main(path, rank, draws, starts, sweeps, residual):
    T = np.load(path)
    norm = np.linalg.norm(T)
    found = []
    for start in range(int(starts)):
        errors = []

        def enough(_, error, errors=errors):
            errors.append(float(error))
            return len(errors) > 1 and error <= float(residual)  # the first call is before the first sweep

        options = {"n_iter_max": int(sweeps), "tol": 0, "random_state": start, "callback": enough}
        begin = time.perf_counter()
        if int(draws):
            ring = tensor_ring_als_sampled(T, int(rank), int(draws), randomized_error=True, **options)
        else:
            ring = tensor_ring_als(T, int(rank), **options)
        seconds = time.perf_counter() - begin
        found.append([len(errors) - 1, float(np.linalg.norm(tl.tr_to_tensor(ring) - T) / norm), seconds])
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
