"""Numbers that overflow, underflow or are no numbers, wherever they come from: the right answer, or a refusal that names
the place; never a wrong one. Each case on one rank and on three, dense and sparse."""

import json
import time
import unittest

import numpy as np

from command_line import CommandLineTest, read_json, run, softmax
from test_sparse import csr_arrays

RANKS = (1, 3)


def transposed_arrays(X):
    """The arrays of X in the format csc."""
    return {**csr_arrays(np.ascontiguousarray(X.T)), "format": np.array(b"csc"), "shape": np.array(X.shape)}


class BadNumbersTest(CommandLineTest):
    def path(self, name):
        return self.directory / name

    def save(self, **arrays):
        for name, array in arrays.items():
            np.save(self.path(f"{name}.npy"), array)

    def save_both(self, name, array):
        """Dense and sparse; returns the two paths."""
        self.save(**{name: array})
        np.savez(self.path(f"{name}.npz"), **csr_arrays(np.asarray(array)))
        return self.path(f"{name}.npy"), self.path(f"{name}.npz")

    def refused(self, code, *texts, arguments, output=None):
        """Alike on one rank and on three, and nothing is written."""
        for ranks in RANKS:
            with self.subTest(arguments=[str(argument) for argument in arguments], ranks=ranks):
                self.assert_error(run(*arguments, ranks=ranks), code, *texts)
                if output:
                    self.assertFalse(self.path(output).exists())


class ResultTest(BadNumbersTest):
    def predicted(self, A, x, loss, ranks):
        self.assert_code(0, run("predict", A, x, "--loss", loss, "-o", self.path("f.npy"), "--force", ranks=ranks))
        return np.load(self.path("f.npy"))

    def test_rescaled_losses_where_their_exponentials_overflow_or_underflow(self):
        self.save(x=np.array([1.0]))
        for column in ([800, 1, 0.5], [-800, -801, -900], [800, 799, 0.5], [-2000, 3, 1]):
            z = np.array(column, float)
            for A in self.save_both("A", z[:, None]):
                for ranks in RANKS:
                    for loss in ("softmax", "rescaled-exp"):
                        np.testing.assert_allclose(self.predicted(A, self.path("x.npy"), loss, ranks), softmax(z),
                                                   rtol=1e-12)
                    u = np.exp(abs(z) - abs(z).max()) / 2
                    for loss, v in (("rescaled-cosh", u), ("rescaled-sinh", np.sign(z) * u)):
                        found = self.predicted(A, self.path("x.npy"), loss, ranks)
                        np.testing.assert_allclose(found, v / v.sum(), rtol=1e-12, atol=1e-300)

    def test_predict_names_the_row_that_overflows(self):
        A = np.ones((7, 2))
        A[4, 0] = 1e200
        self.save(x=np.array([1e200, 1.0]))
        for path in self.save_both("A", A):
            for loss in ("softmax", "rescaled-exp", "exp"):
                self.refused(5, "row 4", output="f.npy", arguments=(
                    "predict", path, self.path("x.npy"), "--loss", loss, "-o", self.path("f.npy")))
        self.save(x=np.array([300.0, 500.0]))  # finite logits, whose exponentials are not
        A[4, 0] = 1
        A[6] = 0.1
        for path in self.save_both("A", A):
            for loss in ("exp", "cosh", "sinh"):
                self.refused(5, "row 0", output="f.npy", arguments=(
                    "predict", path, self.path("x.npy"), "--loss", loss, "-o", self.path("f.npy")))

    def test_predict_counts_rows_of_large_values(self):
        self.save(A=np.full((4, 1), 600.0), x=np.array([1.0]))
        result = run("predict", self.path("A.npy"), self.path("x.npy"), "--loss", "exp", "-o", self.path("f.npy"))
        self.assert_code(0, result)
        self.assertIn("effective support 4.00000e+00", result.stdout)

    def test_evaluate_names_the_row(self):
        self.save(A=np.array([[1.0, 0], [0, 1], [1, 1], [1e200, 0]]), b=np.full(4, 0.25), x=np.array([1e200, 1.0]))
        arguments = ["evaluate", *(self.path(f"{name}.npy") for name in "Abx")]
        for ranks in RANKS:
            for options in ([], ["--json"]):
                result = run(*arguments, *options, "--gradient", self.path("g.npy"), ranks=ranks)
                self.assert_code(5, result)
                self.assertIn("row 3", result.messages()[0])
                self.assertNotIn("nan", result.stdout)
                self.assertFalse(self.path("g.npy").exists())
        self.save(A=np.array([[1.0], [800], [-3]]), b=np.zeros(3), x=np.array([1.0]))
        for ranks in RANKS:
            result = run("evaluate", *(self.path(f"{name}.npy") for name in "Abx"), "--loss", "exp", ranks=ranks)
            self.assert_code(5, result)
            self.assertIn("row 1", result.messages()[0])
            self.assertIn("overflows; ln L = ", result.stdout)

    def test_evaluate_does_not_write_a_hessian_with_infinities(self):
        """exp(2 z) overflows in the Hessian before it does in L, where columns are large."""
        self.save(A=np.array([[1e200], [1e200]]), b=np.ones(2), x=np.zeros(1))
        for ranks in RANKS:
            result = run("evaluate", *(self.path(f"{name}.npy") for name in "Abx"), "--loss", "exp", "--weight", 0,
                         "--hessian", self.path("H.npy"), ranks=ranks)
            self.assert_code(5, result)
            self.assertIn("Hessian", result.messages()[0])
            self.assertFalse(self.path("H.npy").exists())

    def test_evaluate_of_attention_names_the_row(self):
        self.save(Q=np.array([[1.0], [2], [1e200]]), K=np.array([[1e200], [1]]), B=np.full((3, 2), 0.5),
                  X=np.array([[1.0]]))
        for ranks in RANKS:
            result = run("evaluate", "--queries", self.path("Q.npy"), "--keys", self.path("K.npy"), "--target",
                         self.path("B.npy"), "--X", self.path("X.npy"), ranks=ranks)
            self.assert_code(5, result)
            self.assertIn("sequence 0, row 2", result.messages()[0])
            self.assertNotIn("nan", result.stdout)

    def test_apply_names_the_query(self):
        self.save(Q=np.array([[1.0], [2], [1e200]]), K=np.array([[1e200], [1]]), V=np.ones((2, 1)))
        arguments = ["apply", *(self.path(f"{name}.npy") for name in "QKV"), "-o", self.path("O.npy")]
        for options in ([], ["--kernel", "polynomial"], ["--kernel", "threshold", "--tau", 1]):
            self.refused(5, "query 2", arguments=[*arguments, *options], output="O.npy")
        self.save(Q=np.ones((5, 1)), K=np.ones((40, 1)), V=np.full((40, 1), 1e308))
        for options in ([], ["--kernel", "threshold", "--tau", 0]):
            self.refused(5, "query 0", "values", arguments=[*arguments, *options], output="O.npy")
        self.save(V=np.full((40, 1), 1e200))
        result = run(*arguments, "--kernel", "threshold", "--tau", 0, "--compare", "--json", ranks=3)
        self.assert_code(0, result)
        self.assertLess(json.loads(result.stdout)["error_against_softmax"], 1e-12)


