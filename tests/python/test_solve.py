"""solve and what it returns: against the formulas in NumPy, and against the program."""

import json
import os
import subprocess

import numpy as np
import pytest

import attnreg
from conftest import Problem, gradient, value


def test_solution_is_a_stationary_point_of_the_formula(problem):
    result = attnreg.solve(problem.A, problem.b, problem.w)
    assert result.success and result.status == 0 and result.termination in ("converged", "converged_rounding")
    assert np.linalg.norm(gradient(problem.A, problem.b, result.x, problem.w)) <= 1e-9 * np.linalg.norm(
        gradient(problem.A, problem.b, np.zeros(7), problem.w))
    assert result.fun == pytest.approx(value(problem.A, problem.b, result.x, problem.w), rel=1e-12)
    np.testing.assert_allclose(result.jac, gradient(problem.A, problem.b, result.x, problem.w), atol=1e-14)
    np.testing.assert_allclose(result.fitted, problem.b, atol=1e-5)


def test_weights_per_row(problem):
    w = np.linspace(1e-3, 2e-3, len(problem.b))
    result = attnreg.solve(problem.A, problem.b, w)
    assert np.linalg.norm(gradient(problem.A, problem.b, result.x, w)) <= 1e-9 * np.linalg.norm(
        gradient(problem.A, problem.b, np.zeros(7), w))


def test_history_is_that_of_the_iteration(problem):
    result = attnreg.solve(problem.A, problem.b, problem.w, method="newton", start="zero")
    history = result.history[result.history.phase == "solve"]
    assert history.iteration.tolist() == list(range(result.nit + 1))
    assert history.value[0] == pytest.approx(value(problem.A, problem.b, np.zeros(7), problem.w))
    assert (np.diff(history.value) <= 0).all() and (np.diff(history.reads) > 0).all()
    assert history.value[-1] == pytest.approx(result.fun, rel=1e-9)


def test_a_limit_is_no_error(problem):
    result = attnreg.solve(problem.A, problem.b, problem.w, method="newton", start="zero", max_iterations=1)
    assert not result.success and result.status == 4 and result.termination == "iteration_limit" and result.nit == 1


def test_start_options_and_certificate(problem):
    found = attnreg.solve(problem.A, problem.b, problem.w)
    again = attnreg.solve(problem.A, problem.b, problem.w, start=found.x, method="newton-cg", certificate="full")
    assert again.nit <= 1 and again.start == "given" and again.method == "newton-cg"
    assert again.certificate.kind == "local minimum" and again.certificate.distance_bound < 1e-3
    assert {"weights (tight)", "rank"} <= {row.name for row in again.certificate.assumptions}
    starts = attnreg.solve(problem.A, problem.b, problem.w, starts=2)
    assert sum(minimum.starts for minimum in starts.minima) >= 3


def test_audit(problem):
    plain, audited = (attnreg.solve(problem.A, problem.b, problem.w, audit=rate) for rate in (0, 1))
    np.testing.assert_array_equal(audited.x, plain.x)
    assert "audit" not in plain and audited.audit.rows >= len(problem.b) and audited.audit.repeated == 0
    with pytest.raises(attnreg.UsageError):
        attnreg.solve(problem.A, problem.b, problem.w, audit=2)


def test_sketched_newton_has_its_steps(problem):
    result = attnreg.solve(problem.A, problem.b, 1e-2, method="sketched-newton", sketched={"sampling_error": 0.2})
    assert result.success and len(result.sketched_steps) == result.nit and result.sketched_steps[0].rows > 0


def test_path_and_targets_are_single_solves(problem):
    weights = [1e-2, 1e-3, 1e-4]
    path = attnreg.path(problem.A, problem.b, weights)
    assert path.success and path.x.shape == (3, 7) and (path.weights == weights).all()
    for x, w in zip(path.x, weights):
        np.testing.assert_allclose(x, attnreg.solve(problem.A, problem.b, w).x, atol=1e-5)
    B = np.column_stack([problem.b, problem.b[::-1]])
    targets = attnreg.solve_targets(problem.A, B, problem.w)
    assert targets.X.shape == (7, 2) and set(targets.history.phase) >= {"0", "1"}
    for k in range(2):
        single = attnreg.solve(problem.A, B[:, k], problem.w)
        assert targets.fun[k] <= single.fun * (1 + 1e-6)
    limited = attnreg.path(problem.A, problem.b, weights, time_limit=1e-9)
    assert not limited.success and limited.status == 4 and len(limited.results) < 3


def test_other_losses(problem):
    b = np.exp(problem.A @ problem.x_true / 4)
    result = attnreg.solve(problem.A, b, 1e-6, loss="exp")
    np.testing.assert_allclose(result.fitted, b, rtol=1e-4)
    np.testing.assert_allclose(attnreg.predict(problem.A, result.x, "exp"), np.exp(problem.A @ result.x), rtol=1e-12)


