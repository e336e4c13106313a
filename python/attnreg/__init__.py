"""attnreg: softmax(A x) ~ b and attention regressions, distributed with MPI; docs/python.md.

Functions of the library: solve, path, solve_targets, predict, evaluate, certify, leverage_scores, sparsify, attention,
evaluate_attention, generate. Estimators in scikit-learn's conventions: SoftmaxRegressor, AttentionHead (need
scikit-learn). Pictures: attnreg.plotting (needs matplotlib).
"""

import atexit as _atexit

from . import _attnreg
from ._attention import attention, attention_matrix, evaluate_attention
from ._errors import (CopyWarning, DataError, Error, InternalError, LimitError, NotFiniteError, OutOfMemoryError,
                      OutputError, UsageError)
from ._matrices import generate, leverage_scores, sparsify
from ._result import Certificate, Record, Result
from ._solve import LOSSES, certify, evaluate, path, predict, solve, solve_targets

__version__ = _attnreg.__version__
__all__ = ["LOSSES", "AttentionHead", "Certificate", "CopyWarning", "DataError", "Error", "InternalError",
           "LimitError", "NotFiniteError", "OutOfMemoryError", "OutputError", "Record", "Result", "SoftmaxRegressor",
           "UsageError", "attention", "attention_matrix", "certify", "evaluate", "evaluate_attention", "generate",
           "leverage_scores", "path", "plot_attention", "plot_scores", "predict", "solve", "solve_targets", "sparsify"]

_atexit.register(_attnreg.finish_mpi)

# What needs packages that not everybody has is imported when it is first used.
_LATER = {"SoftmaxRegressor": "estimators", "AttentionHead": "estimators", "plot_scores": "plotting",
          "plot_attention": "plotting"}


def __getattr__(name):
    if name in _LATER:
        import importlib
        return getattr(importlib.import_module(f".{_LATER[name]}", __name__), name)
    raise AttributeError(f"module 'attnreg' has no attribute {name!r}")


def __dir__():
    return sorted({*globals(), *_LATER})
