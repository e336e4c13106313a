"""Attention: one-layer regressions, heads of language models, layers."""

import math

import numpy as np

from . import _attnreg
from ._call import Call, choice, from_dlpack, integer, number, numbers
from ._errors import DataError, UsageError
from ._result import Record, Result, finished, record_of
from ._solve import GIVEN, LEVELS, LOSSES, newton_options, shown_to

FITS = ("auto", "heads", "layer", "varpro", "joint")
MODELS = ("auto", "dense", "kronecker")
SPLITS = ("sqrt", "orthogonal")
BIASES = ("none", "query", "key", "both")
HEAD_LOSSES = ("cross-entropy", "softmax", "log-odds")
ROUNDING = {2: 2.0**-10, 4: 2.0**-23, 8: 2.0**-52}


def attention_matrix(queries, keys, X, mask=None):
    """softmax(queries X keys^T), row by row.

    Local, on one thread.

    Parameters
    ----------
    queries, keys : (n1, d1), (n2, d2) arrays
    X : (d1, d2) array
    mask : "causal" or (n1, n2) array, optional
        Which keys a query sees; as of `attention`.

    Returns
    -------
    (n1, n2) array
        Exactly 0 at keys that a query does not see.
    """
    Z = np.asarray(queries, float) @ np.asarray(X, float) @ np.asarray(keys, float).T
    seen = visible(mask, *Z.shape)
    if seen is not None:
        Z = np.where(seen, Z, -np.inf)
    Z = np.exp(Z - Z.max(axis=1, keepdims=True))
    return Z / Z.sum(axis=1, keepdims=True)


def visible(mask, queries, keys):
    """The mask as an array of truth values; None: all keys."""
    if mask is None:
        return None
    if isinstance(mask, str):
        choice("mask", mask, ("causal",))
        if queries > keys:
            raise DataError(f"a causal mask needs as many keys as queries; there are {keys} and {queries}")
        return np.tri(queries, keys, keys - queries, dtype=bool)
    return np.asarray(mask) != 0


def _list(values):
    """One sequence, or several of them."""
    return list(values) if isinstance(values, (list, tuple)) else [values]


def _aligned(values, name, count):
    if values is None or isinstance(values, str):
        return [values] * count
    values = _list(values)
    if len(values) != count:
        raise DataError(f"{name} has {len(values)} sequences, queries have {count}")
    return values


def _matrix(values, name):
    array = numbers(values, name)
    if array.ndim != 2:
        raise DataError(f"{name} has shape {array.shape}, expected two axes")
    return array


def _mask(mask, queries, keys, name):
    if mask is None:
        return None
    if isinstance(mask, str):
        choice("mask", mask, ("causal",))
        return "causal"
    array = np.ascontiguousarray(np.asarray(mask) != 0, dtype=np.uint8)
    if array.shape != (queries, keys):
        raise DataError(f"{name} has shape {array.shape}, expected {(queries, keys)}, queries x keys")
    return array


def _sequences(queries, keys, target, values, weights, mask):
    """What the extension module takes; targets as they are."""
    queries, keys = _list(queries), _list(keys)
    count = len(queries)
    if count == 0:
        raise DataError("there are no sequences")
    columns = {name: _aligned(given, name, count) for name, given in
               (("keys", keys), ("target", target), ("values", values), ("weights", weights), ("mask", mask))}
    sequences = []
    for s in range(count):
        at = f" of sequence {s}" if count > 1 else ""
        sequence = {"queries": _matrix(queries[s], "queries" + at), "keys": _matrix(columns["keys"][s], "keys" + at)}
        for name in ("values", "weights"):
            given = columns[name][s]
            sequence[name] = None if given is None else _matrix(given, name + at)
        sequence["mask"] = _mask(columns["mask"][s], len(sequence["queries"]), len(sequence["keys"]), "mask" + at)
        sequence["target"] = from_dlpack(columns["target"][s], "target" + at)
        sequences.append(sequence)
    return sequences


