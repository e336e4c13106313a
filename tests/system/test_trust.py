"""Exit code 0 means that the answer is right: inputs on which solvers go wrong, on 1 and 3 ranks, dense and sparse."""

import itertools
import json
import os
import pathlib
import unittest

import numpy as np

from command_line import CommandLineTest, read_json, run, softmax

CASES = pathlib.Path(os.environ["ATTNREG_TEST_DATA"]) / "cases"
SUCCESS = ("converged", "converged_rounding")


def noisy(A, x, generator, deviation):
    b = softmax(A @ x) * np.exp(deviation * generator.standard_normal(len(A)))
    return b / b.sum()


def as_csr(path, A):
    """A as scipy.sparse.save_npz would write it."""
    rows, columns = np.nonzero(A)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(A)))])
    np.savez(path, data=A[rows, columns], indices=columns.astype(np.int32), indptr=offsets.astype(np.int32),
             shape=np.array(A.shape), format=np.array(b"csr"))


class TrustTest(CommandLineTest):
    def write(self, name, array):
        path = self.directory / f"{name}.npy"
        np.save(path, array)
        return path

    def forms(self, name, A):
        """The same matrix, dense and sparse."""
        dense, sparse = self.write(name, A), self.directory / f"{name}.npz"
        as_csr(sparse, A)
        return {"dense": dense, "sparse": sparse}

    def solve(self, *arguments, code=0, ranks=1):
        out = self.directory / f"run{len(os.listdir(self.directory))}"
        result = run("solve", *arguments, "-o", out, ranks=ranks)
        self.assert_code(code, result)
        json = read_json(out / "run.json")
        self.assertEqual(json["summary"]["termination"] in SUCCESS, code == 0, repr(result))
        return np.load(out / "x.npy"), json["summary"], json["notes"] + json["warnings"]

    def everywhere(self, A, *arguments, **options):
        for form, path in self.forms("A", A).items():
            for ranks in (1, 3):
                with self.subTest(form=form, ranks=ranks, arguments=[str(a) for a in arguments]):
                    yield self.solve(path, *arguments, ranks=ranks, **options)


class Columns(TrustTest):
    """Neither the units of a column nor, for losses that do not see it, a constant added to it change the answer."""

    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(6)
        self.A = generator.standard_normal((200, 3))
        self.b = self.write("b", noisy(self.A, generator.standard_normal(3), generator, 0.2))
        _, self.reference, _ = self.solve(self.write("reference", self.A), self.b, "--weight", "0")

    def assert_as_reference(self, summary):
        self.assertAlmostEqual(summary["value"] / self.reference["value"], 1, delta=1e-9)
        self.assertLessEqual(summary["relative_gradient"], 1e-10)

    def test_timestamps(self):
        for _, summary, _ in self.everywhere(np.c_[self.A[:, 1:], 1.7e12 + 1e10 * self.A[:, 0]], self.b, "--weight", 0):
            self.assert_as_reference(summary)

    def test_constant_column(self):
        for x, summary, notes in self.everywhere(np.c_[self.A, np.full(200, 1e8)], self.b, "--weight", 0):
            self.assert_as_reference(summary)
            self.assertIn("column 3 of A is constant", " ".join(notes))
            self.assertEqual(0, x[3])

    def test_offset_that_takes_the_digits(self):
        far = np.c_[self.A[:, :2], 1e9 + self.A[:, 2]]
        for _, summary, notes in self.everywhere(far, self.b, "--weight", 0):
            self.assertAlmostEqual(summary["value"] / self.reference["value"], 1, delta=1e-6)
            self.assertIn("column 2 of A has a mean", " ".join(notes))

    def test_offset_with_a_weight(self):
        """The regulariser sees the true A x: the gradient at x vanishes, in numbers of another precision."""
        A = (np.c_[self.A[:, :2], 1e4 + self.A[:, 2]]).astype(np.longdouble)
        b, w = np.load(self.b).astype(np.longdouble), np.longdouble(1e-3)

        def gradient(x):
            z = A @ x
            f = softmax(z)
            return A.T @ (f * (f - b - f @ (f - b)) + w * w * z)

        for x, _, _ in self.everywhere(A.astype(float), self.b, "--weight", 1e-3):
            size = np.sqrt((A * A).sum(0))
            self.assertLess(np.linalg.norm(gradient(x.astype(np.longdouble)) / size),
                            1e-9 * np.linalg.norm(gradient(np.zeros(3, np.longdouble)) / size))

    def test_units(self):
        """A ratio of 1e16 between columns: the same steps, and the same x after scaling back."""
        units = 10.0 ** np.linspace(-8, 8, 3)
        for weight in ("0", "1e-4"):
            x, reference, _ = self.solve(self.directory / "reference.npy", self.b, "--weight", weight)
            for scaled, summary, _ in self.everywhere(self.A * units, self.b, "--weight", weight):
                self.assertEqual(reference["iterations"], summary["iterations"])
                np.testing.assert_allclose(scaled * units, x, rtol=1e-6)
                np.testing.assert_allclose(summary["relative_gradient"], reference["relative_gradient"], atol=1e-10)

    def test_units_of_every_loss(self):
        units = np.array([1e-7, 1, 1e9])
        for loss in ("cross-entropy", "exp", "cosh", "sinh", "rescaled-exp"):
            with self.subTest(loss=loss):
                _, reference, _ = self.solve(self.directory / "reference.npy", self.b, "--loss", loss)
                _, summary, _ = self.solve(self.write("scaled", self.A * units), self.b, "--loss", loss)
                self.assertAlmostEqual(summary["value"] / reference["value"], 1, delta=1e-6)

    def test_tiny_and_huge_entries(self):
        b = self.write("exact", softmax(self.A @ [1.0, -0.5, 0.3]))
        for scale in (1e-160, 1e-290, 1e150, 1e290):
            for _, summary, _ in self.everywhere(self.A * scale, b, "--weight", 0):
                self.assertLess(summary["value"], 1e-24)


