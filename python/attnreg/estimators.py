"""Estimators in scikit-learn's conventions."""

import warnings

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.validation import check_is_fitted

from ._attention import attention, attention_matrix
from ._errors import DataError
from ._solve import predict, solve

# Checks of sklearn.utils.estimator_checks.check_estimator that SoftmaxRegressor cannot pass, each with its reason; a
# test holds that these and no others fail.
EXPECTED_FAILED_CHECKS = {
    "check_methods_subset_invariance": "softmax(A x) is a distribution over the rows that are given: over some of them "
                                       "it is another one",
    "check_fit_score_takes_y": "it wants the second argument of fit to be called y; here it is b, as everywhere else",
}


def _validated(estimator, *data, **options):
    """scikit-learn's own checks, which moved from a method to a function in version 1.6."""
    try:
        from sklearn.utils.validation import validate_data
    except ImportError:
        return estimator._validate_data(*data, **options)
    return validate_data(estimator, *data, **options)


def _warn_unless_converged(result):
    if not result.success:
        warnings.warn(result.message, ConvergenceWarning, stacklevel=3)


class SoftmaxRegressor(RegressorMixin, BaseEstimator):
    """Regression of a distribution over rows: softmax(A x) ~ b.

    Parameters
    ----------
    w : float
        Weight of the ridge 1/2 |w A x|^2.
    loss, method, start, rtol, max_iterations, certificate, seed, ridge, ridge_scaled
        As of `attnreg.solve`.

    Attributes
    ----------
    coef_ : (d,) array
        x.
    n_iter_ : int
    n_features_in_ : int
    result_ : attnreg.Result

    Notes
    -----
    What is predicted for a row depends on the other rows. Warns with ConvergenceWarning where the solve did not end at
    a minimum.

    Examples
    --------
    >>> import numpy as np
    >>> from attnreg import SoftmaxRegressor
    >>> A = np.random.default_rng(1).standard_normal((500, 3))
    >>> b = np.exp(A @ [1, 0, -1]); b /= b.sum()
    >>> round(SoftmaxRegressor(w=1e-6).fit(A, b).score(A, b), 6)
    1.0
    """

    def __init__(self, w=1e-4, *, loss="softmax", method="auto", start="auto", rtol=1e-10, max_iterations=200,
                 certificate="gradient", seed=1, ridge=None, ridge_scaled=None):
        self.w = w
        self.loss = loss
        self.method = method
        self.start = start
        self.rtol = rtol
        self.max_iterations = max_iterations
        self.certificate = certificate
        self.seed = seed
        self.ridge = ridge
        self.ridge_scaled = ridge_scaled

    def fit(self, A, b, row_weights=None, offset=None):
        """Find x.

        Parameters
        ----------
        A : (n, d) array or CSR matrix
            C-order arrays of float32 or float64 are read in place.
        b : (n,) array
        row_weights : (n,) array, optional
            A ridge for each row in place of `w`. It is no sample weight: a row of weight 0 has its part in the fit, and
            a large weight holds its logit near 0.
        offset : (n,) array, optional
            Added to the logits; -inf masks a row.

        Returns
        -------
        SoftmaxRegressor
        """
        A, b = _validated(self, A, b, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", y_numeric=True)
        b = np.asarray(b, float)
        if b.ndim != 1:
            raise DataError(f"b has shape {b.shape}, expected one axis; attnreg.solve_targets has several targets")
        self.result_ = solve(A, b, self.w if row_weights is None else row_weights, loss=self.loss, method=self.method,
                             start=self.start, rtol=self.rtol, max_iterations=self.max_iterations,
                             certificate=self.certificate, seed=self.seed, offset=offset, ridge=self.ridge,
                             ridge_scaled=self.ridge_scaled)
        self.coef_ = self.result_.x
        self.n_iter_ = max(1, self.result_.nit)
        _warn_unless_converged(self.result_)
        return self

    def predict(self, A, offset=None):
        """softmax(A x + offset), or what else the loss compares with b, over the rows of A together.

        Parameters
        ----------
        A : (n, d) array or CSR matrix
        offset : (n,) array, optional
            Of these rows.

        Returns
        -------
        (n,) array
        """
        check_is_fitted(self)
        A = _validated(self, A, accept_sparse="csr", dtype=[np.float64, np.float32], order="C", reset=False)
        return predict(A, self.coef_, self.loss, offset=offset)

    def _more_tags(self):  # before scikit-learn 1.6
        return {"poor_score": True, "_xfail_checks": EXPECTED_FAILED_CHECKS}

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.regressor_tags.poor_score = True  # a distribution does not fit any target
        tags.input_tags.sparse = True
        return tags


class AttentionHead(BaseEstimator):
    """The X behind attention matrices, softmax(A1 X A2^T) ~ B, or X and Y behind outputs.

    Parameters
    ----------
    rank : {"auto", "full"} or int
    loss, method, bias, ridge, split, seed
        As of `attnreg.attention`, of which `method` is the parameter fit.

    Attributes
    ----------
    X_ : (d1, d2) array
    P_, Q_ : (d1, r), (d2, r) arrays or None
        X = P Q^T.
    Y_ : (d3, dv) array or None
        Of fits with values.
    rank_ : int or None
    result_ : attnreg.Result

    Notes
    -----
    Sequences are lists of arrays, arrays with three axes, or stacked rows with `groups`.
    """

    def __init__(self, rank="auto", *, loss="auto", method="auto", bias="none", ridge=0.0, split="sqrt", seed=1):
        self.rank = rank
        self.loss = loss
        self.method = method
        self.bias = bias
        self.ridge = ridge
        self.split = split
        self.seed = seed

    def fit(self, queries, keys, attention, mask=None, groups=None, values=None):
        """Find X.

        Parameters
        ----------
        queries, keys : (n1, d1), (n2, d2) arrays, or sequences of them
        attention : (n1, n2) array, or a sequence
            B; with values the outputs, (n1, dv).
        mask : "causal", (n1, n2) array, or a sequence, optional
        groups : (n,) array, optional
            The number of the sequence of each row, where queries and keys are stacked; then `attention` is a list, in
            the order in which the groups first occur.
        values : (n2, d3) array, or a sequence, optional

        Returns
        -------
        AttentionHead
        """
        queries, keys, values = _by_groups(groups, queries, keys, values)
        self.result_ = _attention(queries, keys, _sequences(attention), values, mask=mask, loss=self.loss,
                                  fit=self.method, rank=self.rank, bias=self.bias, ridge=self.ridge, split=self.split,
                                  seed=self.seed)
        if "heads" in self.result_:
            raise DataError("attention has an axis of heads; one AttentionHead is one head: use attnreg.attention")
        self.X_, self.P_, self.Q_ = (self.result_.get(name) for name in ("X", "P", "Q"))
        self.Y_ = self.result_.get("Y")
        self.rank_ = None if self.P_ is None else self.P_.shape[1]
        _warn_unless_converged(self.result_)
        return self

    def predict(self, queries, keys, mask=None, groups=None, values=None):
        """softmax(A1 X A2^T), times A3 Y of fits with values.

        Returns
        -------
        (n1, n2) or (n1, dv) array, or a list of them
            As queries were given.
        """
        check_is_fitted(self)
        single = groups is None and not isinstance(queries, (list, tuple)) and np.ndim(queries) == 2
        queries, keys, values = _by_groups(groups, queries, keys, values)
        masks = mask if isinstance(mask, (list, tuple)) else [mask] * len(queries)
        found = []
        for s, (A1, A2) in enumerate(zip(queries, keys)):
            if self.bias in ("query", "both"):
                A1 = np.column_stack([A1, np.ones(len(A1))])
            if self.bias in ("key", "both"):
                A2 = np.column_stack([A2, np.ones(len(A2))])
            if (np.shape(A1)[1], np.shape(A2)[1]) != self.X_.shape:
                raise DataError(f"sequence {s} has {np.shape(A1)[1]} and {np.shape(A2)[1]} columns, X is {self.X_.shape}")
            F = attention_matrix(A1, A2, self.X_, masks[s])
            if self.Y_ is not None:
                if values is None:
                    raise DataError("this fit has values; give those of the sequences")
                F = F @ np.asarray(values[s], float) @ self.Y_
            found.append(F)
        return found[0] if single else found

    def score(self, queries, keys, attention, mask=None, groups=None, values=None):
        """1 - |F - B| / |B| over all sequences: 1 where they are predicted exactly, on those of the fit or on others."""
        found, expected = self.predict(queries, keys, mask, groups, values), _sequences(attention)
        found = [found] if isinstance(found, np.ndarray) else found
        if len(found) != len(expected):
            raise DataError(f"attention has {len(expected)} sequences, queries have {len(found)}")
        expected = [np.asarray(B, float) for B in expected]
        return 1 - np.sqrt(sum(np.sum((F - B) ** 2) for F, B in zip(found, expected))
                           / sum(np.sum(B ** 2) for B in expected))


_attention = attention  # the name of an argument


def _sequences(given):
    if given is None or isinstance(given, (list, tuple)):
        return given
    return list(given) if np.ndim(given) == 3 else [given]


def _by_groups(groups, *stacked):
    """Each as a list of sequences."""
    if groups is None:
        return [_sequences(given) for given in stacked]
    groups = np.asarray(groups)
    names, first = np.unique(groups, return_index=True)
    names = names[np.argsort(first)]
    for given in stacked:
        if given is not None and len(given) != len(groups):
            raise DataError(f"groups has {len(groups)} numbers for {len(given)} rows")
    return [None if given is None else [np.asarray(given)[groups == name] for name in names] for given in stacked]