class InputTest(BadNumbersTest):
    COMMANDS = (("inspect",), ("predict", "x"), ("solve", "b"), ("evaluate", "b", "x"), ("scores",), ("sparsify",))

    def commands(self, matrix):
        for name, *others in self.COMMANDS:
            output = ["-o", self.path("out")] if name in ("predict", "scores") else []
            yield [name, matrix, *(self.path(f"{other}.npy") for other in others), *output]

    def test_duplicates_whose_sum_overflows(self):
        self.save(x=np.array([1.0, 2]), b=np.full(3, 1 / 3))
        matrix = {"indices": np.array([1, 0, 1, 0, 0]), "indptr": np.array([0, 1, 4, 5]), "shape": np.array([3, 2]),
                  "format": b"csr"}
        for value, dtype in ((1e308, "f8"), (3e38, "f4")):
            np.savez(self.path("A.npz"), data=np.array([1, value, 1, value, 1], dtype), **matrix)
            for arguments in self.commands(self.path("A.npz")):
                self.refused(3, "A.npz", "row 1, column 0", "inf", arguments=arguments, output="out")
        csc = {"indices": np.array([1, 1, 0]), "indptr": np.array([0, 2, 3]), "shape": np.array([3, 2]),
               "format": b"csc"}
        np.savez(self.path("A.npz"), data=np.array([1e308, 1e308, 1]), **csc)
        self.refused(3, "row 1, column 0", "inf", arguments=("sparsify", self.path("A.npz")))
        # What float cannot sum, double can.
        np.savez(self.path("A.npz"), data=np.array([1, 3e38, 1, 3e38, 1], "f4"), **matrix)
        result = run("solve", self.path("A.npz"), self.path("b.npy"), "--storage", "double", "-q", ranks=3)
        self.assertIn(result.code, (0, 4, 5))
        self.assertEqual([], result.messages())

    def test_a_shape_without_numbers(self):
        self.save(x=np.array([1.0, 2]), b=np.full(3, 1 / 3))
        for shape in ("(1000000000000000000, 0)", "(0, 1000000000000000000)", "(0, 3)", "(0,)", "(5, 0)"):
            text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
            self.path("A.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n")
            for arguments in self.commands(self.path("A.npy")):
                for ranks in RANKS:
                    began = time.monotonic()
                    result = run(*arguments, ranks=ranks)
                    self.assertLess(time.monotonic() - began, 20)
                    if arguments[0] == "inspect":
                        self.assert_code(0, result)
                        self.assertIn(shape, result.stdout)
                    else:
                        self.assert_error(result, 3, "A.npy", "shape")
        for shape in ("(9000000000000000000, 9000000000000000000)", "(4611686018427387904,)", "(1, 99999999999999999999)"):
            text = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".encode()
            self.path("A.npy").write_bytes(b"\x93NUMPY\x01\x00v\x00" + text.ljust(117) + b"\n")
            for arguments in self.commands(self.path("A.npy")):
                self.refused(3, "A.npy", arguments=arguments)


    def test_a_sum_that_overflows_is_said(self):
        self.save(v=np.r_[np.full(30, 1e308), np.full(30, -1e308)])
        for ranks in RANKS:
            self.assertNotIn("nan", run("inspect", self.path("v.npy"), ranks=ranks).stdout)