class Growth(TrustTest):
    """Losses that grow without bound: no start and no end above L(0)."""

    def at_zero(self, case, *arguments):
        result = run("evaluate", CASES / case / "A.npy", CASES / case / "b.npy",
                     self.write("zero", np.zeros(np.load(CASES / case / "A.npy").shape[1])), "--json", *arguments)
        self.assert_code(0, result)
        return json.loads(result.stdout)["value"]

    def test_ends_are_not_above_zero(self):
        cases = [("uncentred", "rescaled-exp"), ("uncentred", "rescaled-cosh"), ("uncentred", "exp"),
                 ("uncentred", "cosh"), ("uncentred", "sinh"), ("offset", "cosh"), ("offset", "exp"),
                 ("offset", "sinh"), ("huge_growth", "rescaled-exp"), ("huge_growth", "cosh")]
        for case, loss in cases:
            weights = CASES / case / "w.npy"
            arguments = ["--loss", loss, *(["--weights", weights] if weights.exists() else ["--weight", "0"])]
            zero = self.at_zero(case, *arguments)
            b = CASES / case / "b.npy"
            for _, summary, _ in self.everywhere(np.load(CASES / case / "A.npy"), b, *arguments):
                self.assertLessEqual(summary["value"], zero * (1 + 1e-9))

    def test_offset_is_fitted(self):
        for _, summary, _ in self.everywhere(np.load(CASES / "offset/A.npy"), CASES / "offset/b.npy", "--loss", "cosh",
                                             "--weight", "0"):
            self.assertLess(summary["value"], 3.5e-7)


class Saddles(TrustTest):
    def test_symmetric_problem(self):
        A, b = np.load(CASES / "symmetric/A.npy"), CASES / "symmetric/b.npy"
        for options in ([], ["--method", "newton-cg"], ["--method", "newton"], ["--starts", 3],
                        ["--start", CASES / "symmetric/x0.npy"]):
            for _, summary, _ in self.everywhere(A, b, "--weight", "1e-6", *options):
                self.assertLess(summary["value"], 0.235903)

    def test_mirrored_problem(self):
        """A and -A with equal targets: x = 0 is stationary, and often a saddle."""
        generator = np.random.default_rng(3)
        half = generator.standard_normal((20, 2)) * [3, 1]
        b = np.tile(half[:, 0] ** 4, 2)
        path = self.write("mirrored", b / b.sum())
        for method in ("newton", "newton-cg"):
            for _, summary, _ in self.everywhere(np.r_[half, -half], path, "--weight", "1e-4", "--method", method,
                                                 "--certificate", "full"):
                self.assertIn(summary["termination"], SUCCESS)

    def test_plateau(self):
        """All of softmax(A x0) is in a row that b does not have: L is flat, and 0 at its minimum."""
        generator = np.random.default_rng(5)
        A = generator.standard_normal((8, 2))
        b = self.write("b", softmax(A @ generator.standard_normal(2)))
        largest = A[np.argmax((A**2).sum(1))]
        for size, form, method in itertools.product((20, 60, 300, 1e6), ("dense", "sparse"), ("newton", "newton-cg")):
            start = self.write("x0", size * largest / np.linalg.norm(largest))
            for ranks in (1, 3):
                with self.subTest(size=size, form=form, method=method, ranks=ranks):
                    out = self.directory / f"plateau-{size}-{form}-{method}-{ranks}"
                    run("solve", self.forms("A", A)[form], b, "--weight", "0", "--start", start, "--method", method,
                        "-o", out, ranks=ranks)
                    summary = read_json(out / "run.json")["summary"]
                    if summary["termination"] in SUCCESS:
                        self.assertLess(summary["value"], 1e-15)
                    else:
                        self.assertIn(summary["termination"], ("saddle", "diverged", "stagnated"))

    def test_ends_of_all_starts_are_listed(self):
        A, b = CASES / "symmetric/A.npy", CASES / "symmetric/b.npy"
        result = run("solve", A, b, "--weight", "1e-6", "--starts", 3, "--max-iterations", 1, "-o", self.directory / "r")
        self.assert_code(4, result)
        ends = read_json(self.directory / "r/run.json")["minima"]
        self.assertEqual(4, sum(end["starts"] for end in ends))
        self.assertIn("iteration_limit", [end["termination"] for end in ends])


    def test_curvature_that_is_rounding_is_no_saddle(self):
        """cosh z = b but for rounding, where the curvature is 0 but for rounding: -9e-17, +3e-16 in extended precision."""
        place = CASES / "cosh_kink"
        for ranks, method in itertools.product((1, 3), ("newton", "newton-cg")):
            for limit in ([], ["--max-iterations", 0]):
                self.solve(place / "A.npy", place / "b.npy", "--loss", "cosh", "--weight", 0, "--start", place / "x.npy",
                           "--method", method, *limit, ranks=ranks)


