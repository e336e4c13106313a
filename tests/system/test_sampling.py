"""Sampled methods, certificate, path and leverage scores, end to end.

words-4096 has c d = 3000 < 4096 rows and a sketch of 600, so that its preconditioners are really sampled.
"""

import unittest

import numpy as np
import scipy.linalg
import scipy.sparse

from command_line import WORDS, CommandLineTest, read_json, run

A_WORDS, B_WORDS = WORDS / "A.npy", WORDS / "b.npy"
# For 1e-3 exact Newton from the cross-entropy start finds a lower one, 4.13059043e-03.
MINIMA = {"1e-2": 4.27719364e-03, "1e-3": 4.23674682e-03, "1e-4": 4.58954471e-04, "1e-5": 2.21457078e-04,
          "1e-6": 2.17190884e-04}
LOWEST = {**MINIMA, "1e-3": 4.13059043e-03, "1e-5": 2.21061357e-04, "1e-6": 2.15982124e-04}  # of several starts
MOST_READS = 110  # of the full words problem; the small one takes no more


class SolveTest(CommandLineTest):
    def solve(self, *options, ranks=2, code=0):
        out = self.directory / f"run{len(list(self.directory.iterdir()))}"
        result = run("solve", A_WORDS, B_WORDS, "-o", out, *options, ranks=ranks)
        self.assert_code(code, result)
        return result, out, read_json(out / "run.json")

    def test_newton_cg_finds_the_known_minima(self):
        for weight in MINIMA:
            # Which of two minima a sample leads to depends on the rounding of the CPU's kernels.
            for tables, options in (((MINIMA,), ("--start", "zero")), ((MINIMA, LOWEST), ("--seed", "2"))):
                with self.subTest(weight=weight, options=options):
                    _, _, report = self.solve("--weight", weight, "--method", "newton-cg", *options)
                    summary = report["summary"]
                    self.assertEqual(summary["method"], "newton-cg")
                    self.assertLess(min(abs(summary["value"] / minima[weight] - 1) for minima in tables), 1e-8)
                    self.assertLessEqual(summary["relative_gradient"], 1e-10)
                    self.assertLessEqual(summary["reads_of_a"], MOST_READS)

    def test_same_x_on_any_number_of_ranks(self):
        solutions = [np.load(self.solve("--weight", "1e-4", "--method", "newton-cg", ranks=ranks)[1] / "x.npy")
                     for ranks in (1, 2, 3, 4)]
        for x in solutions[1:]:
            self.assertLess(np.linalg.norm(x - solutions[0]), 1e-9 * np.linalg.norm(solutions[0]))

    def test_start_is_decided_at_zero(self):
        for weight, start in (("1e-2", "zero"), ("1e-6", "cross-entropy")):
            with self.subTest(weight=weight):
                _, _, report = self.solve("--weight", weight)
                self.assertEqual(report["summary"]["start"], start)
                self.assertTrue(any(note.startswith("start " + start) for note in report["notes"]))

    def test_full_certificate(self):
        result, _, report = self.solve("--weight", "1e-4", "--certificate", "full")
        certificate = report["certificate"]
        self.assertEqual(certificate["kind"], "local minimum")
        self.assertGreater(certificate["smallest_eigenvalue"], 0)
        self.assertLess(certificate["distance_bound"], 1e-6)
        self.assertIn("|x - x*|", result.stdout)
        self.assertIn("Assumptions of the papers", result.stdout)

    def test_a_minimum_that_does_not_exist_is_called_none(self):
        generator = np.random.default_rng(12)
        A, b = generator.standard_normal((200, 3)), np.zeros(200)
        b[np.argmax(A[:, 0])] = 1
        np.save(self.directory / "A.npy", A)
        np.save(self.directory / "b.npy", b)
        for level in ("gradient", "full"):
            for ranks in (1, 3):
                result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "--weight", 0, "--loss",
                             "cross-entropy", "--certificate", level, ranks=ranks)
                self.assertNotIn("x is a minimiser: ", result.stdout)
                self.assert_code(4, result)
                self.assertIn("no minimiser exists", result.stdout)

    def test_rounding_where_the_curvature_of_cosh_cancels(self):
        generator = np.random.default_rng(3)
        A, x = generator.standard_normal((6, 2)), 1e-8 * generator.standard_normal(2)
        for name, array in (("A", A), ("b", np.cosh(A @ x)), ("x", x)):
            np.save(self.directory / f"{name}.npy", array)
        out = self.directory / "kink"
        run("solve", self.directory / "A.npy", self.directory / "b.npy", "--loss", "cosh", "--weight", 0, "--start",
            self.directory / "x.npy", "--max-iterations", 0, "--certificate", "full", "-o", out)
        certificate = read_json(out / "run.json")["certificate"]
        self.assertEqual("degenerate", certificate["kind"])
        self.assertGreater(certificate["eigenvalue_rounding"], 1e-17)

    def test_epsilon(self):
        _, out, report = self.solve("--weight", "1e-4", "--epsilon", "1e-7", "--rtol", "1e-3")
        self.assertLessEqual(report["certificate"]["distance_bound"], 1e-7)
        _, exact, _ = self.solve("--weight", "1e-4", "--rtol", "1e-12")
        self.assertLessEqual(np.linalg.norm(np.load(out / "x.npy") - np.load(exact / "x.npy")), 1.1e-7)
        _, _, report = self.solve("--weight", "1e-4", "--epsilon", "1e-100", code=4)
        self.assertEqual(report["summary"]["termination"], "uncertified")

    def test_path(self):
        result, out, report = self.solve("--weights-path", "1e-2:1e-6:5", "--method", "newton-cg")
        path = np.genfromtxt(out / "path.csv", delimiter=",", names=True, dtype=None, encoding=None)
        for weight, value in zip(path["weight"], path["value"]):
            minimum = MINIMA[f"1e-{round(-np.log10(weight))}"]
            self.assertAlmostEqual(value / minimum, 1, delta=1e-8)
        x = np.load(out / "x_path.npy")
        self.assertEqual(x.shape, (5, 100))
        np.testing.assert_array_equal(x[-1], np.load(out / "x.npy"))
        self.assertIn("Path of weights", result.stdout)

    def test_random_starts_list_minima(self):
        result, _, report = self.solve("--weight", "1e-5", "--starts", "2")
        self.assertIn("Ends: L", result.stdout)
        self.assertLessEqual(report["summary"]["value"], MINIMA["1e-5"] * (1 + 1e-8))

    def test_sketched_newton_in_the_papers_regime(self):
        _, _, report = self.solve("--weight", "11", "--method", "sketched-newton", "--epsilon", "1e-9")
        self.assertEqual(report["summary"]["termination"], "converged")
        self.assertLessEqual(report["certificate"]["distance_bound"], 1e-9)

    def test_options_that_do_not_go_together(self):
        for options in (("--radius", "1"), ("--weights-path", "1:2"), ("--weights-path", "1:1e-3:0"),
                        ("--weights-path", "1e-2:1e-3:4", "--weight", "1"), ("--method", "newton-gc"),
                        ("--oversampling", "0"), ("--epsilon", "nan")):
            with self.subTest(options=options):
                self.assert_code(2, run("solve", A_WORDS, B_WORDS, *options, ranks=1))