class ScaleTest(BadNumbersTest):
    def scores(self, path, *options, ranks):
        self.assert_code(0, run("scores", path, *options, "-o", self.path("s.npy"), "--force", ranks=ranks))
        return np.load(self.path("s.npy"))

    def test_leverage_scores(self):
        A = np.random.default_rng(9).standard_normal((80, 5))
        Q, _ = np.linalg.qr(A)
        exact = (Q**2).sum(1)
        for scale in (1e-290, 1e-200, 1e-160, 1e160, 1e290):
            for path in self.save_both("A", A * scale):
                for ranks in RANKS:
                    np.testing.assert_allclose(self.scores(path, "--exact", ranks=ranks), exact, rtol=1e-9)
                    np.testing.assert_allclose(self.scores(path, "--jl-columns", 0, "--sketch-rows", 80, ranks=ranks), exact, rtol=1e-9)
        for size, scale in ((1e-200, 1), (1e200, 1), (1e-200, 1e-200), (1e300, 1e200), (1e-300, 1e300)):
            self.save(w=np.full(80, size))
            for path in self.save_both("A", A * scale):
                for ranks in RANKS:
                    for options in (["--exact"], ["--jl-columns", 0, "--sketch-rows", 80]):
                        found = self.scores(path, "--weights", self.path("w.npy"), *options, ranks=ranks)
                        np.testing.assert_allclose(found, exact, rtol=1e-9)

    def test_leverage_scores_of_columns_and_rows_of_unlike_size(self):
        rng = np.random.default_rng(9)
        A = rng.standard_normal((80, 5))
        Q, _ = np.linalg.qr(A)
        exact = (Q**2).sum(1)
        for path in self.save_both("A", A * 10.0 ** np.array([-280, -150, 0, 150, 280])):
            for ranks in RANKS:
                np.testing.assert_allclose(self.scores(path, "--exact", ranks=ranks), exact, rtol=1e-9)
                np.testing.assert_allclose(self.scores(path, "--jl-columns", 0, "--sketch-rows", 80, ranks=ranks), exact, rtol=1e-9)
        # A row that is alone in its direction has the score 1, however light it is.
        A = np.zeros((6, 2))
        A[:5, 0], A[5, 1] = 1, 1
        self.save(w=np.array([1, 1, 1, 1, 1, 1e-200]))
        for path in self.save_both("A", A):
            for ranks in RANKS:
                np.testing.assert_allclose(self.scores(path, "--weights", self.path("w.npy"), "--exact", ranks=ranks),
                                           [0.2] * 5 + [1], rtol=1e-12)

    def test_leverage_scores_by_scalapack(self):
        A = np.random.default_rng(9).standard_normal((200, 6))
        self.save(A=A)
        options = ("--linear-solver", "scalapack", "--jl-columns", 6)
        expected = self.scores(self.path("A.npy"), *options, ranks=2)
        for scale in (1e-290, 1e290):
            self.save(A=A * scale)
            np.testing.assert_allclose(self.scores(self.path("A.npy"), *options, ranks=2), expected, rtol=1e-9)

    def test_sparsify(self):
        X = np.random.default_rng(11).standard_normal((4, 300))
        options = {"leverage": ["--columns", 60], "norm": ["--columns", 40], "uniform": ["--columns", 40],
                   "topk": ["--columns", 40], "jl": ["--columns", 40], "bss": []}
        for method, more in options.items():
            expected = None
            for scale in (1, 2.0**-500, 2.0**500, 2.0**-700, 2.0**700):
                for k, path in enumerate(self.save_both("X", X * scale)):
                    out = self.path(f"{method}{scale}{k}")
                    result = run("sparsify", path, "--method", method, *more, "--metrics", "none", "-o", out,
                                 ranks=RANKS[k])
                    self.assert_code(0, result)
                    names = ["columns.npy", "weights.npy"] if method != "jl" else ["Y.npy"]
                    found = [np.load(out / name) / (scale if method == "jl" else 1) for name in names]
                    expected = expected or found
                    for one, other in zip(expected, found):
                        np.testing.assert_allclose(other, one, rtol=1e-9)

    def test_errors_of_sparsify(self):
        X = np.random.default_rng(11).standard_normal((4, 300))
        for scale in (1e-150, 1e-200, 1e150):
            self.save(X=X * scale)
            for ranks in RANKS:
                result = run("sparsify", self.path("X.npy"), "--method", "bss", "--json", ranks=ranks)
                self.assert_code(0, result)
                report = json.loads(result.stdout)
                self.assertEqual(4, report["rank"])
                self.assertLessEqual(report["epsilon"], 0.5)
                self.assertGreater(report["epsilon"], 0.3)
                self.assertAlmostEqual(1, report["errors"]["zero"]["spectral"])
                self.assertGreater(report["errors"]["Y"]["gram"], 0.01)
                if scale < 1:
                    self.assertIn("worthless", report["verdict"])  # P(X) is uniform
        self.save(X=X * 1e200)
        self.refused(3, "X X^T overflows", "--metrics none", arguments=("sparsify", self.path("X.npy")))


