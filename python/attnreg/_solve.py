"""Regressions: solve, path, solve_targets, predict, evaluate, certify."""

import numpy as np

from . import _attnreg
from ._call import Call, choice, integer, number, numbers
from ._errors import DataError, NotFiniteError, UsageError
from ._result import HISTORY, Record, Result, certificate_of, finished, history_of

METHODS = ("auto", "newton", "newton-cg", "sketched-newton", "surrogate")
STARTS = ("auto", "zero", "cross-entropy")
GIVEN = 3  # of the library's enumeration: x0
LINEAR_SOLVERS = ("auto", "rank0", "scalapack")
LEVELS = ("none", "gradient", "full")
REFERENCES = ("zero", "max")
LOSSES = tuple(_attnreg.loss_names())


class Step(Record):
    """What a callback sees of an iteration: the fields of `Result.history`."""


def shown_to(callback):
    """The callback as the extension module calls it."""
    if callback is None:
        return None
    if not callable(callback):
        raise UsageError(f"callback is {callback!r}; expected a function")
    def call(*values):
        try:
            return bool(callback(Step(zip(HISTORY.names, values))))
        except StopIteration:
            return True
    return call


def newton_options(rtol, rtol_of, max_iterations, time_limit):
    options = {}
    if rtol is not None:
        options["rtol"] = number("rtol", rtol, 0, 1)
    if rtol_of is not None:
        options["rtol_of"] = choice("rtol_of", rtol_of, REFERENCES)
    if max_iterations is not None:
        options["max_iterations"] = integer("max_iterations", max_iterations, 0, 10**9)
    if time_limit is not None:
        options["time_limit"] = number("time_limit", time_limit, 0)
    return options


def sketch_options(sketch_rows, nonzeros, jl_columns, seed):
    return {"sketch_rows": integer("sketch_rows", sketch_rows, 0, 10**8),
            "nonzeros": integer("nonzeros", nonzeros, 1, 64),
            "jl_columns": integer("jl_columns", jl_columns, 0, 10**5),
            "seed": integer("seed", seed, 0, 2**64 - 1)}


def model_options(loss, ridge=None, ridge_scaled=None):
    choice("loss", loss, LOSSES)
    if ridge is not None and ridge_scaled is not None:
        raise UsageError("ridge and ridge_scaled exclude each other")
    strength = number("ridge", 0 if ridge is None else ridge, 0, strict=False)
    if ridge_scaled is not None:
        strength = number("ridge_scaled", ridge_scaled, 0, strict=False)
    return {"loss": loss, "ridge": strength, "ridge_scaled": ridge_scaled is not None}


def solve_options(model, method, start, starts, rtol, rtol_of, max_iterations, time_limit, certificate, epsilon,
                  oversampling, sketch_rows, nonzeros, jl_columns, seed, linear_solver, sketched, audit):
    options = newton_options(rtol, rtol_of, max_iterations, time_limit)
    options.update(model, method=choice("method", method, METHODS), starts=integer("starts", starts, 0, 10**5),
                   certificate=choice("certificate", certificate, LEVELS),
                   linear_solver=choice("linear_solver", linear_solver, LINEAR_SOLVERS))
    options.update(sketch_options(sketch_rows, nonzeros, jl_columns, seed))
    if isinstance(start, str):
        options["start"] = choice("start", start, STARTS)
    else:
        options["start"] = GIVEN
        options["x0"] = numbers(start, "start")
        if options["x0"].ndim != 1:
            raise DataError(f"start has shape {options['x0'].shape}, expected one axis")
    if epsilon is not None:
        options["epsilon"] = number("epsilon", epsilon, 0)
    options["audit"] = number("audit", audit, 0, 1, strict=False)
    if oversampling is not None:
        options["oversampling"] = number("oversampling", oversampling, 0, 1e6)
    if sketched:
        if method != "sketched-newton":
            raise UsageError("sketched is for method='sketched-newton'")
        known = {"delta": 1, "radius": np.inf, "sampling_error": 1, "keep_low_rank": None}
        for name, value in sketched.items():
            choice("the key of sketched", name, tuple(known))
            options[name] = bool(value) if known[name] is None else number(name, value, 0, known[name])
    return options