class Singular(TrustTest):
    def test_breakdown_is_for_what_is_not_finite(self):
        A, b, w = (CASES / "breakdown" / f"{name}.npy" for name in ("A", "b", "w"))
        values = []
        for method in ("auto", "newton", "newton-cg"):
            for _, summary, _ in self.everywhere(np.load(A), b, "--weights", w, "--method", method):
                values.append(summary["value"])
        np.testing.assert_allclose(values, values[0], rtol=1e-9)

    def test_dummy_variables(self):
        """13 of 15 directions are seen: one x, the least in columns of equal size, for all ranks and forms."""
        generator = np.random.default_rng(12)
        A, start = np.zeros((300, 15)), 0
        for levels in (6, 5, 4):
            A[np.arange(300), start + generator.integers(0, levels, 300)] = 1
            start += levels
        b = self.write("b", noisy(A, generator.standard_normal(15), generator, 0.3))
        methods = (("newton", "auto"), ("newton-cg", "auto"), ("newton-cg", "zero"), ("surrogate", "auto"))
        for weight, cases in (("0", methods), ("1e-4", methods[::3])):
            found = [x for method, start in cases
                     for x, _, _ in self.everywhere(A, b, "--weight", weight, "--method", method, "--start", start)]
            for x in found:
                np.testing.assert_allclose(x, found[0], atol=1e-9)  # what |g| <= 1e-10 |g(0)| leaves open

    def test_more_columns_than_rows(self):
        """L is 0 but for rounding, from which the least x must not be kept."""
        generator = np.random.default_rng(13)
        A, b = generator.standard_normal((20, 60)), generator.uniform(0.1, 1, 20)
        b /= b.sum()
        for loss, rows, logits in (("softmax", A - A.mean(axis=0), np.log(b) - np.log(b).mean()), ("exp", A, np.log(b))):
            scale = np.linalg.norm(rows, axis=0)
            least = np.linalg.pinv(rows / scale) @ logits / scale
            for method in ("newton", "newton-cg"):
                for x, _, _ in self.everywhere(A, self.write("b", b), "--weight", "0", "--loss", loss, "--method", method):
                    np.testing.assert_allclose(x, least, atol=1e-6)  # what |g| <= 1e-10 |g(0)| leaves open


class BadInput(TrustTest):
    def test_squares_of_weights(self):
        A, b = self.write("A", np.eye(4)), self.write("b", np.full(4, 0.25))
        for value in (1e200, 1e-200):
            w = self.write("w", np.array([1, value, 1, 1]))
            for ranks in (1, 3):
                self.assert_error(run("solve", A, b, "--weights", w, ranks=ranks), 3, "w.npy: row 1 is 1e")

    def test_squares_of_targets(self):
        """Of every loss: their squares are in L, and nothing good comes after them."""
        A, generator = self.write("A", np.eye(4)), np.random.default_rng(1)
        b = self.write("b", np.array([1, 2, 1e200, 1]))
        B = self.write("B", np.where(np.arange(4)[:, None] == 2, 1e200, generator.random((4, 2))))
        for ranks in (1, 3):
            for loss in ("softmax", "cross-entropy", "exp", "rescaled-exp"):
                self.assert_error(run("solve", A, b, "--loss", loss, ranks=ranks), 3, "b.npy: row 2 is 1e+200")
            self.assert_error(run("solve", A, "--targets", B, ranks=ranks), 3, "B.npy: row 2, column 0 is 1e+200")
            self.assert_code(0, run("solve", A, b, "--normalise-b", ranks=ranks))


if __name__ == "__main__":
    unittest.main()