def test_more_columns_than_rows():
    wide = Problem(n=20, d=600)
    result = attnreg.solve(wide.A, wide.b, 1e-2)
    assert result.success
    np.testing.assert_allclose(result.jac, gradient(wide.A, wide.b, result.x, 1e-2), atol=1e-12)


def test_one_row_and_one_column():
    assert attnreg.solve(np.ones((1, 1)), [1.0]).success
    assert attnreg.solve(np.array([[0.0], [1.0]]), [0.5, 0.5]).x.shape == (1,)


def test_evaluate_against_formulas(problem):
    x = np.linspace(-1, 1, 7)
    found = attnreg.evaluate(problem.A, problem.b, x, 0.1, hessian=True)
    assert found.fun == pytest.approx(value(problem.A, problem.b, x, 0.1), rel=1e-13)
    assert found.log_fun == pytest.approx(np.log(found.fun))
    np.testing.assert_allclose(found.jac, gradient(problem.A, problem.b, x, 0.1), rtol=1e-10, atol=1e-13)
    step = 1e-6
    for j in range(7):
        e = step * np.eye(7)[j]
        column = (gradient(problem.A, problem.b, x + e, 0.1) - gradient(problem.A, problem.b, x - e, 0.1)) / (2 * step)
        np.testing.assert_allclose(found.hess[:, j], column, atol=1e-6 * np.abs(found.hess).max())
    large = attnreg.evaluate(np.full((2, 1), 800.0), [1, 1], [1.0], loss="exp")
    assert np.isinf(large.fun) and np.isfinite(large.log_fun)


def test_certify_anywhere(problem):
    x = attnreg.solve(problem.A, problem.b, problem.w).x
    there = attnreg.certify(problem.A, problem.b, x, problem.w)
    assert there.kind == "local minimum" and there.relative_gradient < 1e-9
    away = attnreg.certify(problem.A, problem.b, x + 1, problem.w, level="gradient")
    assert away.level == "gradient" and away.relative_gradient > 1e-6 and "kind" not in away


def test_leverage_scores(problem):
    w = np.linspace(-1, 2, len(problem.b))
    exact = attnreg.leverage_scores(problem.A, w, exact=True)
    q, _ = np.linalg.qr(w[:, None] * problem.A)
    np.testing.assert_allclose(exact.scores, (q ** 2).sum(axis=1), atol=1e-12)
    assert exact.rank == 7 and exact.sum == pytest.approx(7)
    near = attnreg.leverage_scores(problem.A, w, jl_columns=0, sketch_rows=300)
    ratio = near.scores[exact.scores > 1e-8] / exact.scores[exact.scores > 1e-8]
    assert 0.4 < ratio.min() and ratio.max() < 2.5


@pytest.mark.parametrize("method", ["leverage", "bss", "uniform", "norm", "jl", "topk"])
def test_sparsify(method):
    X = np.asfortranarray(np.random.default_rng(3).standard_normal((6, 400)) / 20)
    found = attnreg.sparsify(X, method=method, columns=80)
    assert found.Y.shape[0] == 6 and found.Y.shape[1] == found.columns_global > 0
    if method != "jl":
        np.testing.assert_allclose(found.Y, X[:, found.columns] * np.sqrt(found.weights), atol=1e-14)
    K = X @ X.T
    gram = np.abs(found.Y @ found.Y.T - K).max() / np.abs(K).max()
    assert found.errors.gram == pytest.approx(gram, rel=1e-9) and found.errors_of_zero.gram == pytest.approx(1)


def test_generate_writes_what_the_program_writes(tmp_path):
    made = attnreg.generate("practical", 300, 4, spread=2.0, directory=tmp_path / "ours")
    run_program("generate", "practical", "--rows", "300", "--cols", "4", "--spread", "2", "-o", tmp_path / "theirs")
    for name in ("A", "b", "w", "x_true"):
        assert (tmp_path / f"ours/{name}.npy").read_bytes() == (tmp_path / f"theirs/{name}.npy").read_bytes()
    np.testing.assert_array_equal(made.A, np.load(tmp_path / "ours/A.npy"))
    sparse = attnreg.generate("sparse", 300, 20, nonzeros_per_row=3)
    assert sparse.A.format == "csr" and sparse.A.nnz == 900


def test_same_as_the_program(words, tmp_path):
    A, b = words
    np.save(tmp_path / "A.npy", A)
    np.save(tmp_path / "b.npy", b)
    run_program("solve", tmp_path / "A.npy", tmp_path / "b.npy", "--weight", "1e-4", "--certificate", "full", "-o",
                tmp_path / "run", "-q")
    theirs = json.loads((tmp_path / "run/run.json").read_text())
    for ours in (attnreg.solve(A, b, 1e-4, certificate="full"),
                 attnreg.solve(tmp_path / "A.npy", str(tmp_path / "b.npy"), 1e-4, certificate="full")):
        np.testing.assert_array_equal(ours.x, np.load(tmp_path / "run/x.npy"))
        assert ours.fun == theirs["summary"]["value"] and ours.nit == theirs["summary"]["iterations"]
        assert ours.certificate.smallest_eigenvalue == theirs["certificate"]["smallest_eigenvalue"]
        assert ours.fit.relative_residual == theirs["summary"]["fit"]["relative_residual"]