class ScoresTest(CommandLineTest):
    def scores(self, *options, A=A_WORDS, ranks=1):
        out = self.directory / f"scores{len(list(self.directory.iterdir()))}.npy"
        self.assert_code(0, run("scores", A, "-o", out, *options, ranks=ranks))
        return np.load(out)

    def test_exact_scores_are_those_of_a_qr(self):
        A, w = np.load(A_WORDS).astype(float), np.linspace(0, 1, 4096)
        np.save(self.directory / "w.npy", w)
        for matrix, options in ((A, ()), (w[:, None] * A, ("--weights", self.directory / "w.npy"))):
            Q, _ = np.linalg.qr(matrix)
            scores = self.scores("--exact", *options, ranks=2)
            self.assertLess(np.abs(scores - (Q * Q).sum(1)).max(), 1e-12)

    def test_same_file_on_any_number_of_ranks(self):
        for options in ((), ("--exact",), ("--jl-columns", "0")):
            first = self.scores(*options)
            for ranks in (2, 3, 4):
                with self.subTest(options=options, ranks=ranks):
                    self.assertLess(np.abs(self.scores(*options, ranks=ranks) - first).max(), 1e-12)

    def test_rank_deficient(self):
        A = np.load(A_WORDS).astype(float)[:500, :10]
        np.save(self.directory / "A.npy", np.hstack([A, A[:, :3], np.zeros((500, 2))]))
        for options in (("--exact",), ("--jl-columns", "0")):
            scores = self.scores(*options, A=self.directory / "A.npy", ranks=3)
            self.assertTrue(np.isfinite(scores).all())
            self.assertAlmostEqual(scores.sum(), 10, delta=0.5 if options[0] != "--exact" else 1e-9)