def _heads(sequences):
    """Puts the targets of each head into the sequences, as float where they have no more digits; their rounding."""
    rounding, shape, several = 0.0, None, None
    for s, sequence in enumerate(sequences):
        at = f"target of sequence {s}" if len(sequences) > 1 else "target"
        given = np.asarray(sequence.pop("target"))
        several = given.ndim == 3
        small = given.dtype.kind == "f" and given.dtype.itemsize <= 4
        rounding = max(rounding, ROUNDING.get(given.dtype.itemsize, 2.0**-52) if given.dtype.kind == "f" else 2.0**-52)
        array = numbers(given, at, np.float32 if small else np.float64)
        array = array[None] if array.ndim == 2 else array
        expected = (len(sequence["queries"]), len(sequence["keys"]))
        if array.ndim != 3 or array.shape[1:] != expected or array.shape[0] == 0:
            raise DataError(f"{at} has shape {given.shape}, expected {expected}, or one axis of heads before")
        if shape not in (None, (several, array.shape[0])):
            raise DataError(f"{at} has shape {given.shape}; all sequences have the same heads")
        shape = several, array.shape[0]
        sequence["heads"] = list(array)
    return several, rounding


def _with_ones(sequences, bias):
    for sequence in sequences:
        for name, of in (("queries", "query"), ("keys", "key")):
            if bias in (of, "both"):
                matrix = sequence[name]
                sequence[name] = np.ascontiguousarray(np.column_stack([matrix, np.ones(len(matrix))]))


def _rank(rank, automatic):
    if isinstance(rank, str):
        return {"auto": automatic, "full": 0}[("auto", "full")[choice("rank", rank, ("auto", "full"))]]
    return integer("rank", rank, 0, 10**6)


def _chosen_fit(fit, values, weights, loss, ndim, size, dense_limit, of_newton, of_heads):
    """What attention() does with fit="auto": the rules of the program."""
    if fit != "auto":
        return fit
    if values is not None:
        return "layer" if loss in ("auto", "softmax") and not of_newton else "varpro"
    plain = weights is None and not of_newton and loss in ("auto",) + HEAD_LOSSES
    asked = of_heads or loss == "log-odds" or ndim == 3
    if asked and not plain:
        raise UsageError("several heads, held-out sequences, biases and splits are for fit='heads', which knows no "
                         "values, weights or options of the iteration")
    return "heads" if plain and (asked or size > dense_limit) else "varpro"