class PrivateTest(BadNumbersTest):
    def setUp(self):
        super().setUp()
        X = np.random.default_rng(3).standard_normal((10, 50))
        self.X = X / np.linalg.norm(X, axis=1, keepdims=True)
        self.save(X=self.X)

    def test_sensitivity_of_one_is_refused(self):
        for value in (1, 1.5):
            self.refused(3, "Delta < 1", arguments=("private", self.path("X.npy"), "--ridge", 1, "--sensitivity", value,
                                                    "--dp-delta", 0.99, "--samples", 1))

    def test_worse_than_nothing(self):
        for ranks in RANKS:
            result = run("private", self.path("X.npy"), "--ridge", 1000, "--sensitivity", 0.01, "--samples", 20,
                         "--seed", 1, "--json", ranks=ranks)
            self.assert_code(0, result)
            found = json.loads(result.stdout)["not_private"]
            K = self.X @ self.X.T
            P = np.array([softmax(row) for row in K])
            self.assertAlmostEqual(found["nothing"]["entry"], abs(0.1 / P - 1).max(), places=10)
            self.assertAlmostEqual(found["nothing"]["attention"], np.linalg.norm(P - 0.1) / np.linalg.norm(P), places=10)
            self.assertEqual(1, found["nothing"]["covariance"])
            self.assertLess(found["ridge_alone"]["entry"], 1e-10)
            self.assertAlmostEqual(found["ridge_alone"]["covariance"] / (1000 * np.sqrt(10) / np.linalg.norm(K)), 1)
            self.assertIs(True, found["worse_than_nothing"])
        text = run("private", self.path("X.npy"), "--ridge", 1000, "--sensitivity", 0.01, "--samples", 20, "--seed", 1)
        self.assertTrue(text.stdout.startswith("WORSE THAN PUBLISHING NOTHING"), text)
        good = run("private", self.path("X.npy"), "--sensitivity", 1e-4, "--ridge", 0.1, "--seed", 1)
        self.assert_code(0, good)
        self.assertNotIn("WORSE", good.stdout)

    def test_neighbours(self):
        """(Lambda - 1)^2 / Lambda = 4 (n - 1) C^4 / (lambda (lambda + n C^2)) of a row; an entry changes less."""
        options = ("--neighbours", "row", "--row-norm", 1, "--ridge", 1e5, "--seed", 1)
        entry = ("--neighbours", "entry", "--row-norm", 1, "--entry-change", 0.1, "--seed", 1)
        sizes = {}
        for ranks in RANKS:
            result = run("private", self.path("X.npy"), *options, "--samples", 1000, "--json", ranks=ranks)
            self.assert_code(0, result)
            report = json.loads(result.stdout)
            u = 2 * np.sinh(np.arcsinh(np.sqrt(9 / (1e5 * (1e5 + 10)))))
            self.assertAlmostEqual(report["sensitivity"] / (np.sqrt(2) * u), 1, places=4)
            self.assertLess(report["privacy"]["delta"], 1e-3)
            made = run("private", self.path("X.npy"), *entry, "--samples", 500, "--json", ranks=ranks)
            self.assert_code(0, made)
            made = json.loads(made.stdout)
            self.assertAlmostEqual(made["privacy"]["delta"], 1e-3, places=7)
            self.assertLess(made["privacy"]["error"], 1e-6)
            sizes[ranks] = made["ridge"]
        self.assertEqual(1, len(set(sizes.values())))
        self.save(K=self.X @ self.X.T, large=2 * self.X)
        again = run("private", self.path("K.npy"), "--covariance", *options, "--samples", 1000, "--json")
        self.assertAlmostEqual(json.loads(again.stdout)["sensitivity"], report["sensitivity"])
        self.refused(3, "row 0", "--row-norm", arguments=("private", self.path("large.npy"), *options))
        self.refused(3, "not private", "ridge", arguments=("private", self.path("X.npy"), *options[:4], "--ridge", 0))
        self.refused(3, "not private", arguments=("private", self.path("X.npy"), *options[:4], "--ridge", 1))
        self.refused(2, "--row-norm", arguments=("private", self.path("X.npy"), "--neighbours", "row"))
        self.refused(2, "--entry-change", arguments=("private", self.path("X.npy"), "--neighbours", "entry", "--row-norm",
                                                     1))
        self.refused(2, "--entry-change", arguments=("private", self.path("X.npy"), *options, "--entry-change", 1))
        self.refused(2, "--sensitivity", arguments=("private", self.path("X.npy"), *options, "--sensitivity", 0.1))


