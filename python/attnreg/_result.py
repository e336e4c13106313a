"""What the functions return: dicts whose items are attributes too, as scipy.optimize.OptimizeResult."""

import html

import numpy as np

HISTORY = np.dtype([("phase", "U16"), ("iteration", np.int64), ("value", float), ("gradient_norm", float),
                    ("relative_gradient", float), ("step", float), ("radius", float), ("cg_iterations", np.int64),
                    ("reads", float), ("collectives", np.int64), ("seconds", float)])

_MESSAGES = {
    "converged": "converged: the gradient is {relative_gradient:.1e} of the reference",
    "converged_rounding": "converged: the gradient, {relative_gradient:.1e} of the reference, is its rounding",
    "stagnated": "no step lowers L further; the gradient is {relative_gradient:.1e} of the reference",
    "iteration_limit": "stopped after {nit} iterations, their limit",
    "uncertified": "converged, but the distance epsilon could not be certified",
    "time_limit": "stopped by the time limit",
    "breakdown": "a value, gradient or Hessian is not finite; x is the last good iterate",
    "saddle": "the gradient is small, but x is no minimum: the Hessian has negative curvature",
    "no_minimiser": "the gradient is small, but L has no minimiser: it goes on falling along a direction",
    "diverged": "the gradient is small, but L is larger than at x = 0",
    "stopped": "stopped on request: x is the best so far",
}


class Record(dict):
    """A dict whose items are attributes too."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no {name!r}; it has {', '.join(self)}") from None

    __setattr__ = dict.__setitem__
    __delattr__ = dict.__delitem__

    def __dir__(self):
        return [*super().__dir__(), *self.keys()]

    def __repr__(self):
        width = max(map(len, self), default=0)
        lines = [f"{name:>{width}}: {_brief(value)}" for name, value in self.items()]
        return type(self).__name__ + "\n" + "\n".join(lines)


def _brief(value):
    if isinstance(value, np.recarray):
        return f"{len(value)} records of {', '.join(value.dtype.names)}"
    if isinstance(value, np.ndarray):
        if value.size > 6:
            return f"array of shape {value.shape}"
        return np.array2string(value, precision=6).replace("\n", " ")
    if isinstance(value, Record):
        return "{" + ", ".join(value) + "}"
    if isinstance(value, list):
        return f"{len(value)} item" + ("" if len(value) == 1 else "s") if len(str(value)) > 60 else str(value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


class Certificate(Record):
    """What is known of a point; docs/certificate.md has the theorems.

    Attributes
    ----------
    level : str
        "none", "gradient" or "full": what was looked at. The last four attributes are there for "full" only.
    gradient_norm, relative_gradient : float
        Euclidean, and relative to that at x = 0 in columns of equal size.
    smallest_eigenvalue, largest_eigenvalue : float
        Of the Hessian at x.
    kind : str
        "local minimum", "saddle", "degenerate" or "unknown".
    distance_bound : float or None
        |x - x*| is not larger, x* being the only stationary point near; None with `distance_reason`.
    assumptions : list of Record
        Those of the papers: name, statement, value, required, holds.
    """


class Result(Record):
    """What came of a solve.

    Attributes
    ----------
    x : (d,) array
        The minimiser, the same on all ranks; of a solve that was stopped the best point.
    fun : float
        L(x).
    jac : (d,) array
        The gradient of L at x.
    nit : int
        Iterations.
    success : bool
        Whether it converged.
    status : int
        0 converged, 4 stopped before, 5 the numerics broke down: the exit codes of the program.
    termination, message : str
        Why it stopped, in a word and in a sentence.
    fitted : (rows of this rank,) array
        softmax(A x), or what else the loss compares with b.
    fit : Record
        relative_residual, total_variation, kullback_leibler, r_squared, support_fitted, support_target.
    certificate : Certificate
    history : (iterations,) record array
        Fields phase ("start" or "solve"), iteration, value, gradient_norm, relative_gradient, step, radius,
        cg_iterations, reads, collectives, seconds.
    reads : float
        How often A was read, the start included.
    seconds : float
    method, start : str
        Those that were used.
    interrupted : bool
        Whether Ctrl-C ended it.
    notes, warnings : list of str
    """

    def plot(self, b=None, axes=None):
        """Convergence, and with b the fit; see `attnreg.plotting.plot_result`."""
        from .plotting import plot_result
        return plot_result(self, b=b, axes=axes)

    def _repr_html_(self):
        shown = [name for name in ("message", "fun", "nit", "method", "reads", "seconds", "error", "rank")
                 if name in self]
        rows = [(name, _brief(self[name])) for name in shown]
        if "fit" in self and "relative_residual" in self["fit"]:
            rows.append(("|f - b| / |b|", _brief(self["fit"]["relative_residual"])))
        certificate = self.get("certificate", {})
        if certificate.get("level") == "full":
            bound = certificate.get("distance_bound")
            rows.append(("certificate", str(certificate.get("kind", ""))
                         + (f", |x - x*| <= {bound:.2g}" if bound is not None else "")))
        rows += [("warning", text) for text in self.get("warnings", ())]
        body = "".join(f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
                       f"<td style='text-align:left'>{html.escape(text)}</td></tr>" for name, text in rows)
        return f"<table><caption>attnreg</caption>{body}</table>"


def history_of(rows):
    """Records of the extension module as a record array."""
    return np.array([tuple(row) for row in rows], dtype=HISTORY).view(np.recarray)


def finished(values, kind=Result):
    """The dict of the extension module, completed."""
    result = kind()
    termination = values.pop("termination")
    result["message"] = _MESSAGES[termination].format(**values)
    if values.get("interrupted") and termination == "stopped":
        result["message"] = "interrupted from the keyboard: x is the best so far"
    result["success"] = termination in ("converged", "converged_rounding")
    result["status"] = 0 if result["success"] else 5 if termination == "breakdown" else 4
    result["termination"] = termination
    for name in ("fun", "x", "jac", "nit"):
        if name in values:
            result[name] = values.pop(name)
    for name, value in values.items():
        result[name] = value
    if "certificate" in result:
        result["certificate"] = certificate_of(result["certificate"])
    for name in ("fit", "held_out", "audit"):
        if isinstance(result.get(name), dict):
            result[name] = record_of(result[name])
    for name in ("minima", "sketched_steps"):
        if name in result:
            result[name] = [Record(item) for item in result[name]]
    if "history" in result:
        result["history"] = history_of(result["history"])
    return result


def record_of(values):
    """Nested dicts as records."""
    return Record({name: record_of(value) if isinstance(value, dict)
                   else [record_of(item) if isinstance(item, dict) else item for item in value]
                   if isinstance(value, list) else value for name, value in values.items()})


def certificate_of(values):
    return Certificate(record_of(values))
