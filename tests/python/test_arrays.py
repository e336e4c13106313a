"""What is read in place, what is copied, and what is refused."""

import gc
import warnings

import numpy as np
import pytest
import scipy.sparse

import attnreg
from attnreg._call import Call
from attnreg._attnreg import predict
from conftest import softmax


def address(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def no_copies():
    with warnings.catch_warnings():
        warnings.simplefilter("error", attnreg.CopyWarning)
        yield


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_dense_rows_are_read_where_they_lie(dtype, no_copies):
    A = np.random.default_rng(1).standard_normal((50, 3)).astype(dtype)
    x = np.array([1.0, 2.0, -1.0])
    with Call(None) as call:
        matrix = call.matrix(A)
        assert address(matrix.arrays) == address(A)
        A[7] = 3  # the library sees it
        np.testing.assert_allclose(predict(call.native, matrix, x, {}), softmax(A.astype(float) @ x), rtol=1e-10)
        A[7] = 1
        np.testing.assert_allclose(predict(call.native, matrix, x, {}), softmax(A.astype(float) @ x), rtol=1e-10)
    A[7] = 2
    assert attnreg.predict(A, x)[7] == pytest.approx(softmax(A.astype(float) @ x)[7], rel=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_csr_rows_are_read_where_they_lie(dtype, no_copies):
    A = scipy.sparse.random(80, 6, 0.3, format="csr", dtype=dtype, random_state=1)
    x = np.arange(6) / 3
    with Call(None) as call:
        offsets, columns, values = call.matrix(A).arrays
        assert address(columns) == address(A.indices) and address(values) == address(A.data)
    with Call(None) as call:
        matrix = call.matrix(A)
        A.data[:5] = 4
        np.testing.assert_allclose(predict(call.native, matrix, x, {}), softmax(A.astype(float) @ x), rtol=1e-10)


def test_sparse_and_dense_agree(problem):
    A = np.where(np.abs(problem.A) > 0.5, problem.A, 0)
    dense, sparse = (attnreg.solve(M, problem.b, 1e-3) for M in (A, scipy.sparse.csr_matrix(A)))
    np.testing.assert_allclose(sparse.x, dense.x, rtol=1e-6)
    np.testing.assert_allclose(attnreg.evaluate(scipy.sparse.csr_matrix(A), problem.b, dense.x, 1e-3).jac,
                               attnreg.evaluate(A, problem.b, dense.x, 1e-3).jac, atol=1e-15)


COPIED = {
    "Fortran order": np.asfortranarray,
    "every other row": lambda A: np.repeat(A, 2, axis=0)[::2],
    "big endian": lambda A: A.astype(">f8"),
    "long double": lambda A: A.astype(np.longdouble),
    "csc": scipy.sparse.csc_matrix,
    "coo": scipy.sparse.coo_matrix,
    "int64 columns": lambda A: _with_long_indices(scipy.sparse.csr_matrix(A)),
    "unsorted": lambda A: _reversed_rows(scipy.sparse.csr_matrix(A)),
}


def _with_long_indices(A):
    A.indices, A.indptr = A.indices.astype(np.int64), A.indptr.astype(np.int64)
    return A


def _reversed_rows(A):
    columns, data = A.indices.copy(), A.data.copy()
    for first, last in zip(A.indptr, A.indptr[1:]):
        columns[first:last], data[first:last] = columns[first:last][::-1], data[first:last][::-1]
    return scipy.sparse.csr_matrix((data, columns, A.indptr), shape=A.shape)


@pytest.mark.parametrize("layout", COPIED)
def test_other_layouts_are_copied_with_one_warning(layout, problem):
    expected = attnreg.solve(problem.A, problem.b, problem.w)
    given = COPIED[layout](problem.A)
    with pytest.warns(attnreg.CopyWarning, match="^A was copied: ") as caught:
        found = attnreg.solve(given, problem.b, problem.w)
    assert len(caught) == 1 and caught[0].filename == __file__
    np.testing.assert_allclose(found.x, expected.x, rtol=1e-6, atol=1e-6)


def test_integers_and_lists(problem):
    A = [[1, 2], [3, 4], [5, 7]]
    with pytest.warns(attnreg.CopyWarning, match="its type is <i8"):
        found = attnreg.predict(np.array(A), [1, 0])
    np.testing.assert_allclose(found, softmax(np.array([1.0, 3.0, 5.0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        np.testing.assert_array_equal(attnreg.predict(A, [1, 0]), found)  # of a list there is nothing to view


def test_duplicates_are_summed_in_a_copy():
    A = scipy.sparse.csr_matrix((np.array([1.0, 2.0, 5.0]), np.array([0, 0, 1]), np.array([0, 2, 3])), shape=(2, 2))
    with pytest.warns(attnreg.CopyWarning):
        found = attnreg.predict(A, [1.0, 1.0])
    np.testing.assert_allclose(found, softmax(np.array([3.0, 5.0])))
    assert A.nnz == 3  # the caller's is as it was


class Tensor:
    """A tensor of another library: it has DLPack and nothing else."""

    def __init__(self, array, device=(1, 0)):
        self.array, self.device = array, device

    def __dlpack__(self, **options):
        return self.array.__dlpack__()

    def __dlpack_device__(self):
        return self.device


def test_dlpack_is_read_in_place(problem, no_copies):
    A = problem.A.astype(np.float32)
    with Call(None) as call:
        assert address(call.matrix(Tensor(A)).arrays) == address(A)
    found = attnreg.solve(Tensor(A), Tensor(problem.b), problem.w)
    np.testing.assert_array_equal(found.x, attnreg.solve(A, problem.b, problem.w).x)
    with pytest.raises(attnreg.DataError, match="A.detach"):
        attnreg.solve(Tensor(A, device=(2, 0)), problem.b)


def test_torch_tensors_are_read_in_place(problem, no_copies):
    torch = pytest.importorskip("torch")
    A = torch.tensor(problem.A)
    with Call(None) as call:
        assert address(call.matrix(A).arrays) == A.data_ptr()


def test_results_outlive_their_arrays():
    A = np.random.default_rng(2).standard_normal((100, 3))
    result = attnreg.solve(A, np.full(100, 0.01))
    x, fitted = result.x, result.fitted
    before = x.copy(), fitted.copy()
    del A, result
    gc.collect()
    np.testing.assert_array_equal(x, before[0])
    np.testing.assert_array_equal(fitted, before[1])


A = np.arange(12.0).reshape(6, 2) / 10
B = np.full(6, 1 / 6)
REFUSED = [
    (lambda: attnreg.solve(A[0], B), attnreg.DataError, r"A has shape \(2,\), expected two axes"),
    (lambda: attnreg.solve(A.astype(complex), B), attnreg.DataError, "numbers of type complex128, expected real"),
    (lambda: attnreg.solve(A.astype(str), B), attnreg.DataError, "numbers of type"),
    (lambda: attnreg.solve(np.array([[object()]]), [1.0]), attnreg.DataError, "A is no array of real numbers"),
    (lambda: attnreg.solve(np.ma.array(A, mask=A > 1), B), attnreg.DataError, "masked"),
    (lambda: attnreg.solve(np.empty((0, 2)), []), attnreg.DataError, "row"),
    (lambda: attnreg.solve(np.empty((3, 0)), [1, 1, 1]), attnreg.DataError, "column"),
    (lambda: attnreg.solve(A, B[:-1]), attnreg.DataError, r"b has shape \(5,\), expected \(6,\)"),
    (lambda: attnreg.solve(A, B, B[1:]), attnreg.DataError, r"w has shape \(5,\)"),
    (lambda: attnreg.solve(A, np.where(B > 0, np.nan, 0)), attnreg.DataError, "b is nan at row 0"),
    (lambda: attnreg.solve(A, B, np.inf), attnreg.DataError, "weight|w is"),
    (lambda: attnreg.solve(A, B, "w.npy"), attnreg.DataError, "w.npy"),
    (lambda: attnreg.solve("no such file.npy", B), attnreg.DataError, "no such file.npy"),
    (lambda: attnreg.solve(np.where(A == 1.1, np.inf, A), B), attnreg.DataError, "A is inf at row 5 .*column 1"),
    (lambda: attnreg.solve(scipy.sparse.csr_matrix(np.where(A == 1.1, np.nan, A)), B), attnreg.DataError,
     "A is nan at row 5 .*column 1"),
    (lambda: attnreg.predict(np.where(A == 1.1, np.nan, A), [1, 1]), attnreg.DataError, "A is nan at row 5"),
    (lambda: attnreg.predict(A * 1e300, [1e10, 1], "exp"), attnreg.NotFiniteError, "row"),
    (lambda: attnreg.predict(A, [1.0]), attnreg.DataError, "x has 1 values for 2 columns"),
    (lambda: attnreg.solve(A, B, start=[1.0]), attnreg.DataError, "x0 has 1 values for 2 columns"),
    (lambda: attnreg.solve(A, B, start=[np.nan, 1]), attnreg.DataError, "x0 is nan at column 0"),
    (lambda: attnreg.solve_targets(A, B), attnreg.DataError, r"B has shape \(6,\), expected two axes"),
    (lambda: attnreg.solve(A, -B, loss="cross-entropy"), attnreg.DataError, "positive sum"),
    (lambda: attnreg.solve(A, B, loss="sofmax"), attnreg.UsageError, "did you mean softmax"),
    (lambda: attnreg.solve(A, B, method="cg"), attnreg.UsageError, "expected one of auto, newton"),
    (lambda: attnreg.solve(A, B, rtol=0), attnreg.UsageError, "rtol is 0; expected a number above 0 and at most 1"),
    (lambda: attnreg.solve(A, B, max_iterations=1.5), attnreg.UsageError, "expected an integer"),
    (lambda: attnreg.solve(A, B, seed=-1), attnreg.UsageError, "seed is -1"),
    (lambda: attnreg.solve(A, B, sketched={"delta": 0.1}), attnreg.UsageError, "sketched-newton"),
    (lambda: attnreg.solve(A, B, callback=3), attnreg.UsageError, "callback is 3"),
    (lambda: attnreg.solve(A, B, comm=3), attnreg.UsageError, "comm is 3"),
    (lambda: attnreg.path(A, B, []), attnreg.DataError, "at least one weight"),
    (lambda: attnreg.path(A, B, ["a"]), attnreg.UsageError, "a weight is"),
    (lambda: attnreg.sparsify(A[0]), attnreg.DataError, "X has shape"),
    (lambda: attnreg.sparsify(A.T, values=B), attnreg.DataError, "values has shape"),
    (lambda: attnreg.generate("hard", 10, 2), attnreg.UsageError, "preset is 'hard'"),
    (lambda: attnreg.generate("easy", 10, 2, noise=1), attnreg.UsageError, "noise"),
    (lambda: attnreg.generate("easy", 10, 2, directory="/proc/none"), (attnreg.Error, OSError), ""),
]


@pytest.mark.filterwarnings("ignore::attnreg.CopyWarning")
@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_is_wrong_is_an_exception_that_says_what(case):
    call, kind, text = REFUSED[case]
    with pytest.raises(kind, match=text) as caught:
        call()
    if isinstance(caught.value, attnreg.Error):
        assert caught.value.exit_code in (2, 3, 5, 6)


def test_errors_are_also_those_of_python():
    assert issubclass(attnreg.DataError, ValueError) and issubclass(attnreg.OutOfMemoryError, MemoryError)
    assert issubclass(attnreg.OutputError, OSError) and issubclass(attnreg.DataError, attnreg.Error)
    assert attnreg.DataError.exit_code == 3 and attnreg.UsageError.exit_code == 2