def solve(A, b, w=1e-4, *, loss="softmax", method="auto", start="auto", starts=0, rtol=1e-10, rtol_of="zero",
          max_iterations=200, time_limit=None, certificate="gradient", epsilon=None, oversampling=None, sketch_rows=0,
          nonzeros=4, jl_columns=16, seed=1, linear_solver="auto", sketched=None, offset=None, ridge=None,
          ridge_scaled=None, audit=0, callback=None, comm=None):
    """Find x with softmax(A x) ~ b: a (local) minimiser of L(x) = phi(A x + o) + 1/2 |diag(w) A x|^2.

    Collective. Rows of A are spread over the ranks of `comm`, each of which gives its own.

    Parameters
    ----------
    A : (n, d) array, sparse matrix, tensor or path
        This rank's rows; some ranks may have none. C-order arrays of float16, float32 or float64 are read in place, as
        are tensors of that kind in main memory (DLPack), and the columns and values of CSR matrices with int32 indices;
        anything else is copied, with a `CopyWarning`. Do not change A meanwhile. The name of a file as the program
        reads it: each rank reads its own rows.
    b : (n,) array or path
        The target, this rank's rows; finite.
    w : float, (n,) array or path
        Weight of the ridge on A x, of all rows or of each.
    loss : str
        phi: "softmax", 1/2 |softmax(A x) - b|^2, "cross-entropy" or another of `attnreg.LOSSES` (docs/losses.md).
    method : {"auto", "newton", "newton-cg", "sketched-newton", "surrogate"}
        docs/algorithms.md; "auto" is the cheapest for this shape.
    start : {"auto", "zero", "cross-entropy"} or (d,) array
        Where the iteration starts.
    starts : int
        Solve from so many random points as well, and keep the lowest L; `Result.minima` lists them.
    rtol, rtol_of : float, {"zero", "max"}
        Stop when |g| <= rtol times |g(0)|, or times the largest |g| met.
    max_iterations, time_limit : int, float
        Limits; the time in seconds.
    certificate : {"none", "gradient", "full"}
        What is found out about x afterwards; "full" takes up to 10 reads of A.
    epsilon : float
        Go on until |x - x*| <= epsilon is certified.
    oversampling, sketch_rows, nonzeros, jl_columns, seed
        How rows are sampled for preconditioners. The same rows are drawn on any number of ranks.
    linear_solver : {"auto", "rank0", "scalapack"}
        Who factors d x d matrices.
    sketched : dict
        Of the method "sketched-newton": delta, radius, sampling_error, keep_low_rank.
    offset : (n,) array or path, optional
        o, added to the logits, this rank's rows: the logarithm of an exposure, or a prior. -inf masks a row of softmax
        and cross-entropy, which has no part in L then; b of cross-entropy must be 0 there.
    ridge, ridge_scaled : float, optional
        Adds 1/2 ridge |x|^2 to L, or 1/2 ridge_scaled sum_j s_j^2 x_j^2, s_j the norm of column j, for softmax and
        cross-entropy about its mean.
    audit : float
        0 to 1: how often each block of rows is made again by another rank in every evaluation, to find silent
        corruption of data; what is not settled raises InternalError. `Result.audit` has rate, evaluations, rows, reads,
        repeated (evaluations that a wrong rank spoilt) and misjudged.
    callback : callable
        Called after each iteration with a record of its figures, on each rank that gives one. What returns true, or
        raises StopIteration, ends the solve; another exception does, too, and is raised.
    comm : mpi4py communicator, optional
        None: this process alone.

    Returns
    -------
    Result
        Also where it did not converge: see `success` and `message`. Ctrl-C in the main thread ends a solve after the
        pass over A that it is in, and the result is the best x, with `interrupted` set; a second one raises
        KeyboardInterrupt as well.

    Raises
    ------
    UsageError, DataError, OutOfMemoryError
        On all ranks.

    Notes
    -----
    Memory beyond A: about 8 n doubles. Python's lock is not held. Threads: those of OpenMP, OMP_NUM_THREADS.
    Sources: Deng, Li, Song 2023, arXiv 2304.10411, with the corrections of docs/algorithms.md.

    Examples
    --------
    >>> import numpy as np, attnreg
    >>> A = np.random.default_rng(1).standard_normal((1000, 5))
    >>> b = np.exp(A @ [1, -1, 0, 2, 0]); b /= b.sum()
    >>> attnreg.solve(A, b, w=1e-8).x[[0, 1, 3]].round(3)
    array([ 1., -1.,  2.])
    """
    with Call(comm) as call:
        with call.agreed():
            options = solve_options(model_options(loss, ridge, ridge_scaled), method, start, starts, rtol, rtol_of,
                                    max_iterations, time_limit, certificate,
                                    epsilon, oversampling, sketch_rows, nonzeros, jl_columns, seed, linear_solver,
                                    sketched, audit)
            shown = shown_to(callback)
        call.alike("the options", {name: value for name, value in options.items() if name != "x0"})
        rows = call.matrix(A)
        target, weights = call.vector(b, "b", rows), call.weights(w, rows)
        options = call.model(options, offset, rows)
        return _checked(call, finished(_attnreg.solve(call.native, rows, target, weights, options, shown)))


