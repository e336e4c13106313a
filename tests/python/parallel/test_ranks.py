"""The functions over several ranks, each with its own rows: the results are those of one process with all rows."""

import os
import signal

import numpy as np
import pytest
import scipy.sparse
from mpi4py import MPI

import attnreg


def test_solve(comm, share, problem):
    A, b, w = problem
    alone = attnreg.solve(A, b, w)
    found = attnreg.solve(share(A), share(b), w, comm=comm)
    assert found.success
    np.testing.assert_allclose(found.x, alone.x, rtol=1e-6)
    np.testing.assert_allclose(found.fitted, share(alone.fitted), rtol=1e-6)
    assert len(set(comm.allgather(found.x.tobytes()))) == 1
    weights = np.linspace(1e-4, 2e-4, len(b))
    np.testing.assert_allclose(attnreg.solve(share(A), share(b), share(weights), comm=comm).x,
                               attnreg.solve(A, b, weights).x, rtol=1e-6)


def test_sparse_rows(comm, share, problem):
    A, b, w = problem
    A = scipy.sparse.csr_matrix(np.where(np.abs(A) > 0.4, A, 0))
    np.testing.assert_allclose(attnreg.solve(share(A), share(b), w, comm=comm).x, attnreg.solve(A, b, w).x, rtol=1e-6)


def test_offsets_and_masks(comm, share, problem, tmp_path):
    A, b, w = problem
    offset = np.where(np.arange(len(b)) % 5 == 0, -np.inf, np.sin(np.arange(len(b))))
    target = np.where(np.isfinite(offset), b, 0)
    alone = attnreg.solve(A, target, w, offset=offset, ridge_scaled=1e-6)
    path = f"{comm.bcast(str(tmp_path))}/offset.npy"
    if comm.rank == 0:
        np.save(path, offset)
    comm.barrier()
    for given in (share(offset), path):
        found = attnreg.solve(share(A), share(target), w, offset=given, ridge_scaled=1e-6, comm=comm)
        np.testing.assert_allclose(found.x, alone.x, rtol=1e-6)
        f = attnreg.predict(share(A), found.x, offset=given, comm=comm)
        np.testing.assert_allclose(f, share(alone.fitted), rtol=1e-6)
    if comm.size > 1:
        with pytest.raises(attnreg.UsageError, match="offset, given or not"):
            attnreg.solve(share(A), share(target), w, offset=share(offset) if comm.rank else None, comm=comm)


def test_the_others(comm, share, problem):
    A, b, w = problem
    x = np.linspace(-1, 1, 6)
    np.testing.assert_allclose(attnreg.predict(share(A), x, comm=comm), share(attnreg.predict(A, x)), rtol=1e-10)
    here = attnreg.evaluate(share(A), share(b), x, w, hessian=True, comm=comm)
    there = attnreg.evaluate(A, b, x, w, hessian=True)
    for name in ("fun", "jac", "hess"):
        np.testing.assert_allclose(here[name], there[name], rtol=1e-8, atol=1e-16)
    scores = attnreg.leverage_scores(share(A), exact=True, comm=comm)
    np.testing.assert_allclose(scores.scores, share(attnreg.leverage_scores(A, exact=True).scores), rtol=1e-8)
    certificate = attnreg.certify(share(A), share(b), x, w, comm=comm)
    assert certificate.smallest_eigenvalue == pytest.approx(attnreg.certify(A, b, x, w).smallest_eigenvalue, rel=1e-6)
    path = attnreg.path(share(A), share(b), [1e-2, 1e-3], comm=comm)
    np.testing.assert_allclose(path.x, attnreg.path(A, b, [1e-2, 1e-3]).x, rtol=1e-5, atol=1e-9)
    B = np.column_stack([b, b[::-1]])
    targets = attnreg.solve_targets(share(A), share(B), w, comm=comm)
    np.testing.assert_allclose(targets.fun, attnreg.solve_targets(A, B, w).fun, rtol=1e-6)
    X = np.asfortranarray(A[:200].T)
    chosen = attnreg.sparsify(np.asfortranarray(share(A[:200]).T), columns=50, seed=3, comm=comm)
    assert comm.allreduce(chosen.Y.shape[1]) == chosen.columns_global
    alone = attnreg.sparsify(X, columns=50, seed=3)
    assert chosen.errors.gram == pytest.approx(alone.errors.gram, rel=1e-8)
    assert sorted(sum(comm.allgather(chosen.columns.tolist()), [])) == alone.columns.tolist()


def test_attention(comm, share):
    generator = np.random.default_rng(8)
    queries, keys = generator.standard_normal((2, 60, 4))
    X = generator.standard_normal((4, 4))
    target = attnreg.attention_matrix(queries, keys, X)
    for fit in ("varpro", "heads"):
        found = attnreg.attention(share(queries), keys, share(target), fit=fit, comm=comm)
        assert found.success and found.error < 1e-6
        np.testing.assert_allclose(attnreg.attention_matrix(queries, keys, found.X), target, atol=1e-7)


