"""apply, private and experiment, end to end, beside NumPy."""

import csv
import unittest

import numpy as np

from command_line import CommandLineTest, ErrorTest, read_json, run


def attention(g, V):
    return g / g.sum(axis=1, keepdims=True) @ V


class ApplyTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        generator = np.random.default_rng(1)
        self.Q, self.K, self.V = (generator.standard_normal(shape) for shape in ((70, 5), (90, 5), (90, 3)))
        for name in "QKV":
            np.save(self.directory / f"{name}.npy", getattr(self, name))

    def apply(self, *options, ranks=3):
        out = self.directory / "O.npy"
        result = run("apply", *(self.directory / f"{name}.npy" for name in "QKV"), *options, "-o", out, "--force",
                     ranks=ranks)
        self.assert_code(0, result)
        return np.load(out), result

    def test_softmax_and_scale(self):
        Z = self.Q @ self.K.T
        for name, scale in (("1", 1), ("1/d", 1 / 5), ("1/sqrt-d", 5 ** -0.5)):
            for ranks in (0, 3):
                found, _ = self.apply("--scale", name, ranks=ranks)
                np.testing.assert_allclose(found, attention(np.exp(scale * Z), self.V), rtol=0, atol=1e-12)

    def test_polynomial(self):
        found, _ = self.apply("--kernel", "polynomial", "--degree", "4")
        np.testing.assert_allclose(found, attention((self.Q @ self.K.T) ** 4, self.V), rtol=0, atol=1e-11)

    def test_threshold_and_its_figures(self):
        Z = self.Q @ self.K.T
        marked = Z >= 1
        found, result = self.apply("--kernel", "threshold", "--tau", "1", "--compare", "--json")
        mean = (np.exp(Z) * ~marked).sum(axis=1) / (~marked).sum(axis=1)
        expected = attention(np.where(marked, np.exp(Z), mean[:, None]), self.V)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)
        path = self.directory / "figures.json"
        path.write_text(result.stdout)
        figures = read_json(path)
        self.assertEqual(figures["marked"], marked.sum())
        self.assertEqual(figures["classical_queries"], 70 * 90)
        exact = attention(np.exp(Z), self.V)
        self.assertAlmostEqual(figures["error_against_softmax"],
                               np.linalg.norm(found - exact) / np.linalg.norm(exact), delta=1e-12)
        # About 2.3 to 2.9 sqrt(N t); where most keys are marked, a query a key.
        self.assertGreater(figures["simulated_grover_queries"], figures["marked"] - 1)
        self.assertLess(figures["simulated_grover_queries"], 4 * figures["sum_sqrt_keys_marked"])

    def test_threshold_and_its_parts(self):
        """The output is (S + r 1^T) V, S having the marked entries; the same files on any number of ranks."""
        Z = self.Q @ self.K.T
        parts = [self.directory / "S.npz", self.directory / "r.npy"]
        options = ("--kernel", "threshold", "--sparse", parts[0], "--rank-one", parts[1], "--json")
        for choice, marked in ((("--tau", "1"), Z >= 1),
                               (("--top", "9"), Z >= np.sort(Z, axis=1)[:, [-9]])):
            written = []
            for ranks in (0, 2, 3, 4):
                found, result = self.apply(*options, *choice, ranks=ranks)
                self.assertNotIn("error_against_softmax", result.stdout)
                arrays, r = np.load(parts[0]), np.load(parts[1])
                self.assertEqual((b"csr", (70, 90)), (arrays["format"].item(), tuple(arrays["shape"])))
                S = np.zeros((70, 90))
                for i, (begin, end) in enumerate(zip(arrays["indptr"], arrays["indptr"][1:])):
                    np.testing.assert_array_equal(np.flatnonzero(marked[i]), arrays["indices"][begin:end])
                    S[i, arrays["indices"][begin:end]] = arrays["data"][begin:end]
                np.testing.assert_allclose((S + r[:, None]) @ self.V, found, rtol=0, atol=1e-13)
                mean = (np.exp(Z) * ~marked).sum(axis=1) / (~marked).sum(axis=1)
                np.testing.assert_allclose(found, attention(np.where(marked, np.exp(Z), mean[:, None]), self.V),
                                           rtol=0, atol=1e-12)
                written.append(arrays["data"])
            for data in written[1:]:
                np.testing.assert_allclose(written[0], data, rtol=1e-12, atol=1e-15)