class VerdictTest(BadNumbersTest):
    def verdict(self, X, *options, ranks=1):
        self.save(X=X)
        result = run("sparsify", self.path("X.npy"), *options, "--json", ranks=ranks)
        self.assertIn(result.code, (0, 4))
        return json.loads(result.stdout)["verdict"]

    def test_keeping_all_columns(self):
        X = np.random.default_rng(7).standard_normal((8, 120)) / 20
        for ranks in RANKS:
            self.assertIn("nothing gained", self.verdict(X, ranks=ranks))  # the bound asks for more than there are
            self.assertIn("nothing gained", self.verdict(X, "--method", "topk", "--columns", 120, ranks=ranks))
            self.assertIn("nothing gained", self.verdict(X, "--method", "jl", "--columns", 200, ranks=ranks))
        text = run("sparsify", self.path("X.npy")).stdout
        self.assertIn("asks leverage for", text)
        self.assertIn("bss", text)

    def test_of_use_needs_a_factor_and_right_weights(self):
        X = np.random.default_rng(7).standard_normal((8, 900)) / 50
        self.assertIn("Y is of use", self.verdict(X, "--method", "bss"))
        self.assertIn("of little use", self.verdict(X, "--method", "topk", "--columns", 100))  # output error 0.8
        # Logits of some hundred: the output is nearer, the attention weights are off by orders of magnitude.
        self.assertNotIn("Y is of use", self.verdict(30 * X, "--method", "bss", "--epsilon", 0.9))