def path(A, b, weights, *, loss="softmax", method="auto", start="auto", starts=0, rtol=1e-10, rtol_of="zero",
         max_iterations=200, time_limit=None, certificate="gradient", oversampling=None, sketch_rows=0, nonzeros=4,
         jl_columns=16, seed=1, linear_solver="auto", offset=None, ridge=None, ridge_scaled=None, audit=0,
         callback=None, comm=None):
    """Solve for several weights, each from the solution before.

    Collective. The other parameters are those of `solve`; `start` is that of the first weight, `time_limit` that of all
    together.

    Parameters
    ----------
    weights : (k,) array
        The weights w of all rows, best in falling order: np.geomspace(1e-2, 1e-7, 10).

    Returns
    -------
    Result
        x (k x d), fun (k,), weights (k,), success, message, history of all, and results, the `Result` of each weight.
        Weights for which no time was left are missing.
    """
    with Call(comm) as call:
        with call.agreed():
            options = solve_options(model_options(loss, ridge, ridge_scaled), method, start, starts, rtol, rtol_of,
                                    max_iterations, time_limit, certificate,
                                    None, oversampling, sketch_rows, nonzeros, jl_columns, seed, linear_solver, None,
                                    audit)
            shown = shown_to(callback)
            given = [number("a weight", weight, -np.inf, strict=False) for weight in np.ravel(weights)]
        call.alike("the options", (options, given))
        rows = call.matrix(A)
        target = call.vector(b, "b", rows)
        options = call.model(options, offset, rows)
        results = [_checked(call, finished(values)) for values in
                   _attnreg.path(call.native, rows, target, given, options, shown)]
        return _several(results, np.array([result.x for result in results]), weights=np.array(given[:len(results)]),
                        left_out=len(given) - len(results))


def _checked(call, result):
    """A breakdown may be the fault of A."""
    if result.termination == "breakdown":
        call.refuse_not_finite()
    return result


def _several(results, x, left_out=0, **more):
    history = results[0].history if results else history_of([])
    worst = max(results, key=lambda result: result.status)
    for result in results:
        del result["history"]
    message = worst.message if left_out == 0 else f"{left_out} weights were left out"
    return Result(message=message, success=left_out == 0 and worst.success, status=worst.status if left_out == 0 else 4,
                  fun=np.array([result.fun for result in results]), x=x, **more,
                  reads=sum(result.reads for result in results), interrupted=any(r.interrupted for r in results),
                  history=history, results=results)