class PrivateTest(CommandLineTest):
    def test_release(self):
        X = np.random.default_rng(2).standard_normal((12, 40))
        np.save(self.directory / "X.npy", X)
        outputs = []
        for ranks in (0, 3):
            out = self.directory / f"release{ranks}"
            result = run("private", self.directory / "X.npy", "--sensitivity", "0.001", "--ridge", "3", "--seed", "4",
                         "--scale", "0.01", "-o", out, ranks=ranks)
            self.assert_code(0, result)
            self.assertIn("Not certified: sampling in floating point", result.stdout)
            self.assertIn("Not private at all towards anyone who knows --seed", result.stdout)
            outputs.append(np.load(out / "covariance.npy"))
        np.testing.assert_allclose(outputs[0], outputs[1], rtol=0, atol=1e-10)
        report = read_json(out / "report.json")
        rule = 1e6 / (8 * np.log(1e3))  # the papers': epsilon^2 / (8 Delta^2 ln(1 / delta))
        self.assertGreater(report["samples"], 10 * rule)
        self.assertLess(report["samples"], 25 * rule)
        self.assertLessEqual(report["privacy"]["delta"], 0.001)
        self.assertAlmostEqual(report["sensitivity_limit"] / 0.001, 1, places=4)
        self.assertFalse(report["certified"])
        Sigma = X @ X.T + 3 * np.eye(12)
        error = np.linalg.norm(np.linalg.solve(Sigma, outputs[0]) - np.eye(12), 2)
        self.assertLess(error, 0.3)  # 2 sqrt(12 / 18096) = 0.05, times the root of the condition number of Sigma
        Z = 0.01 * (outputs[0] - 3 * np.eye(12))
        np.testing.assert_allclose(np.load(out / "attention.npy"), attention(np.exp(Z), np.eye(12)), rtol=0, atol=1e-12)

    def test_the_ridge_has_the_units_of_the_data(self):
        X = np.random.default_rng(5).standard_normal((4, 9))
        X /= np.linalg.norm(X, axis=1, keepdims=True)
        ridges = {}
        for scale in (1.0, 1e100, 1e-100, 1e-160):
            np.save(self.directory / "X.npy", scale * X)
            for options in (("row",), ("entry", "--entry-change", repr(0.01 * scale))):
                out = self.directory / "ridge"
                result = run("private", self.directory / "X.npy", "--neighbours", *options, "--row-norm", repr(scale),
                             "--samples", 500, "-o", out, "--force")
                if scale == 1e-160:  # its square, the unit of the ridge, loses digits
                    self.assert_error(result, 3, "under- or overflows")
                    continue
                self.assert_code(0, result)
                ridge = read_json(out / "report.json")["ridge"] / scale ** 2
                self.assertAlmostEqual(ridge / ridges.setdefault(options[0], ridge), 1, delta=1e-8)

    def test_the_noise_is_new_every_time(self):
        np.save(self.directory / "S.npy", np.eye(3))
        released = []
        for name in ("one", "two"):
            out = self.directory / name
            result = run("private", self.directory / "S.npy", "--covariance", "--sensitivity", "0.01", "-o", out)
            self.assert_code(0, result)
            self.assertNotIn("--seed", result.stdout)
            self.assertIsNone(read_json(out / "report.json")["configuration"]["seed"]["value"])
            released.append(np.load(out / "covariance.npy"))
        self.assertGreater(np.abs(released[0] - released[1]).max(), 1e-6)


class ExperimentTest(CommandLineTest):
    def test_files_are_what_is_printed(self):
        out = self.directory / "results"
        result = run("experiment", "cycle-rank", "-o", out, ranks=2)
        self.assert_code(0, result)
        self.assertIn("residual", result.stdout)
        report = read_json(out / "report.json")
        self.assertEqual(3, len(report["tables"]))
        for name, table in zip(("cycle-rank", "cycle-rank-2", "cycle-rank-3"), report["tables"]):
            with open(out / f"{name}.csv", newline="", encoding="utf-8") as file:
                lines = list(csv.reader(file))
            self.assertEqual(lines[0], table["columns"])
            np.testing.assert_array_equal(np.array(lines[1:], dtype=float), np.array(table["rows"]))
        self.assertEqual(6, run("experiment", "cycle-rank", "-o", out).code)

    def test_every_small_experiment_runs(self):
        for name in ("exp-network", "checked-gradient"):
            result = run("experiment", name, "--json")
            self.assert_code(0, result)
            self.assertIn('"attnreg-experiment-1"', result.stdout)


class RefusalTest(ErrorTest):
    def test_refusals(self):
        O = self.directory / "O.npy"
        self.fails(3, "odd degree", arguments=("apply", self.A, self.A, self.A, "--kernel", "polynomial", "--degree",
                                               "3", "-o", O))
        self.fails(3, "57 keys and", arguments=("apply", self.A, self.A, self.directory / "x.npy", "-o", O))
        self.fails(2, "--tau", arguments=("apply", self.A, self.A, self.A, "--kernel", "threshold", "-o", O))
        self.fails(2, "--tau", "--top", arguments=("apply", self.A, self.A, self.A, "--kernel", "threshold", "--tau", "1",
                                                   "--top", "2", "-o", O))
        self.fails(2, "--compare is for --kernel threshold",
                   arguments=("apply", self.A, self.A, self.A, "--compare", "-o", O))
        self.fails(6, "input", arguments=("apply", self.A, self.A, self.A, "--kernel", "threshold", "--top", "2",
                                          "--rank-one", self.A, "-o", O, "--force"))
        self.fails(2, "--degree is for --kernel polynomial",
                   arguments=("apply", self.A, self.A, self.A, "--degree", "3", "-o", O))
        self.fails(3, "delta(epsilon) <= 0.001 fails", arguments=("private", self.A, "--sensitivity", "0.9"))
        self.fails(3, "positive definite fails", arguments=("private", self.A, "--sensitivity", "0.01"))
        self.fails(3, "lambda_min(Sigma) >= eta fails",
                   arguments=("private", self.A, "--sensitivity", "0.01", "--ridge", "1", "--smallest-eigenvalue", "2"))
        self.fails(3, "is square", arguments=("private", self.A, "--covariance", "--sensitivity", "0.01"))
        self.fails(2, "NAME", arguments=("experiment", "polynomials"))


if __name__ == "__main__":
    unittest.main()