def test_files(comm, problem, tmp_path):
    A, b, w = problem
    directory = comm.bcast(str(tmp_path))
    if comm.rank == 0:
        np.save(f"{directory}/A.npy", A)
        np.save(f"{directory}/b.npy", b)
    comm.barrier()
    found = attnreg.solve(f"{directory}/A.npy", f"{directory}/b.npy", w, comm=comm)
    np.testing.assert_allclose(found.x, attnreg.solve(A, b, w).x, rtol=1e-6)
    assert comm.allreduce(len(found.fitted)) == len(b)
    made = attnreg.generate("easy", 100, 3, directory=f"{directory}/easy", comm=comm)
    np.testing.assert_array_equal(made.A, attnreg.generate("easy", 100, 3).A)
    comm.barrier()


def last(comm):
    return comm.rank == comm.size - 1


def test_what_one_rank_finds_wrong_is_raised_on_all(comm, share, problem):
    A, b, w = problem
    mine, target = share(A), share(b)
    wrong = target[:-1] if last(comm) else target
    with pytest.raises(attnreg.DataError, match="b has shape"):
        attnreg.solve(mine, wrong, w, comm=comm)
    with pytest.raises(attnreg.DataError, match="b is nan at row"):
        attnreg.solve(mine, np.where(np.arange(len(target)) == 2, np.nan, target) if last(comm) else target, w,
                      comm=comm)
    bad = mine.copy()
    if last(comm):
        bad[3, 1] = np.inf
    with pytest.raises(attnreg.DataError, match="A is inf at row 3 of this rank, column 1"):
        attnreg.solve(bad, target, w, comm=comm)
    assert attnreg.solve(mine, target, w, comm=comm).success


def test_ranks_that_do_not_give_the_same(comm, share, problem):
    A, b, w = problem
    mine, target = share(A), share(b)
    if comm.size == 1:
        pytest.skip("one rank is always alike")
    with pytest.raises(attnreg.UsageError, match="not the same on all ranks"):
        attnreg.solve(mine, target, w, rtol=1e-8 if last(comm) else 1e-6, comm=comm)
    with pytest.raises(attnreg.UsageError, match="not the same on all ranks"):
        attnreg.solve(mine, target, w if last(comm) else np.full(len(target), w), comm=comm)
    with pytest.raises(attnreg.UsageError, match="not the same on all ranks"):
        attnreg.solve("A.npy" if last(comm) else mine, target, w, comm=comm)
    with pytest.raises(attnreg.DataError, match="columns"):
        attnreg.solve(mine[:, :5].copy() if last(comm) else mine, target, w, comm=comm)
    with pytest.raises(attnreg.DataError, match="different types"):
        attnreg.solve(mine.astype(np.float32) if last(comm) else mine, target, w, comm=comm)
    with pytest.raises(attnreg.DataError, match="x0 must be the same"):
        attnreg.solve(mine, target, w, start=np.full(6, 1.0 + last(comm)), comm=comm)
    with pytest.raises(attnreg.UsageError, match="need a directory"):
        attnreg.generate("easy", 10, 2, comm=comm)


def test_any_rank_can_stop_all(comm, share, problem):
    A, b, w = problem
    options = {"method": "newton", "start": "zero", "rtol": 1e-12, "comm": comm}
    whole = attnreg.solve(share(A), share(b), w, **options)
    callback = (lambda step: step.iteration == 1) if last(comm) else None
    stopped = attnreg.solve(share(A), share(b), w, callback=callback, **options)
    assert stopped.termination == "stopped" and stopped.nit < whole.nit
    assert len(set(comm.allgather(stopped.x.tobytes()))) == 1

    def interrupt(step):
        if step.iteration == 1:
            os.kill(os.getpid(), signal.SIGINT)
    stopped = attnreg.solve(share(A), share(b), w, callback=interrupt if last(comm) else None, **options)
    assert stopped.termination == "stopped" and stopped.interrupted == last(comm)

    def fail(step):
        raise ZeroDivisionError("mine")
    with pytest.raises(ZeroDivisionError if last(comm) else attnreg.UsageError,
                       match="mine" if last(comm) else f"the callback of rank {comm.size - 1} raised"):
        attnreg.solve(share(A), share(b), w, callback=fail if last(comm) else None, **options)


def test_other_communicators(comm, problem):
    A, b, w = problem
    half = comm.Split(comm.rank % 2)
    rows = np.array_split(np.arange(len(b)), half.size)[half.rank]
    found = attnreg.solve(A[rows], b[rows], w, comm=half)
    np.testing.assert_allclose(found.x, attnreg.solve(A, b, w).x, rtol=1e-6)
    half.Free()
    with pytest.raises(attnreg.UsageError, match="expected an intracommunicator"):
        attnreg.solve(A, b, w, comm=MPI.COMM_NULL)
