"""What is no solve: leverage scores, columns that keep X X^T, test problems."""

import os
import shutil
import tempfile

import numpy as np

from . import _attnreg
from ._call import Call, choice, integer, is_sparse, number, numbers
from ._errors import DataError, UsageError
from ._result import Record
from ._solve import LOSSES, sketch_options

COLUMN_METHODS = ("leverage", "bss", "uniform", "norm", "jl", "topk")
PRESETS = ("easy", "practical", "illcond", "coherent", "sparse", "misfit")


def leverage_scores(A, weights=None, *, exact=False, sketch_rows=0, nonzeros=4, jl_columns=16, seed=1, comm=None):
    """The statistical leverage of the rows of diag(weights) A.

    Collective, two reads of A.

    Parameters
    ----------
    A, comm
        As of `solve`.
    weights : (n,) array, optional
        This rank's rows; their sign does not matter.
    exact : bool
        By a QR factorization, d^2 operations a row; else right to a factor of about 2, from a sketch.
    sketch_rows, nonzeros, jl_columns, seed
        Of the sketch; jl_columns=64 makes scores right to a factor of 2, 0 makes row norms exact.

    Returns
    -------
    Record
        scores, this rank's rows, in [0, 1]; sum, largest, coherence, rank: of all rows.
    """
    with Call(comm) as call:
        with call.agreed():
            options = sketch_options(sketch_rows, nonzeros, jl_columns, seed)
        call.alike("the options", (options, exact, weights is None))
        rows = call.matrix(A)
        w = np.empty(0) if weights is None else np.abs(call.vector(weights, "weights", rows))
        return Record(_attnreg.scores(call.native, rows, w, bool(exact), options))


def sparsify(X, *, method="leverage", epsilon=0.5, delta=0.01, columns=None, with_replacement=False, seed=1,
             values=None, measure=True, scale=1.0, comm=None):
    """Choose few columns of X that keep X X^T, and with it the attention matrix softmax(scale X X^T).

    Collective. Of several ranks each gives its own columns.

    Parameters
    ----------
    X : (n, d) array or sparse matrix, d >> n
        Read in place if it is in Fortran order, or csc: its columns are rows then.
    method : {"leverage", "bss", "uniform", "norm", "jl", "topk"}
        docs/sparsification.md.
    epsilon, delta : float
        Wanted is (1 - epsilon) X X^T <= Y Y^T <= (1 + epsilon) X X^T, with probability 1 - delta.
    columns : int, optional
        How many, in place of what epsilon and delta ask for.
    with_replacement : bool
        Of leverage: drawn with replacement, as in the paper.
    seed : int
    values : (n, k) array, optional
        V of the attention output; default: 8 columns of N(0, 1).
    measure : bool
        Whether the errors of Y are measured.
    scale : float
        Of the logits.

    Returns
    -------
    Record
        Y (n, m), the chosen columns, scaled; columns and weights (m,), their numbers among this rank's columns counted
        over all ranks, and weights; errors and errors_of_zero, which a useful Y beats: gram, spectral, entry,
        entry_bound, output.
    """
    with Call(comm) as call:
        with call.agreed():
            options = {"method": choice("method", method, COLUMN_METHODS),
                       "epsilon": number("epsilon", epsilon, 0, 1), "delta": number("delta", delta, 0, 1),
                       "with_replacement": bool(with_replacement), "seed": integer("seed", seed, 0, 2**64 - 1)}
            if columns is not None:
                options["columns"] = integer("columns", columns, 1, 2**31 - 1)
            scale = number("scale", scale, 0)
            n = X.shape[0] if is_sparse(X) else np.shape(X)[0] if np.ndim(X) == 2 else 0
            if n == 0:
                raise DataError(f"X has shape {np.shape(X)}, expected two axes, n x d with n >= 1")
            if values is None:
                V = np.random.default_rng(int(seed)).standard_normal((n, 8))
            else:
                V = numbers(values, "values")
                if V.ndim != 2 or len(V) != n or V.shape[1] == 0:
                    raise DataError(f"values has shape {V.shape}, expected ({n}, k)")
            transposed = X.T if is_sparse(X) or hasattr(X, "T") else np.asarray(X).T
        call.alike("the options, or the rows of X", (options, scale, n, measure))
        rows = call.matrix(transposed, "X^T")
        result = Record(_attnreg.sparsify(call.native, rows, options, V if measure else V[:0], scale))
        result["Y"] = result["Y"].T
        for name in ("errors", "errors_of_zero"):
            if name in result:
                result[name] = Record(result[name])
        return result


def generate(preset, rows, columns, *, loss="softmax", seed=20240607, dtype="float64", directory=None, comm=None,
             **options):
    """Make a test problem: the same bytes as `attnreg generate` writes, on any number of ranks.

    Collective.

    Parameters
    ----------
    preset : {"easy", "practical", "illcond", "coherent", "sparse", "misfit"}
    rows, columns : int
        n and d.
    loss : str
        Of which b is what it compares with b, at x_true.
    seed : int
    dtype : {"float64", "float32"}
        Of A.
    directory : path, optional
        Where A.npy (of "sparse" A.npz), b.npy, w.npy and x_true.npy are kept; all ranks must see it. Default: they are
        read and removed.
    **options
        spread, weight_scale, decay, neff, nonzeros_per_row, logit_noise, zipf: see `attnreg generate --help`.

    Returns
    -------
    Record
        A, b, w and x_true, of all rows, on every rank; facts about the problem.

    Raises
    ------
    OutputError
        The files could not be written.
    """
    reals = ("spread", "weight_scale", "decay", "neff", "logit_noise")
    with Call(comm) as call:
        given = None
        with call.agreed():
            choice("preset", preset, PRESETS)
            choice("loss", loss, LOSSES)
            choice("dtype", dtype, ("float64", "float32"))
            chosen = {"preset": preset, "loss": loss, "dtype": dtype, "seed": integer("seed", seed, 0, 2**64 - 1),
                      "rows": integer("rows", rows, 1, 2**40), "columns": integer("columns", columns, 1, 10**6)}
            for name, value in options.items():
                choice("the option", name, reals + ("nonzeros_per_row", "zipf"))
                chosen[name] = (bool(value) if name == "zipf" else integer(name, value, 1) if name == "nonzeros_per_row"
                                else number(name, value, -np.inf, strict=False))
            if directory is None and call.size > 1:
                raise UsageError("several ranks need a directory that all of them see")
            given = tempfile.mkdtemp() if directory is None else os.fspath(directory)
            os.makedirs(given, exist_ok=True)
        call.alike("the options", (chosen, given if directory is not None else 0))
        try:
            facts = Record(_attnreg.generate(call.native, chosen, given))
            with call.agreed():
                load = {name: np.load(os.path.join(given, f"{name}.npy")) for name in ("b", "w", "x_true")}
                if preset == "sparse":
                    import scipy.sparse
                    A = scipy.sparse.load_npz(os.path.join(given, "A.npz"))
                else:
                    A = np.load(os.path.join(given, "A.npy"))
            return Record(A=A, **load, facts=facts)
        finally:
            if directory is None:
                shutil.rmtree(given, ignore_errors=True)