def solve_targets(A, B, w=1e-4, *, loss="softmax", method="auto", start="auto", starts=0, rtol=1e-10, rtol_of="zero",
                  max_iterations=200, time_limit=None, certificate="gradient", oversampling=None, sketch_rows=0,
                  nonzeros=4, jl_columns=16, seed=1, linear_solver="auto", offset=None, ridge=None, ridge_scaled=None,
                  audit=0, callback=None, comm=None):
    """Solve k regressions with the same A and w, one for each column of B; they share reads of A and messages.

    Collective. The other parameters are those of `solve`.

    Parameters
    ----------
    B : (n, k) array
        The targets, this rank's rows.

    Returns
    -------
    Result
        X (d x k), also as x; fun (k,), success, message, reads, history, whose phase is the number of the target, and
        results, the `Result` of each target.
    """
    with Call(comm) as call:
        with call.agreed():
            options = solve_options(model_options(loss, ridge, ridge_scaled), method, start, starts, rtol, rtol_of,
                                    max_iterations, time_limit, certificate,
                                    None, oversampling, sketch_rows, nonzeros, jl_columns, seed, linear_solver, None,
                                    audit)
            shown = shown_to(callback)
            targets = numbers(B, "B")
            if targets.ndim != 2:
                raise DataError(f"B has shape {targets.shape}, expected two axes, rows x targets")
        call.alike("the options, or the number of targets", (options, targets.shape[1]))
        rows = call.matrix(A)
        weights = call.weights(w, rows)
        options = call.model(options, offset, rows)
        results = [_checked(call, finished(values)) for values in
                   _attnreg.targets(call.native, rows, targets, weights, options, shown)]
        X = np.array([result.x for result in results]).T
        return _several(results, X, X=X)


def predict(A, x, loss="softmax", *, offset=None, comm=None):
    """What the loss compares with b: softmax(A x + o), exp(A x + o), ...

    Collective, one read of A.

    Parameters
    ----------
    A, loss, offset, comm
        As of `solve`.
    x : (d,) array
        The same on all ranks.

    Returns
    -------
    (n,) array
        This rank's rows.

    Raises
    ------
    NotFiniteError
        A value overflows; with its row.
    """
    with Call(comm) as call:
        with call.agreed():
            model = model_options(loss)
        call.alike("the loss", loss)
        rows, point = call.matrix(A), call.point(x)
        with call.agreed():
            if len(point) != rows.shape[1]:
                raise DataError(f"x has {len(point)} values for {rows.shape[1]} columns of A")
        model = call.model(model, offset, rows)
        try:
            return _attnreg.predict(call.native, rows, point, model)
        except NotFiniteError:
            call.refuse_not_finite()
            raise


def evaluate(A, b, x, w=1e-4, *, loss="softmax", offset=None, ridge=None, ridge_scaled=None, hessian=False, comm=None):
    """L(x), its gradient and, if asked for, Hessian.

    Collective, one read of A; two more and n d^2 operations for the Hessian. Parameters as of `solve`.

    Returns
    -------
    Record
        fun (infinite where it overflows), log_fun, ln of it also there, jac (d,), hess (d, d).
    """
    with Call(comm) as call:
        with call.agreed():
            model = model_options(loss, ridge, ridge_scaled)
        call.alike("the options", (model, bool(hessian)))
        rows = call.matrix(A)
        target, weights, point = call.vector(b, "b", rows), call.weights(w, rows), call.point(x)
        model = call.model(model, offset, rows)
        found = Record(_attnreg.evaluate(call.native, rows, target, weights, point, model, bool(hessian)))
        if not np.isfinite(found.fun):
            call.refuse_not_finite()
        return found


def certify(A, b, x, w=1e-4, *, loss="softmax", offset=None, ridge=None, ridge_scaled=None, level="full", comm=None):
    """What can be proved about any x, wherever it comes from.

    Collective, up to 12 reads of A. Parameters as of `solve`; d is at most 2048 for the level "full".

    Returns
    -------
    Certificate
    """
    with Call(comm) as call:
        with call.agreed():
            model = model_options(loss, ridge, ridge_scaled)
            number_of_level = choice("level", level, LEVELS)
        call.alike("the options", (model, level))
        rows = call.matrix(A)
        target, weights, point = call.vector(b, "b", rows), call.weights(w, rows), call.point(x)
        model = call.model(model, offset, rows)
        found = certificate_of(_attnreg.certify(call.native, rows, target, weights, point, model, number_of_level))
        if not np.isfinite(found.gradient_norm):
            call.refuse_not_finite()
        return found