class CountsTest(BadNumbersTest):
    def setUp(self):
        super().setUp()
        rng = np.random.default_rng(5)
        self.A = rng.standard_normal((300, 3))
        p = softmax(self.A @ rng.standard_normal(3))
        self.counts = rng.multinomial(500000, p).astype(float)
        self.save_both("A", self.A)
        self.save(A=self.A, b=self.counts, b1=self.counts / self.counts.sum(), B=np.c_[self.counts, 2 * self.counts[::-1]])

    def solved(self, *arguments, ranks=1, code=0):
        out = self.path(f"run{len(list(self.directory.iterdir()))}")
        result = run("solve", *arguments, "-q", "-o", out, ranks=ranks)
        self.assert_code(code, result)
        return result.stdout, read_json(out / "run.json"), out

    def test_normalised_on_request(self):
        _, expected, one = self.solved(self.path("A.npy"), self.path("b1.npy"), "--weight", 1e-5)
        for matrix in ("A.npy", "A.npz"):
            for ranks in RANKS:
                text, found, other = self.solved(self.path(matrix), self.path("b.npy"), "--normalise-b", "--weight",
                                                 1e-5, ranks=ranks)
                self.assertAlmostEqual(found["summary"]["value"] / expected["summary"]["value"], 1, places=9)
                np.testing.assert_allclose(np.load(other / "x.npy"), np.load(one / "x.npy"), rtol=1e-6)
                self.assertIn("b was divided by its sum, 500000", text)
                self.assertAlmostEqual(1, found["summary"]["fit"]["target_sum"])
                self.assertEqual([], found["warnings"])
        _, found, _ = self.solved(self.path("A.npy"), "--targets", self.path("B.npy"), "--normalise-b", "--weight", 1e-5,
                                  ranks=3)
        self.assertAlmostEqual(found["targets"][0]["value"] / expected["summary"]["value"], 1, places=9)
        self.save(b=np.r_[-1.0, np.zeros(299)])
        self.refused(3, "b has the sum -1", arguments=("solve", self.path("A.npy"), self.path("b.npy"), "--normalise-b"))

    def test_counts_are_warned_about(self):
        for ranks in RANKS:
            text, found, _ = self.solved(self.path("A.npy"), self.path("b.npy"), "--max-iterations", 1, ranks=ranks,
                                         code=4)
            self.assertIn("--normalise-b", " ".join(found["warnings"]))
            self.assertNotIn("% of the mass", text)
            self.assertIn("b sums to 500000", text)
            self.assertGreaterEqual(found["summary"]["fit"]["kullback_leibler"], 0)

    def test_divergence_is_not_negative(self):
        for factor in (0.5, 1e-3, 1, 1 + 1e-9):
            self.save(b=softmax(self.A @ np.ones(3)) * factor)
            _, found, out = self.solved(self.path("A.npy"), self.path("b.npy"), "--weight", 0, "--write-fitted", ranks=3)
            divergence = found["summary"]["fit"]["kullback_leibler"]
            f, b = np.load(out / "f.npy"), np.load(self.path("b.npy"))
            self.assertGreaterEqual(divergence, 0)
            self.assertAlmostEqual(divergence, np.sum(b * np.log(b / f) - b + f), places=12)

    def test_seconds_are_those_of_the_clock(self):
        began = time.monotonic()
        text, found, _ = self.solved(self.path("A.npy"), self.path("b1.npy"), "--certificate", "full", ranks=3)
        total = time.monotonic() - began
        summary = found["summary"]
        parts = [summary[name] for name in ("seconds", "certificate_seconds", "loading_seconds")]
        self.assertTrue(all(part > 0 for part in parts), parts)
        self.assertLess(sum(parts), total)
        self.assertRegex(text, r"seconds .*; certificate .*; loading ")

    def test_the_time_limit_is_a_total(self):
        arguments = (self.path("A.npy"), self.path("b1.npy"), "--time-limit", 1e-9)
        for ranks in RANKS:
            text, found, out = self.solved(*arguments, "--weights-path", "1e-2:1e-6:5", ranks=ranks, code=4)
            self.assertIn("NOT solved, time limit: 4 weights from 1.00e-03 on", text)
            self.assertEqual((1, 3), np.load(out / "x_path.npy").shape)
            text, found, _ = self.solved(*arguments, "--starts", 4, ranks=ranks, code=4)
            self.assertIn("time limit: the random starts 1 to 4 were left out", found["notes"])
            text, found, _ = self.solved(*arguments, "--start", "cross-entropy", ranks=ranks, code=4)
            self.assertIn("time limit: the cross-entropy start was cut off after 0 iterations", found["notes"])


if __name__ == "__main__":
    unittest.main()