def attention(queries, keys, target, values=None, *, weights=None, mask=None, loss="auto", fit="auto", rank="auto",
              start="auto", starts=None, known_values=None, held_out=None, ridge=0.0, bias="none", split="sqrt",
              model="auto", dense_limit=4096, rtol=None, max_iterations=None, time_limit=None, certificate=None, seed=1,
              callback=None, comm=None):
    """Find X, and with values Y, so that softmax(A1 X A2^T) reproduces B, or softmax(A1 X A2^T) A3 Y does.

    Collective. Of several ranks each gives its own queries, with their rows of target, weights and mask; keys and
    values are the same on all. All arrays are copied, to double; targets of heads with at most 24 bits to float.

    Parameters
    ----------
    queries : (n1, d1) array, or a list of them
        A1; one for each sequence. Sequences share X and Y.
    keys : (n2, d2) array, or a list
        A2.
    target : (n1, n2) or (heads, n1, n2) array, or a list
        B, rows that sum to 1; with values the outputs, n1 x dv. Heads: one X for each.
    values : (n2, d3) array, or a list, optional
        A3.
    weights : (n1, n2) array, or a list, optional
        W of the ridge 1/2 |W o Z|^2 on the logits Z. Not with values.
    mask : "causal", (n1, n2) array, or a list, optional
        Which keys a query sees. Causal: of n1 queries and n2 >= n1 keys, query i sees the keys j <= i + n2 - n1.
    loss : str
        "auto", "softmax", "cross-entropy", "log-odds" or another of `attnreg.LOSSES`.
    fit : {"auto", "heads", "layer", "varpro", "joint"}
        "heads": from log-odds, for X of the size of an attention head; "layer": X and Y of outputs, from several
        starts; "varpro", "joint": Newton-CG from one start. "auto": "layer" with values, "heads" for several heads or
        more than `dense_limit` numbers in X, else "varpro".
    rank : {"auto", "full"} or int
        X = P Q^T with so many columns each; "auto": from the data for heads and layers, else "full".
    start : {"auto", "zero", "cross-entropy"} or (d1, d2) array
        Of varpro and joint.
    starts : int, optional
        Solve from so many random points as well.
    known_values : (d3, dv) array, optional
        Y of a layer; X alone is found then.
    held_out : float or tuple, optional
        Of heads: (queries, keys, target) or (queries, keys, target, mask) of other sequences, or the share of the last
        ones, to measure how X predicts what it has not seen.
    ridge : float
        Of heads: W of 1/2 W^2 |Z|^2.
    bias : {"none", "query", "key", "both"}
        Of heads: a column of ones behind queries or keys.
    split : {"sqrt", "orthogonal"}
        Of X = P Q^T = U S V^T: the root of S goes to both factors, or all of it to P.
    model, dense_limit, rtol, max_iterations, time_limit, certificate, callback
        Of varpro and joint; see `solve` and docs/attention.md.
    seed : int
    comm : mpi4py communicator, optional

    Returns
    -------
    Result
        X (d1, d2), Y or None, P and Q or None, rank, error, |F - B| / |B|, success, message, notes, warnings; of varpro
        and joint fun, nit, certificate and history. Of heads `fit`, `held_out` and `verdict` ("predicts", "roughly",
        "fits only", "neither"); of a target with an axis of heads the list `heads` of such results.

    Raises
    ------
    UsageError, DataError
        On all ranks.

    Notes
    -----
    Source: docs/attention.md. Ctrl-C gives the best point of varpro and joint, and waits for the others.
    """
    newton = {"rtol": rtol, "max_iterations": max_iterations, "time_limit": time_limit, "certificate": certificate}
    with Call(comm) as call:
        with call.agreed():
            sequences = _sequences(queries, keys, target, values, weights, mask)
            others = _held_out(sequences, held_out)
            choice("fit", fit, FITS)
            choice("loss", loss, ("auto", "log-odds") + LOSSES)
            integer("dense_limit", dense_limit, 1, 10**9)
            first = sequences[0]
            of_newton = any(value is not None for value in newton.values()) or model != "auto" or (
                not isinstance(start, str) or start != "auto")
            of_heads = held_out is not None or ridge != 0 or bias != "none" or split != "sqrt"
            chosen = _chosen_fit(fit, values, weights, loss, np.ndim(first["target"]),
                                 first["queries"].shape[1] * first["keys"].shape[1], dense_limit,
                                 of_newton or starts is not None and values is None, of_heads)
            if chosen == "heads":
                several, options = _head_options(sequences, others, loss, rank, ridge, bias, split, seed)
            elif chosen == "layer":
                options = _layer_options(sequences, loss, rank, starts, known_values, dense_limit, seed)
            else:
                options = _newton_options(sequences, chosen, loss, rank, start, starts, model, dense_limit, newton,
                                          seed)
            shown = shown_to(callback)
        shapes = [(len(s["keys"]), len(s.get("heads", ()))) for s in sequences + others]
        call.alike("the options, or the number of sequences, keys or heads",
                   (chosen, {name: value for name, value in options.items() if not isinstance(value, np.ndarray)},
                    shapes))
        if chosen == "heads":
            heads = [_recovered(values) for values in
                     _attnreg.recover_heads(call.native, sequences, others, options)]
            if not several:
                return heads[0]
            worst = max(heads, key=lambda head: head.error)
            return Result(message=f"{len(heads)} heads; |F - B| / |B| at most {worst.error:.2e}",
                          success=all(head.success for head in heads), error=worst.error, heads=heads)
        if chosen == "layer":
            return _recovered(_attnreg.recover_layer(call.native, sequences, options))
        return finished(_attnreg.attention(call.native, sequences, options, shown))


def _held_out(sequences, held_out):
    """The sequences that are kept from the fit; a share is taken from those that are given."""
    if held_out is None:
        return []
    if isinstance(held_out, tuple):
        if len(held_out) not in (3, 4):
            raise UsageError("held_out is a tuple of queries, keys, target and, if there is one, mask")
        mask = held_out[3] if len(held_out) == 4 else None
        return _sequences(*held_out[:3], None, None, mask)
    count = math.ceil(number("held_out", held_out, 0, 1) * len(sequences))
    if count >= len(sequences):
        raise DataError(f"held_out leaves none of the {len(sequences)} sequences")
    others = sequences[-count:]
    del sequences[-count:]
    return others


