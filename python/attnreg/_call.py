"""A call of the library: its communicator, what its ranks agree on, and matrices of Python's that it reads in place."""

import contextlib
import difflib
import os
import sys
import warnings
import zlib

import numpy as np

from . import _attnreg
from ._errors import CopyWarning, DataError, Error, UsageError, code_of

IN_PLACE = (np.dtype(np.float16), np.dtype(np.float32), np.dtype(np.float64))


def _address(comm):
    """Where the MPI_Comm of an mpi4py communicator lies; 0 for None."""
    if comm is None:
        return 0
    try:
        from mpi4py import MPI
    except ImportError:
        raise UsageError("comm is given, but there is no mpi4py; comm=None is this process alone") from None
    if not isinstance(comm, MPI.Intracomm) or comm == MPI.COMM_NULL:
        raise UsageError(f"comm is {comm!r}; expected an intracommunicator of mpi4py, such as MPI.COMM_WORLD, or None")
    _attnreg.start_mpi()
    ours, theirs = (text.split("\0")[0].strip() for text in (_attnreg.mpi_library(), MPI.Get_library_version()))
    if ours != theirs or MPI._sizeof(MPI.Comm) != _attnreg.mpi_handle_bytes():
        raise UsageError(f"mpi4py was built with another MPI, {theirs!r}, than attnreg, {ours!r}")
    return MPI._addressof(comm)


class Call:
    """One collective call; `with` ends it on all ranks at the same place."""

    def __init__(self, comm):
        self.native = _attnreg.Call(_address(comm))
        self._given = []
        self.rank, self.size = self.native.rank, self.native.size

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.native.close()

    @contextlib.contextmanager
    def agreed(self):
        """Collective. What one rank finds wrong inside is raised on all of them."""
        own = None
        try:
            yield
        except Exception as error:
            own = error
        try:
            self.native.agree(0 if own is None else code_of(own), "" if own is None else str(own))
        except Error:
            if own is None:
                raise
        if own is not None:
            raise own

    def alike(self, what, value):
        """Collective. UsageError unless all ranks give the same; it would make them call different collectives."""
        if self.size > 1 and not self.native.is_alike(zlib.crc32(repr(value).encode())):
            raise UsageError(f"{what}: not the same on all ranks")
        return value

    def matrix(self, A, name="A"):
        """Collective. The rows that this rank gives, or those of a file, as the library sees them."""
        with self.agreed():
            found = _layout(A, name)
        kind, *arguments = found
        if kind != "load":  # the library has looked at the numbers of a file
            self._given.append((name, arguments))
        self.alike(f"the kind of {name}, an array, a sparse matrix or a file", (kind, arguments if kind == "load" else 0))
        return getattr(_attnreg, kind)(self.native, *arguments)

    def refuse_not_finite(self):
        """Collective. DataError where a matrix has numbers that are not finite: looked up when something overflows."""
        with self.agreed():
            for name, arrays in self._given:
                if len(arrays) == 1:
                    _refuse_dense(arrays[0], name)
                else:
                    _refuse_sparse(*arrays[:3], name)

    def vector(self, values, name, matrix):
        """Collective. One number per row of `matrix`, in double."""
        return self._rows(values, name, matrix, False)

    def weights(self, w, matrix, name="w"):
        """Collective. One weight for all rows, or one per row."""
        return self._rows(w, name, matrix, True)

    def model(self, model, offset, matrix):
        """Collective. What L is made of, with the offset: nothing, one number per row, or a file."""
        self.alike("offset, given or not", offset is None)
        return model if offset is None else {**model, "offset": self._rows(offset, "offset", matrix, False)}

    def _rows(self, values, name, matrix, or_number):
        kind = "numbers"
        with self.agreed():
            if isinstance(values, (str, os.PathLike)):
                kind, values = "file", os.fspath(values)
            elif or_number and np.ndim(values) == 0:
                kind, values = "number", number(name, values, -np.inf, np.inf, strict=False)
            else:
                values = numbers(values, name)
                if values.ndim == 2 and values.shape[1] == 1:
                    values = values[:, 0]
                if values.ndim != 1 or len(values) != matrix.rows_local:
                    raise DataError(f"{name} has shape {values.shape}, expected ({matrix.rows_local},), "
                                    f"one value per row of A")
        self.alike(name, (kind, values if kind != "numbers" else 0))
        return _attnreg.load_rows(self.native, values, name, matrix) if kind == "file" else values

    def point(self, x, name="x"):
        """Collective. A replicated vector."""
        with self.agreed():
            x = numbers(x, name)
            if x.ndim != 1:
                raise DataError(f"{name} has shape {x.shape}, expected one axis")
        return x


def _refuse_dense(array, name, block=4096):
    for first in range(0, len(array), block):
        bad = np.argwhere(~np.isfinite(array[first:first + block].astype(float, copy=False)))
        if len(bad):
            row, column = bad[0]
            raise DataError(f"{name} is {array[first + row, column]} at row {first + row} of this rank, column {column} "
                            "(counted from 0)")


def _refuse_sparse(offsets, columns, values, name):
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        row = np.searchsorted(offsets, bad[0], side="right") - 1
        raise DataError(f"{name} is {values[bad[0]]} at row {row} of this rank, column {columns[bad[0]]} "
                        "(counted from 0)")


def is_sparse(A):
    return hasattr(A, "tocsr") and hasattr(A, "nnz")


