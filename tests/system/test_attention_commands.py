"""The commands apply, private and experiment from end to end, against NumPy."""

import json
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run
from test_sparsify import attention


class ApplyTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(3)
        self.Q, self.K, self.V = (generator.standard_normal(shape) for shape in ((40, 4), (300, 4), (300, 2)))
        self.paths = [self.directory / name for name in ("Q.npy", "K.npy", "V.npy")]
        for path, array in zip(self.paths, (self.Q, self.K, self.V)):
            np.save(path, array)

    def apply(self, *options, ranks=0):
        out = self.directory / "O.npy"
        result = run("apply", *self.paths, *options, "-o", out, "--json", ranks=ranks)
        self.assert_code(0, result)
        return np.load(out), json.loads(result.stdout)

    def test_kernels(self):
        Z = self.Q @ self.K.T
        for ranks in (0, 3):
            O, _ = self.apply("--scale", "1/sqrt-d", ranks=ranks)
            np.testing.assert_allclose(O, attention(Z / 2) @ self.V, atol=1e-13)
            O, _ = self.apply("--kernel", "polynomial", "--degree", 4, ranks=ranks)
            np.testing.assert_allclose(O, Z**4 / (Z**4).sum(1, keepdims=True) @ self.V, atol=1e-12)

    def test_threshold(self):
        Z = self.Q @ self.K.T / 4
        A = np.exp(Z)
        for i in range(40):
            rest = Z[i] < 0.5
            A[i, rest] = A[i, rest].mean()
        expected, exact = A / A.sum(1, keepdims=True) @ self.V, attention(Z) @ self.V
        queries = []
        for ranks in (0, 3):
            O, report = self.apply("--kernel", "threshold", "--tau", 0.5, "--scale", "1/d", ranks=ranks)
            np.testing.assert_allclose(O, expected, atol=1e-12)
            self.assertEqual((Z >= 0.5).sum(), report["marked"])
            self.assertAlmostEqual(np.linalg.norm(O - exact) / np.linalg.norm(exact),
                                   report["error_against_softmax"], places=10)
            self.assertEqual(40 * 300, report["classical_queries"])
            queries.append(report["simulated_grover_queries"])
        self.assertEqual(queries[0], queries[1])
        self.assertGreater(queries[0], 0)


class PrivateTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.X = np.random.default_rng(4).standard_normal((6, 50)) / 10
        self.path = self.directory / "X.npy"
        np.save(self.path, self.X)

    def test_release(self):
        for ranks in (0, 3):
            out = self.directory / f"run{ranks}"
            self.assert_code(0, run("private", self.path, "--sensitivity", 0.001, "--ridge", 0.5, "-o", out, ranks=ranks))
            report, S = read_json(out / "report.json"), np.load(out / "covariance.npy")
            self.assertEqual(int(1e6 / (8 * np.log(1e3))), report["samples"])
            self.assertTrue(report["seed_from_system"])
            self.assertFalse(report["certified"])
            np.testing.assert_allclose(np.load(out / "attention.npy"), attention(S - 0.5 * np.eye(6)), atol=1e-14)
            # The noise is fresh: the error is not the same twice, and it is as large as expected.
            figures = report["not_private"]
            self.assertLess(figures["frobenius_error"], 2 * figures["expected_frobenius_error"])
        self.assertGreater(abs(np.load(self.directory / "run0/covariance.npy") - S).max(), 0)

    def test_a_seed_gives_the_same_noise_on_any_number_of_ranks_and_from_the_covariance(self):
        np.save(self.directory / "S.npy", self.X @ self.X.T)
        results = []
        for k, (arguments, ranks) in enumerate((((self.path,), 0), ((self.path,), 3),
                                                ((self.directory / "S.npy", "--covariance"), 2))):
            out = self.directory / f"seed{k}"
            result = run("private", *arguments, "--sensitivity", 0.01, "--samples", 100, "--seed", 5, "-o", out,
                         ranks=ranks)
            self.assert_code(0, result)
            self.assertIn("Not private at all towards anyone who knows --seed", result.stdout)
            self.assertIn("Not certified", result.stdout)
            results.append(np.load(out / "covariance.npy"))
        np.testing.assert_allclose(results[0], results[1], rtol=1e-11)
        np.testing.assert_allclose(results[0], results[2], rtol=1e-11)


class ExperimentTest(CommandLineTest):
    def test_tables_and_files(self):
        out = self.directory / "run"
        result = run("experiment", "cycle-rank", "-o", out, ranks=2)
        self.assert_code(0, result)
        self.assertIn("40 sampled of 144 equations", result.stdout)
        report = read_json(out / "report.json")
        for table, name in zip(report["tables"], ("cycle-rank", "cycle-rank-2", "cycle-rank-3")):
            csv = np.genfromtxt(out / f"{name}.csv", delimiter=",", names=True)
            self.assertEqual(tuple(table["columns"]), csv.dtype.names)
            np.testing.assert_array_equal(np.array(table["rows"])[:, -1], csv["residual"])
        self.assert_error(run("experiment", "cycle-rank", "-o", out), 6, "exists")


class WrongUse(ErrorTest):
    def test_refusals(self):
        Q, out = self.A, self.out
        self.fails(2, "--tau", arguments=("apply", Q, Q, Q, "--kernel", "threshold", "-o", out))
        self.fails(2, "--degree is for --kernel polynomial", arguments=("apply", Q, Q, Q, "--degree", 3, "-o", out))
        self.fails(3, "of odd degree takes no negative logits",
                   arguments=("apply", Q, Q, Q, "--kernel", "polynomial", "--degree", 3, "-o", out))
        self.fails(3, "condition Delta <= epsilon / (8 ln(1 / delta)) fails",
                   arguments=("private", Q, "--sensitivity", 1))
        self.fails(3, "condition Sigma positive definite fails",
                   arguments=("private", Q, "--sensitivity", 0.001))
        self.fails(2, "polynomial", arguments=("experiment", "polynomia"))


if __name__ == "__main__":
    unittest.main()
