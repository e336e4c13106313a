# The types of the public names; docstrings are in the sources.
import os
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .estimators import AttentionHead as AttentionHead
from .estimators import SoftmaxRegressor as SoftmaxRegressor
from .plotting import plot_attention as plot_attention
from .plotting import plot_scores as plot_scores

class _Tensor(Protocol):
    def __dlpack__(self, *, stream: Any = ...) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...

class _Sparse(Protocol):
    shape: tuple[int, int]
    nnz: int
    def tocsr(self) -> Any: ...

_Path = str | os.PathLike[str]
_Matrix = ArrayLike | _Tensor | _Sparse | _Path
_Numbers = ArrayLike | _Tensor
_Vector = _Numbers | _Path
_Sequences = _Numbers | Sequence[_Numbers]
_Mask = Literal["causal"] | ArrayLike | Sequence[Literal["causal"] | ArrayLike | None]
_Floats = NDArray[np.float64]
_Method = Literal["auto", "newton", "newton-cg", "sketched-newton", "surrogate"]
_Start = Literal["auto", "zero", "cross-entropy"] | ArrayLike
_Level = Literal["none", "gradient", "full"]
_Solver = Literal["auto", "rank0", "scalapack"]
_Reference = Literal["zero", "max"]
_Callback = Callable[[Record], Any] | None
_Comm = Any  # mpi4py.MPI.Intracomm | None

__version__: str
LOSSES: tuple[str, ...]

class Error(Exception):
    exit_code: int
class DataError(Error, ValueError): ...
class UsageError(Error, ValueError): ...
class LimitError(Error): ...
class NotFiniteError(Error, ArithmeticError): ...
class OutputError(Error, OSError): ...
class OutOfMemoryError(Error, MemoryError): ...
class InternalError(Error, RuntimeError): ...
class CopyWarning(UserWarning): ...

class Record(dict[str, Any]):
    def __getattr__(self, name: str) -> Any: ...

class Certificate(Record):
    level: str
    gradient_norm: float
    relative_gradient: float

class Result(Record):
    success: bool
    status: int
    message: str
    def plot(self, b: ArrayLike | None = None, axes: Any = None) -> list[Any]: ...

def solve(A: _Matrix, b: _Vector, w: float | _Vector = 1e-4, *, loss: str = "softmax", method: _Method = "auto",
          start: _Start = "auto", starts: int = 0, rtol: float = 1e-10, rtol_of: _Reference = "zero",
          max_iterations: int = 200, time_limit: float | None = None, certificate: _Level = "gradient",
          epsilon: float | None = None, oversampling: float | None = None, sketch_rows: int = 0, nonzeros: int = 4,
          jl_columns: int = 16, seed: int = 1, linear_solver: _Solver = "auto", sketched: dict[str, Any] | None = None,
          offset: _Vector | None = None, ridge: float | None = None, ridge_scaled: float | None = None,
          audit: float = 0, callback: _Callback = None, comm: _Comm = None) -> Result: ...
def path(A: _Matrix, b: _Vector, weights: ArrayLike, *, loss: str = "softmax", method: _Method = "auto",
         start: _Start = "auto", starts: int = 0, rtol: float = 1e-10, rtol_of: _Reference = "zero",
         max_iterations: int = 200, time_limit: float | None = None, certificate: _Level = "gradient",
         oversampling: float | None = None, sketch_rows: int = 0, nonzeros: int = 4, jl_columns: int = 16, seed: int = 1,
         linear_solver: _Solver = "auto", offset: _Vector | None = None, ridge: float | None = None,
         ridge_scaled: float | None = None, audit: float = 0, callback: _Callback = None, comm: _Comm = None) -> Result: ...
def solve_targets(A: _Matrix, B: _Numbers, w: float | _Vector = 1e-4, *, loss: str = "softmax",
                  method: _Method = "auto", start: _Start = "auto", starts: int = 0, rtol: float = 1e-10,
                  rtol_of: _Reference = "zero", max_iterations: int = 200, time_limit: float | None = None,
                  certificate: _Level = "gradient", oversampling: float | None = None, sketch_rows: int = 0,
                  nonzeros: int = 4, jl_columns: int = 16, seed: int = 1, linear_solver: _Solver = "auto",
                  offset: _Vector | None = None, ridge: float | None = None, ridge_scaled: float | None = None,
                  audit: float = 0, callback: _Callback = None, comm: _Comm = None) -> Result: ...
def predict(A: _Matrix, x: _Numbers, loss: str = "softmax", *, offset: _Vector | None = None,
            comm: _Comm = None) -> _Floats: ...
def evaluate(A: _Matrix, b: _Vector, x: _Numbers, w: float | _Vector = 1e-4, *, loss: str = "softmax",
             offset: _Vector | None = None, ridge: float | None = None, ridge_scaled: float | None = None,
             hessian: bool = False, comm: _Comm = None) -> Record: ...
def certify(A: _Matrix, b: _Vector, x: _Numbers, w: float | _Vector = 1e-4, *, loss: str = "softmax",
            offset: _Vector | None = None, ridge: float | None = None, ridge_scaled: float | None = None,
            level: _Level = "full", comm: _Comm = None) -> Certificate: ...
def leverage_scores(A: _Matrix, weights: _Vector | None = None, *, exact: bool = False, sketch_rows: int = 0,
                    nonzeros: int = 4, jl_columns: int = 16, seed: int = 1, comm: _Comm = None) -> Record: ...
def sparsify(X: _Matrix, *, method: Literal["leverage", "bss", "uniform", "norm", "jl", "topk"] = "leverage",
             epsilon: float = 0.5, delta: float = 0.01, columns: int | None = None, with_replacement: bool = False,
             seed: int = 1, values: ArrayLike | None = None, measure: bool = True, scale: float = 1.0,
             comm: _Comm = None) -> Record: ...
def generate(preset: Literal["easy", "practical", "illcond", "coherent", "sparse", "misfit"], rows: int, columns: int,
             *, loss: str = "softmax", seed: int = 20240607, dtype: Literal["float64", "float32"] = "float64",
             directory: _Path | None = None, comm: _Comm = None, **options: float) -> Record: ...
def attention_matrix(queries: ArrayLike, keys: ArrayLike, X: ArrayLike,
                     mask: Literal["causal"] | ArrayLike | None = None) -> _Floats: ...
def attention(queries: _Sequences, keys: _Sequences, target: _Sequences, values: _Sequences | None = None, *,
              weights: _Sequences | None = None, mask: _Mask | None = None, loss: str = "auto",
              fit: Literal["auto", "heads", "layer", "varpro", "joint"] = "auto",
              rank: Literal["auto", "full"] | int = "auto", start: Any = "auto", starts: int | None = None,
              known_values: ArrayLike | None = None, held_out: float | tuple[Any, ...] | None = None,
              ridge: float = 0.0, bias: Literal["none", "query", "key", "both"] = "none",
              split: Literal["sqrt", "orthogonal"] = "sqrt", model: Literal["auto", "dense", "kronecker"] = "auto",
              dense_limit: int = 4096, rtol: float | None = None, max_iterations: int | None = None,
              time_limit: float | None = None, certificate: _Level | None = None, seed: int = 1,
              callback: _Callback = None, comm: _Comm = None) -> Result: ...
def evaluate_attention(queries: _Sequences, keys: _Sequences, target: _Sequences, X: ArrayLike,
                       values: _Sequences | None = None, Y: ArrayLike | None = None, *,
                       weights: _Sequences | None = None, mask: _Mask | None = None, loss: str = "softmax",
                       hessian: bool = False, comm: _Comm = None) -> Record: ...