def _head_options(sequences, others, loss, rank, ridge, bias, split, seed):
    choice("loss of heads", "cross-entropy" if loss == "auto" else loss, HEAD_LOSSES)
    if any(s["values"] is not None or s["weights"] is not None for s in sequences):
        raise UsageError("fit='heads' knows no values or weights")
    several, rounding = _heads(sequences)
    if others:
        more, _ = _heads(others)
        if more != several or len(others[0]["heads"]) != len(sequences[0]["heads"]):
            raise DataError("the held-out sequences have other heads")
    choice("bias", bias, BIASES)
    _with_ones(sequences, bias)
    _with_ones(others, bias)
    return several, {"loss": "cross-entropy" if loss == "auto" else loss, "rank": _rank(rank, -1),
                     "weight": number("ridge", ridge, 0, strict=False), "rounding": rounding,
                     "split": choice("split", split, SPLITS), "seed": integer("seed", seed, 0, 2**64 - 1)}


def _layer_options(sequences, loss, rank, starts, known_values, dense_limit, seed):
    choice("loss of layers", "softmax" if loss == "auto" else loss, ("softmax",))
    options = {"rank": _rank(rank, -1), "dense_limit": dense_limit, "seed": integer("seed", seed, 0, 2**64 - 1)}
    if known_values is not None:
        options["Y"] = _matrix(known_values, "known_values")
    if starts is not None:
        options["starts"] = integer("starts", starts, 0, 10**5) + 1
    options["rounding"] = max(ROUNDING.get(np.asarray(s["target"]).dtype.itemsize, 2.0**-52) for s in sequences)
    _dense_targets(sequences)
    return options


def _dense_targets(sequences):
    for s, sequence in enumerate(sequences):
        sequence["target"] = _matrix(sequence["target"], f"target of sequence {s}" if len(sequences) > 1 else "target")


def _newton_options(sequences, fit, loss, rank, start, starts, model, dense_limit, newton, seed):
    certificate = newton.pop("certificate")
    options = newton_options(rtol_of=None, **newton)
    names = {"auto": "softmax", "log-odds": None}
    options.update(loss=names.get(loss, loss), method=1 if fit == "varpro" else 0,
                   model=choice("model", model, MODELS), dense_limit=dense_limit, rank=_rank(rank, 0),
                   starts=integer("starts", starts or 0, 0, 10**5), seed=integer("seed", seed, 0, 2**64 - 1),
                   certificate=choice("certificate", certificate or "gradient", LEVELS))
    if options["loss"] is None:
        raise UsageError("loss='log-odds' is for fit='heads'")
    if isinstance(start, str):
        options["start"] = choice("start", start, ("auto", "zero", "cross-entropy"))
    else:
        options["start"] = GIVEN
        given = _list(start) if isinstance(start, tuple) else [start]
        options["X0"] = _matrix(given[0], "start")
        if len(given) > 1:
            options["Y0"] = _matrix(given[1], "Y of start")
    _dense_targets(sequences)
    return options


def _recovered(values):
    """The result of a recovery, which has no termination."""
    result = Result()
    result["success"] = values.pop("converged")
    result["status"] = 0 if result["success"] else 4
    word = ("stopped at the limit of steps" if not result["success"]
            else "recovered" if values.get("is_exact", True) else "converged")
    result["message"] = f"{word}: the relative error is {values['error']:.2e}"
    result.update(record_of(values))
    return result


def evaluate_attention(queries, keys, target, X, values=None, Y=None, *, weights=None, mask=None, loss="softmax",
                       hessian=False, comm=None):
    """L, its gradient and, if asked for, Hessian at (X, Y).

    Collective. Parameters as of `attention`.

    Returns
    -------
    Record
        fun, jac_X, jac_Y (None without values), hess of [vec X; vec Y], vec row by row.
    """
    with Call(comm) as call:
        with call.agreed():
            sequences = _sequences(queries, keys, target, values, weights, mask)
            _dense_targets(sequences)
            choice("loss", loss, LOSSES)
            at = _matrix(X, "X"), None if Y is None else _matrix(Y, "Y")
        call.alike("the options, or the number of sequences or keys",
                   (loss, bool(hessian), [len(s["keys"]) for s in sequences]))
        return Record(_attnreg.evaluate_attention(call.native, sequences, *at, loss, bool(hessian)))