def run_program(*words):
    subprocess.run([os.environ["ATTNREG_PROGRAM"], *map(str, words)], check=True, capture_output=True)


def test_result_is_a_dict_with_attributes(problem):
    result = attnreg.solve(problem.A, problem.b, problem.w)
    assert result["fun"] == result.fun and "fun" in dir(result)
    assert "converged" in repr(result) and "x: array of shape (7,)" in repr(result)
    assert "<table>" in result._repr_html_() and "fun" in result._repr_html_()
    with pytest.raises(AttributeError, match="has no 'function'; it has message"):
        result.function
    import pickle
    again = pickle.loads(pickle.dumps(result))
    np.testing.assert_array_equal(again.x, result.x)
    assert type(again) is attnreg.Result and again.certificate.level == "gradient"


def test_offset_ridge_and_masks(problem):
    rng = np.random.default_rng(8)
    A, b = problem.A, np.array(problem.b)
    offset = rng.standard_normal(len(b))
    # A part of the logits that is known.
    x0 = rng.standard_normal(A.shape[1])
    shifted = attnreg.solve(A, b, 0.0, loss="cross-entropy", offset=A @ x0)
    np.testing.assert_allclose(shifted.x + x0, attnreg.solve(A, b, 0.0, loss="cross-entropy").x, rtol=1e-6, atol=1e-8)
    # Masked rows are left out.
    masked = np.where(np.arange(len(b)) % 3 == 0, -np.inf, offset)
    rest = np.isfinite(masked)
    found = attnreg.solve(A, np.where(rest, b, 0), 1e-3, offset=masked, ridge=1e-5)
    alone = attnreg.solve(A[rest], b[rest], 1e-3, offset=offset[rest], ridge=1e-5)
    np.testing.assert_allclose(found.x, alone.x, rtol=1e-6)
    f = attnreg.predict(A, found.x, offset=masked)
    np.testing.assert_allclose(f, found.fitted, rtol=1e-12)
    assert (f[~rest] == 0).all() and f.sum() == pytest.approx(1)
    # Value, gradient and certificate have offset and ridge.
    x = 0.3 * x0
    z = A @ x + offset
    expected = np.exp(z - z.max()) / np.exp(z - z.max()).sum()
    sizes = np.linalg.norm(A - A.mean(axis=0), axis=0)
    for options, r in (({"ridge": 0.2}, np.full(len(x), 0.2)), ({"ridge_scaled": 0.2}, 0.2 * sizes ** 2)):
        there = attnreg.evaluate(A, b, x, 0.1, offset=offset, **options)
        value = ((expected - b) ** 2).sum() / 2 + 0.005 * ((A @ x) ** 2).sum() + (r * x ** 2).sum() / 2
        assert there.fun == pytest.approx(value, rel=1e-12)
        certificate = attnreg.certify(A, b, x, 0.1, offset=offset, **options)
        assert certificate.gradient_norm == pytest.approx(np.linalg.norm(there.jac), rel=1e-9)
        assert certificate.minimiser_exists
        end = attnreg.solve(A, b, 0.1, offset=offset, **options)
        assert np.linalg.norm(attnreg.evaluate(A, b, end.x, 0.1, offset=offset, **options).jac / sizes) < 1e-9
        path = attnreg.path(A, b, [1.0, 0.1], offset=offset, **options)
        np.testing.assert_allclose(path.x[1], end.x, rtol=1e-6)
        several = attnreg.solve_targets(A, np.column_stack([b, b]), 0.1, offset=offset, **options)
        np.testing.assert_allclose(several.X[:, 1], end.x, rtol=1e-6)


def test_wrong_offsets_and_ridges(problem, tmp_path):
    A, b = problem.A, problem.b
    for wrong, text in ((np.zeros(3), "offset has shape"), (np.full(len(b), np.nan), "offset is nan at row 0"),
                        (np.full(len(b), np.inf), "offset is inf at row 0"), (np.full(len(b), -np.inf), "all rows")):
        with pytest.raises(attnreg.DataError, match=text):
            attnreg.solve(A, b, offset=wrong)
    mask = np.zeros(len(b))
    mask[5] = -np.inf
    with pytest.raises(attnreg.DataError, match="exp knows no masks"):
        attnreg.predict(A, np.zeros(A.shape[1]), "exp", offset=mask)
    with pytest.raises(attnreg.UsageError, match="exclude each other"):
        attnreg.evaluate(A, b, np.zeros(A.shape[1]), ridge=1, ridge_scaled=1)
    with pytest.raises(attnreg.UsageError, match="ridge is -1"):
        attnreg.solve(A, b, ridge=-1)
    np.save(tmp_path / "o.npy", mask)
    f = attnreg.predict(A, np.zeros(A.shape[1]), offset=tmp_path / "o.npy")
    assert f[5] == 0 and f[4] == pytest.approx(1 / (len(b) - 1))
