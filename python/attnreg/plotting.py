"""Pictures; they need matplotlib."""

import numpy as np

from ._errors import DataError


def _axes(axes, count, width=4.5, height=3.4):
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError("pictures need matplotlib: python3-matplotlib, or pip install matplotlib") from error
    if axes is None:
        _, axes = pyplot.subplots(1, count, figsize=(width * count, height), constrained_layout=True, squeeze=False)
    axes = np.ravel(axes)
    if len(axes) < count:
        raise DataError(f"axes has {len(axes)} axes, expected {count}")
    return axes[:count]


def plot_result(result, b=None, axes=None):
    """Convergence of a solve, and how it fits b; of a path L and |x| over the weights.

    Parameters
    ----------
    result : Result
        Of solve, path, solve_targets or attention.
    b : (n,) array, optional
        The target, to be drawn beside result.fitted, largest first.
    axes : matplotlib axes, optional
        As many as there are pictures.

    Returns
    -------
    list of matplotlib axes
    """
    if "weights" in result:
        left, right = axes = _axes(axes, 2)
        left.loglog(result.weights, result.fun, "o-")
        left.set(xlabel="weight w", ylabel="L(x)")
        right.semilogx(result.weights, np.linalg.norm(result.x, axis=1), "o-")
        right.set(xlabel="weight w", ylabel="|x|")
        return list(axes)
    if "history" not in result:
        raise DataError("this result has no history; plot_attention shows what a head predicts")
    axes = _axes(axes, 1 if b is None else 2)
    history = result.history
    for phase in dict.fromkeys(history.phase):
        chosen = history[history.phase == phase]
        chosen = chosen[chosen.relative_gradient > 0]
        axes[0].semilogy(chosen.reads, chosen.relative_gradient, "o-", markersize=3, label=phase)
    axes[0].set(xlabel="reads of A", ylabel="|g| / reference", title=f"{result.get('method', '')} {result.message}"[:60])
    if len(set(history.phase)) > 1:
        axes[0].legend()
    if b is not None:
        b = np.ravel(np.asarray(b, float))
        if len(b) != len(result.fitted):
            raise DataError(f"b has {len(b)} values, result.fitted has {len(result.fitted)}")
        order = np.argsort(-b)
        axes[1].plot(b[order], label="b")
        axes[1].plot(result.fitted[order], ".", markersize=2, label="fitted")
        axes[1].set(xlabel="row, largest b first", xscale="log" if len(b) > 20 else "linear",
                    title=f"|f - b| / |b| = {result.fit.relative_residual:.2g}")
        axes[1].legend()
    return list(axes)


def plot_scores(scores, axes=None):
    """Leverage scores, largest first, and the sum of the first ones.

    Parameters
    ----------
    scores : (n,) array, or what leverage_scores returns

    Returns
    -------
    list of matplotlib axes
    """
    scores = np.sort(np.asarray(scores["scores"] if isinstance(scores, dict) else scores, float))[::-1]
    left, right = axes = _axes(axes, 2)
    rows = np.arange(1, len(scores) + 1)
    left.loglog(rows[scores > 0], scores[scores > 0])
    left.set(xlabel="row, largest score first", ylabel="leverage score")
    right.semilogx(rows, np.cumsum(scores))
    right.set(xlabel="rows", ylabel="sum of the scores")
    return list(axes)


def plot_attention(F, B=None, axes=None):
    """Attention F, and beside it B and F - B.

    Parameters
    ----------
    F, B : (n1, n2) arrays

    Returns
    -------
    list of matplotlib axes
    """
    F = np.asarray(F, float)
    pictures = [("F", F)]
    if B is not None:
        B = np.asarray(B, float)
        if B.shape != F.shape:
            raise DataError(f"F has shape {F.shape}, B {B.shape}")
        pictures += [("B", B), (f"F - B, |F - B| / |B| = {np.linalg.norm(F - B) / np.linalg.norm(B):.2g}", F - B)]
    axes = _axes(axes, len(pictures))
    for k, (axis, (title, matrix)) in enumerate(zip(axes, pictures)):
        size = np.abs(matrix).max() or 1
        options = {"vmin": 0, "cmap": "viridis"} if k < 2 else {"vmin": -size, "cmap": "coolwarm"}
        image = axis.imshow(matrix, vmax=size, aspect="auto", interpolation="nearest", **options)
        axis.set(title=title, xlabel="key", ylabel="query")
        axis.figure.colorbar(image, ax=axis)
    return list(axes)
