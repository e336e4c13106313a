"""solve, end to end, on words-4096 and on small problems."""

import os
import unittest
import unittest.mock

import numpy as np

from command_line import WORDS, CommandLineTest, read_history, read_json, read_status, run, softmax

A_WORDS, B_WORDS = WORDS / "A.npy", WORDS / "b.npy"
MINIMA = {"1e-2": 4.27719364e-03, "1e-3": 4.23674682e-03, "1e-4": 4.58954471e-04, "1e-5": 2.21457078e-04}


class WordsSolve(CommandLineTest):
    def solve(self, weight, *options, ranks=1, A=A_WORDS):
        out = self.directory / f"{weight}-{ranks}-{len(os.listdir(self.directory))}"
        result = run("solve", A, B_WORDS, "--weight", weight, "-o", out, *options, ranks=ranks)
        self.assert_code(0, result)
        return result, out, read_json(out / "run.json")["summary"]


class WordsTest(WordsSolve):
    def test_known_minima(self):
        for weight, minimum in MINIMA.items():
            with self.subTest(weight=weight):
                _, _, summary = self.solve(weight, "--start", "zero", ranks=2)
                self.assertIn(summary["termination"], ("converged", "converged_rounding"))
                self.assertLessEqual(summary["relative_gradient"], 1e-10)
                self.assertAlmostEqual(summary["value"] / minimum, 1, delta=1e-8)

    def test_same_x_on_any_number_of_ranks(self):
        solutions = []
        for ranks in (1, 2, 3, 4):
            _, out, summary = self.solve("1e-4", ranks=ranks)
            self.assertAlmostEqual(summary["value"] / MINIMA["1e-4"], 1, delta=1e-8)
            solutions.append(np.load(out / "x.npy"))
        for x in solutions[1:]:
            self.assertLess(np.linalg.norm(x - solutions[0]), 1e-9 * np.linalg.norm(solutions[0]))

    def test_cross_entropy_start_finds_the_same_minimum(self):
        result, _, summary = self.solve("1e-5", "--start", "cross-entropy", ranks=2)
        self.assertAlmostEqual(summary["value"] / MINIMA["1e-5"], 1, delta=1e-8)
        self.assertGreater(summary["start_iterations"], 0)
        self.assertRegex(result.stderr, r"(?m)^start +1 ")

    def test_formats_of_the_input_do_not_matter(self):
        A = np.load(A_WORDS)
        forms = {"double": A.astype("<f8"), "big": A.astype(">f4"), "fortran": np.asfortranarray(A),
                 "fortran-big": np.asfortranarray(A.astype(">f8"))}
        _, out, _ = self.solve("1e-4")
        expected = np.load(out / "x.npy")
        for name, array in forms.items():
            with self.subTest(form=name):
                np.save(self.directory / f"{name}.npy", array)
                _, out, _ = self.solve("1e-4", A=self.directory / f"{name}.npy", ranks=2)
                self.assertLess(np.linalg.norm(np.load(out / "x.npy") - expected), 1e-9 * np.linalg.norm(expected))

    def test_solution_passes_the_formulas(self):
        _, out, summary = self.solve("1e-4", "--write-fitted", ranks=3)
        A, b, x, f = (np.load(p).astype(float) for p in (A_WORDS, B_WORDS, out / "x.npy", out / "f.npy"))
        z = A @ x
        np.testing.assert_allclose(f, softmax(z), rtol=1e-12)
        value = 0.5 * np.sum((f - b) ** 2) + 0.5 * np.sum((1e-4 * z) ** 2)
        self.assertAlmostEqual(summary["value"] / value, 1, delta=1e-12)
        fit = summary["fit"]
        self.assertAlmostEqual(fit["total_variation"], 0.5 * np.abs(f - b).sum(), delta=1e-12)
        self.assertAlmostEqual(fit["r_squared"], 1 - np.sum((f - b) ** 2) / np.sum((b - b.mean()) ** 2), delta=1e-10)
        self.assertAlmostEqual(fit["kullback_leibler"], np.sum(b[b > 0] * np.log(b[b > 0] / f[b > 0])), delta=1e-10)
        self.assertAlmostEqual(fit["support_fitted"] * np.sum(f * f), 1, delta=1e-10)
        self.assertAlmostEqual(fit["support_target"] * np.sum(b * b), 1, delta=1e-10)


class RunDirectoryTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem()
        self.files = (self.directory / "A.npy", self.directory / "b.npy")
        self.out = self.directory / "new" / "run"

    def test_files_are_consistent(self):
        self.assert_code(0, run("solve", *self.files, "--rtol", "1e-9", "-o", self.out, ranks=2))
        document = read_json(self.out / "run.json")
        self.assertEqual("attnreg-run-1", document["schema"])
        self.assertEqual({"value": 1e-9, "source": "command line"}, document["configuration"]["rtol"])
        self.assertEqual({"value": 1e-4, "source": "default"}, document["configuration"]["weight"])
        self.assertEqual({"value": None, "source": "default"}, document["configuration"]["time-limit"])
        self.assertEqual([57, 3], document["inputs"]["A"]["shape"])
        self.assertEqual(self.files[0].stat().st_size, document["inputs"]["A"]["bytes"])
        self.assertEqual(2, document["layout"]["ranks"])
        for fact in ("version", "compiler", "mpi", "eigen"):
            self.assertTrue(document["build"][fact])

        summary, history = document["summary"], read_history(self.out / "history.csv")
        self.assertEqual("iteration,value,gradient_norm,relative_gradient,step,radius,cg_iterations,reads_of_a,"
                         "collectives,seconds,start,target,weight", (self.out / "history.csv").read_text().splitlines()[0])
        self.assertEqual(list(range(summary["iterations"] + 1)), list(history["iteration"]))
        self.assertAlmostEqual(summary["value"] / history["value"][-1], 1, delta=1e-12)
        self.assertTrue(np.all(np.diff(history["reads_of_a"]) > 0))
        self.assertTrue(np.all(np.diff(history["seconds"]) >= 0))
        self.assertGreaterEqual(summary["reads_of_a"], history["reads_of_a"][-1])

        status = read_json(self.out / "status.json")
        self.assertEqual(("attnreg-status-1", "done", 0), tuple(status[k] for k in ("schema", "state", "exit_code")))
        self.assertEqual(summary["iterations"], status["iteration"])
        self.assertRegex(status["updated"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")
        self.assertEqual({"x.npy", "run.json", "history.csv", "timing.json", "status.json"}, set(os.listdir(self.out)))

    def test_finished_run_is_kept_without_force(self):
        self.assert_code(0, run("solve", *self.files, "-o", self.out))
        before = (self.out / "x.npy").read_bytes()
        for ranks in (1, 3):
            result = run("solve", *self.files, "--weight", "0.1", "-o", self.out, ranks=ranks)
            self.assert_error(result, 6, "finished run", "--force")
        self.assertEqual(before, (self.out / "x.npy").read_bytes())
        self.assertEqual(("done", 0), read_status(self.out))
        self.assert_code(0, run("solve", *self.files, "--weight", "0.1", "-o", self.out, "--force", ranks=3))
        self.assertNotEqual(before, (self.out / "x.npy").read_bytes())

    def test_one_rank_under_mpirun(self):
        """As without it."""
        found = []
        for mpirun in (False, True):
            result = run("solve", *self.files, "-q", "-o", self.out, "--force", ranks=1, mpirun=mpirun)
            self.assert_code(0, result)
            self.assertIn("Fit of f", result.stdout)
            found.append((self.out / "x.npy").read_bytes())
            self.assert_error(run("solve", self.files[0], self.directory / "absent.npy", ranks=1, mpirun=mpirun), 3, "absent")
            self.assert_error(run("solve", *self.files, "--wieght", 1, ranks=1, mpirun=mpirun), 2, "--weight")
        self.assertEqual(*found)

    def test_failure_is_in_the_status(self):
        np.save(self.directory / "b.npy", np.full(57, np.nan))
        for ranks in (1, 3):
            self.assert_code(3, run("solve", *self.files, "-o", self.out, ranks=ranks))
            self.assertEqual(("failed", 3), read_status(self.out))

    def test_nothing_is_written_without_output(self):
        before = set(os.listdir(self.directory))
        self.assert_code(0, run("solve", *self.files, ranks=2))
        self.assertEqual(before, set(os.listdir(self.directory)))

    def test_iteration_limit_writes_the_iterate(self):
        for ranks in (1, 3):
            out = self.directory / f"limit{ranks}"
            result = run("solve", *self.files, "--start", "zero", "--max-iterations", "1", "-o", out, ranks=ranks)
            self.assert_code(4, result)
            self.assertIn("NOT converged, iteration limit", result.stdout)
            self.assertEqual((3,), np.load(out / "x.npy").shape)
            summary = read_json(out / "run.json")["summary"]
            self.assertEqual("iteration_limit", summary["termination"])
            self.assertEqual((4, 1), (summary["exit_code"], summary["iterations"]))
            self.assertEqual(("done", 4), read_status(out))

    def test_time_limit(self):
        for ranks in (1, 3):
            result = run("solve", *self.files, "--time-limit", "1e-9", ranks=ranks)
            self.assert_code(4, result)
            self.assertIn("NOT converged, time limit", result.stdout)

    def test_threads_by_the_size_of_the_problem(self):
        large = self.directory / "large"
        self.assert_code(0, run("generate", "easy", "--rows", 6000, "--cols", 100, "-o", large))
        cores = len(os.sched_getaffinity(0))
        with unittest.mock.patch.dict(os.environ):
            os.environ.pop("OMP_NUM_THREADS", None)
            for problem, options, threads in ((WORDS, (), 1), (WORDS, ("--threads", 2), 2), (large, (), min(2, cores))):
                self.assert_code(0, run("solve", problem / "A.npy", problem / "b.npy", "--weight", 1e-3, *options,
                                        "-o", self.out, "--force"))
                self.assertEqual(threads, read_json(self.out / "run.json")["layout"]["threads"], options)

    def test_goes_on_from_a_file(self):
        run("solve", *self.files, "--max-iterations", "2", "-o", self.out)
        result = run("solve", *self.files, "--start", self.out / "x.npy", "-o", self.directory / "second", ranks=2)
        self.assert_code(0, result)
        expected = self.directory / "expected"
        self.assert_code(0, run("solve", *self.files, "-o", expected))
        np.testing.assert_allclose(np.load(self.directory / "second" / "x.npy"), np.load(expected / "x.npy"), rtol=1e-8)

    def test_ridge(self):
        A, b, _ = self.write_problem(rows=300, columns=4)
        scale = np.array([1, 1e3, 1e-2, 1])
        np.save(self.directory / "S.npy", A * scale)
        for option, strength, sizes in (("--ridge", 0.01, np.ones(4)),
                                        ("--ridge-scaled", 1e-5, np.linalg.norm((A - A.mean(0)) * scale, axis=0))):
            for ranks in (1, 3):
                with self.subTest(option=option, ranks=ranks):
                    out = self.directory / f"{option}-{ranks}"
                    result = run("solve", self.directory / "S.npy", self.directory / "b.npy", "--weight", 0, option,
                                 strength, "-o", out, ranks=ranks)
                    self.assert_code(0, result)
                    self.assertIn(f"w = 0, {option[2:]} {strength}", result.stdout)
                    x = np.load(out / "x.npy")
                    f = softmax(A * scale @ x)
                    q = f * (f - b) - f * (f @ (f - b))
                    gradient = (A * scale).T @ q + strength * sizes**2 * x
                    self.assertLess(np.max(np.abs(gradient / scale)), 1e-9 * np.max(np.abs((A.T @ b))))
                    value = 0.5 * np.sum((f - b) ** 2) + 0.5 * strength * np.sum((sizes * x) ** 2)
                    self.assertAlmostEqual(read_json(out / "run.json")["summary"]["value"] / value, 1, delta=1e-12)
        for arguments, expected in ((("--ridge", -1), "--ridge"), (("--ridge", 1, "--ridge-scaled", 1), "--ridge")):
            result = run("solve", self.directory / "S.npy", self.directory / "b.npy", *arguments)
            self.assert_code(2, result)
            self.assertIn(expected, result.stderr)

    def test_weights_file_equals_the_number(self):
        np.save(self.directory / "w.npy", np.full(57, 0.01))
        one, other = self.directory / "one", self.directory / "other"
        self.assert_code(0, run("solve", *self.files, "--weights", self.directory / "w.npy", "-o", one, ranks=3))
        self.assert_code(0, run("solve", *self.files, "--weight", "0.01", "-o", other))
        np.testing.assert_allclose(np.load(one / "x.npy"), np.load(other / "x.npy"), rtol=1e-9)

    def test_cross_entropy_loss_and_largest_gradient(self):
        result = run("solve", *self.files, "--loss", "cross-entropy", "--rtol-of", "max", ranks=2)
        self.assert_code(0, result)
        self.assertIn("|g| max", result.stdout)


class StreamsTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem()
        self.files = (self.directory / "A.npy", self.directory / "b.npy")

    def test_stdout_has_the_summary_only(self):
        result = run("solve", *self.files, "-v", ranks=3)
        self.assert_code(0, result)
        lines = result.stdout.splitlines()
        self.assertTrue(lines[0].startswith("converged"), result.stdout)
        for label in ("verdict", "reads of A", "collectives", "total variation", "KL(b | f)", "R^2",
                      "effective support"):
            self.assertEqual(1, sum(line.strip().startswith(label) for line in lines), label)
        self.assertIn("1e-4 (default)", result.stdout)

    def test_one_step_line_per_iteration(self):
        result = run("solve", *self.files, "-o", self.directory / "run", ranks=3)
        history = read_history(self.directory / "run" / "history.csv")
        steps = [line for line in result.stderr.splitlines() if line[15:20].strip().isdigit()]
        self.assertEqual(list(history["iteration"]), [int(step[15:20]) for step in steps])
        self.assertEqual(1, result.stderr.count("|g|/|g_ref|"))
        self.assertEqual(1, len({len(line) for line in steps}))

    def test_quiet(self):
        result = run("solve", *self.files, "-q", ranks=2)
        self.assert_code(0, result)
        self.assertEqual("", result.stderr)
        self.assertIn("converged", result.stdout)


if __name__ == "__main__":
    unittest.main()