def numbers(values, name, dtype=np.float64):
    """An array of finite type; a copy unless it has this type and layout."""
    try:
        array = np.asarray(from_dlpack(values, name))
        if array.dtype.kind not in "fiub" and array.dtype != object:
            raise TypeError(f"numbers of type {array.dtype}")
        return np.ascontiguousarray(array, dtype=dtype) if array.ndim else array.astype(dtype)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is no array of real numbers: {error}") from None


def from_dlpack(values, name):
    """NumPy's view of a tensor of another library that lies in main memory; anything else as it is."""
    if isinstance(values, np.ndarray) or not hasattr(values, "__dlpack__"):
        return values
    try:
        device = int(values.__dlpack_device__()[0])
        if device not in (1, 3):  # main memory, pinned or not
            raise BufferError(f"it is on a device of kind {device}")
        return np.from_dlpack(values)
    except Exception as error:
        raise DataError(f"{name}: NumPy cannot see this {type(values).__name__} in place ({error}); "
                        "give a tensor of the CPU without gradient, such as A.detach().cpu()") from None


def _warn(name, why):
    """At the line that called the package."""
    frame, level = sys._getframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("attnreg", "contextlib"):
        frame, level = frame.f_back, level + 1
    warnings.warn(f"{name} was copied: {why}", CopyWarning, stacklevel=level)


def _layout(A, name):
    """How the library reads A: the function of _attnreg, and its arguments."""
    if isinstance(A, (str, os.PathLike)):
        return "load", os.fspath(A)
    if is_sparse(A):
        return ("sparse", *csr_arrays(A, name))
    return "dense", dense_array(A, name)


def dense_array(A, name):
    """A as C-order rows of float16, float32, float64 or bfloat16, in place where it is that."""
    if isinstance(A, np.ma.MaskedArray):
        raise DataError(f"{name} is a masked array; attnreg has no missing entries")
    array = from_dlpack(A, name)
    from_list = not hasattr(array, "__array__") and not hasattr(array, "__array_interface__")
    if not isinstance(array, np.ndarray):
        array = numbers(array, name) if from_list else np.asarray(array)
    array = np.asarray(array)  # of subclasses
    if array.ndim != 2:
        raise DataError(f"{name} has shape {array.shape}, expected two axes, rows x columns")
    known = array.dtype in IN_PLACE or array.dtype.name == "bfloat16"
    if known and array.dtype.isnative and array.flags.c_contiguous and array.flags.aligned:
        return array
    if not known and array.dtype.kind not in "fiub":
        if array.dtype != object:
            raise DataError(f"{name} has numbers of type {array.dtype}, expected real ones")
    dtype = array.dtype.newbyteorder("=") if known else np.float64
    why = "it is not in C order" if known and array.dtype.isnative else f"its type is {array.dtype.str}"
    copied = numbers(array, name, dtype)
    if not from_list:
        _warn(name, f"{why}; C-order float16, float32 and float64 are read in place")
    return copied


def csr_arrays(A, name):
    """Row offsets, columns, values and the number of columns; the values and columns in place where A has that form."""
    why = None
    if A.format != "csr":
        why, A = f"its format is {A.format}", A.tocsr()
    elif A.indices.dtype != np.int32:
        why = f"its indices are {A.indices.dtype}"
    elif A.data.dtype not in IN_PLACE[1:] or not A.data.dtype.isnative:
        why = f"its type is {A.data.dtype}"
    if not A.has_canonical_format:
        why = "the columns of its rows are not in order, or some occur twice" if why is None else why
        A = A.copy()
        A.sum_duplicates()
    if A.data.dtype.kind not in "fiub":
        raise DataError(f"{name} has numbers of type {A.data.dtype}, expected real ones")
    if A.shape[1] > np.iinfo(np.int32).max:
        raise DataError(f"{name} has {A.shape[1]} columns; of sparse ones there may be 2^31 - 1")
    data = A.data if A.data.dtype in IN_PLACE[1:] and A.data.dtype.isnative else A.data.astype(np.float64)
    if why is not None:
        _warn(name, f"{why}; csr with int32 indices, sorted, of float32 or float64 is read in place")
    entries = int(A.indptr[-1])
    return (np.ascontiguousarray(A.indptr, dtype=np.int64),
            np.ascontiguousarray(A.indices[:entries], dtype=np.int32),
            np.ascontiguousarray(data[:entries]), A.shape[1])


# Options: each of these returns the value or raises UsageError.

def choice(name, value, names):
    """The number of `value` among names."""
    if not isinstance(value, str) or value not in names:
        near = difflib.get_close_matches(str(value), names, 1)
        raise UsageError(f"{name} is {value!r}; expected one of {', '.join(names)}"
                         + (f"; did you mean {near[0]}?" if near else ""))
    return list(names).index(value)


def number(name, value, low, high=np.inf, strict=True):
    """A float in (low, high], or in [low, high]."""
    try:
        result = float(value)
    except (TypeError, ValueError):
        raise UsageError(f"{name} is {value!r}; expected a number") from None
    if not (low < result if strict else low <= result) or not result <= high:
        bounds = f"{'above' if strict else 'at least'} {low:g}" + (f" and at most {high:g}" if high < np.inf else "")
        raise UsageError(f"{name} is {value!r}; expected a number {bounds}")
    return result


def integer(name, value, low, high=2**63 - 1):
    try:
        result = value.__index__()
    except (AttributeError, TypeError):
        raise UsageError(f"{name} is {value!r}; expected an integer") from None
    if not low <= result <= high:
        raise UsageError(f"{name} is {value!r}; expected an integer from {low} to {high}")
    return result