class SampleTest(CommandLineTest):
    def sample(self, *options, A=A_WORDS, ranks=1, code=0):
        out = self.directory / f"sample{len(list(self.directory.iterdir()))}"
        result = run("sample", A, "-o", out, *options, ranks=ranks)
        self.assert_code(code, result)
        return out, read_json(out / "report.json"), result

    def test_the_coreset_has_the_error_that_is_said(self):
        A, D = np.load(A_WORDS).astype(float), np.linspace(0, 2, 4096)
        np.save(self.directory / "D.npy", D)
        scipy.sparse.save_npz(self.directory / "S.npz", scipy.sparse.csr_matrix(A))
        for matrix, ranks in ((A_WORDS, 1), (A_WORDS, 3), (self.directory / "S.npz", 2)):
            with self.subTest(matrix=matrix, ranks=ranks):
                out, report, result = self.sample("--weights", self.directory / "D.npy", "--rows", 1500, A=matrix, ranks=ranks)
                rows, weights = np.load(out / "rows.npy"), np.load(out / "weights.npy")
                S = np.load(out / "A.npy") if matrix == A_WORDS else scipy.sparse.load_npz(out / "A.npz").toarray()
                np.testing.assert_array_equal(A[rows], S)
                self.assertTrue((np.diff(rows) > 0).all())
                self.assertEqual(len(rows), report["kept"])
                whole = A.T @ (D[:, None] * A)
                values = scipy.linalg.eigh(S.T @ (weights[:, None] * S), whole, eigvals_only=True)
                self.assertAlmostEqual(np.abs(values - 1).max(), report["spectral_error"], places=6)
                self.assertIn("e = ", result.stdout)

    def test_same_rows_on_any_number_of_ranks(self):
        for draws in ("poisson", "replacement"):
            files = [self.sample("--rows", 700, "--draws", draws, "--probes", 0, ranks=ranks)[0] / "rows.npy"
                     for ranks in (1, 2, 3, 4)]
            self.assertEqual(1, len({file.read_bytes() for file in files}))

    def test_epsilon_is_kept_or_the_code_is_4(self):
        _, report, _ = self.sample("--epsilon", 0.9, ranks=2)
        self.assertLessEqual(report["spectral_error"], 0.9)
        # Draws for delta near 1 promise next to nothing, and d = 1 of two rows can miss.
        np.save(self.directory / "two.npy", np.array([[1.0], [1.0], [100.0], [100.0]]))
        codes = {run("sample", self.directory / "two.npy", "--draws", "replacement", "--epsilon", 0.1, "--delta", 0.999,
                     "--exact", "--seed", seed).code for seed in range(8)}
        self.assertLessEqual(codes, {0, 4})

    def test_weights_where_some_ranks_have_no_rows(self):
        generator = np.random.default_rng(3)
        A, D = generator.standard_normal((20, 3)), np.linspace(0, 1, 20)
        np.save(self.directory / "few.npy", A)
        np.save(self.directory / "D.npy", D)
        for draws in ("poisson", "replacement"):
            found = []
            for ranks in (1, 2, 3, 4):
                out, report, _ = self.sample("--weights", self.directory / "D.npy", "--rows", 9, "--draws", draws,
                                             A=self.directory / "few.npy", ranks=ranks)
                rows, weights = np.load(out / "rows.npy"), np.load(out / "weights.npy")
                S = A[rows]
                values = scipy.linalg.eigh(S.T @ (weights[:, None] * S), A.T @ (D[:, None] * A), eigvals_only=True)
                self.assertAlmostEqual(np.abs(values - 1).max(), report["spectral_error"], places=9)
                found.append((rows.tobytes(), weights.tobytes()))
            self.assertEqual(1, len(set(found)), draws)

    def test_the_error_at_any_scale(self):
        generator = np.random.default_rng(4)
        A = generator.standard_normal((300, 4))
        near = np.hstack([A, A[:, :1] + 1e-9 * generator.standard_normal((300, 1))])
        for name, matrix, D in (("huge", 1e200 * A, None), ("tiny", 1e-300 * A, None), ("dependent", near, None),
                                ("repeated", np.hstack([A, A[:, :2], 0 * A[:, :1]]), None),
                                ("weights", A, np.full(300, 1e-310)),
                                ("rows", A * np.where(np.arange(300) % 2, 1e-170, 1e170)[:, None], None)):
            for ranks in (1, 3):
                with self.subTest(name=name, ranks=ranks):
                    np.save(self.directory / "scaled.npy", matrix)
                    options = () if D is None else ("--weights", self.directory / "D.npy")
                    np.save(self.directory / "D.npy", np.ones(300) if D is None else D)
                    out, report, _ = self.sample("--rows", 80, *options, A=self.directory / "scaled.npy", ranks=ranks)
                    size = 1 if D is None else D[0]
                    M = matrix / np.abs(matrix).max()
                    U, values, _ = np.linalg.svd(M, full_matrices=False)
                    U = U[:, values > 1e-12 * values[0]]
                    rows, weights = np.load(out / "rows.npy"), np.load(out / "weights.npy") / size
                    whitened = np.linalg.eigvalsh(U[rows].T @ (weights[:, None] * U[rows]))
                    self.assertAlmostEqual(np.abs(whitened - 1).max(), report["spectral_error"], places=6)
                    self.assertGreater(report["probed_error"], 0)
                    self.assertLessEqual(report["probed_error"], report["spectral_error"] + 1e-9)

    def test_no_row_at_all(self):
        A = np.random.default_rng(5).standard_normal((400, 2))
        np.save(self.directory / "A.npy", A)
        scipy.sparse.save_npz(self.directory / "S.npz", scipy.sparse.csr_matrix(A))
        empty = next(seed for seed in range(1, 40)
                     if run("sample", self.directory / "A.npy", "--rows", 1, "--seed", seed).stdout.startswith("0 of"))
        for matrix, ranks in (("A.npy", 1), ("A.npy", 3), ("S.npz", 2)):
            out, report, _ = self.sample("--rows", 1, "--seed", empty, A=self.directory / matrix, ranks=ranks)
            S = np.load(out / "A.npy") if matrix == "A.npy" else scipy.sparse.load_npz(out / "A.npz")
            self.assertEqual(((0, 2), (0,), (0,)),
                             (S.shape, np.load(out / "rows.npy").shape, np.load(out / "weights.npy").shape))
            self.assertEqual((0, 1), (report["kept"], report["spectral_error"]))

    def test_ends_of_epsilon_and_delta(self):
        np.save(self.directory / "A.npy", np.eye(30, 3) + 1)
        for options in (("--epsilon", "1e-300", "--probes", 0), ("--delta", "1e-320")):
            self.assertEqual(30, self.sample(*options, A=self.directory / "A.npy")[1]["kept"])
        self.assert_error(run("sample", self.directory / "A.npy", "--epsilon", "1e-12", "--draws", "replacement"), 3,
                          "epsilon = 1e-12 asks for")

    def test_bad_weights(self):
        for bad, word in ((-1.0, "it must be a number >= 0"), (np.nan, "nan")):
            D = np.ones(4096)
            D[77] = bad
            np.save(self.directory / "D.npy", D)
            for ranks in (1, 3):
                result = run("sample", A_WORDS, "--weights", self.directory / "D.npy", ranks=ranks)
                self.assert_code(3, result)
                self.assertIn("77", result.stderr)
                self.assertIn(word, result.stderr)


if __name__ == "__main__":
    unittest.main()
