"""plan: what it says of memory, method and layout against solves, its faces, and what is refused."""

import json
import unittest

import numpy as np

from command_line import ErrorTest, measures_memory, read_json, run, softmax
from test_sparse import csr_arrays

BIG = ("--for", "1000000000x100", "--nodes", 64, "--cores-per-node", 32, "--memory-per-node", 256)


def plan(*arguments, ranks=0):
    result = run("plan", *arguments, "--json", ranks=ranks)
    return json.loads(result.stdout)


class PlanTest(ErrorTest):
    def problem(self, rows, columns, sparse=False):
        """A with logits that spread, so that x = 0 is not near, and a b that it fits."""
        generator = np.random.default_rng(rows + columns)
        A = generator.standard_normal((rows, columns))
        if sparse:
            A[generator.random((rows, columns)) > 0.1] = 0
        b = softmax(A @ (3 * generator.standard_normal(columns) / np.sqrt(columns)))
        np.save(self.b, b)
        if sparse:
            np.savez(self.directory / "A.npz", **csr_arrays(A))
            return self.directory / "A.npz"
        np.save(self.A, A)
        return self.A

    def compare(self, A, ranks, tolerance, *options):
        """The plan beside a solve: method and solver are equal, memory is so to the tolerance."""
        words = [A, self.b, "--weight", 1e-7, *options]
        planned = plan(*words, "--ranks", ranks)
        self.assertEqual((ranks, 1), (planned["layout"]["ranks"], planned["layout"]["nodes"]))
        result = run("solve", *words, "--max-iterations", 3, "-o", self.out, "--force", "--quiet", ranks=ranks)
        self.assertIn(result.code, (0, 4), repr(result))
        measured = read_json(self.out / "timing.json")["peak_memory_bytes"]
        summary = read_json(self.out / "run.json")
        self.assertEqual(planned["method"], summary["summary"]["method"], words)
        self.assertEqual(planned["linear_solver"] == "scalapack",
                         any("linear solver scalapack" in note for note in summary["notes"]))
        memory = planned["memory_bytes"]
        for what, said, found in (("rank 0", memory["rank0"], measured["rank0"]),
                                  ("node", memory["node"], ranks * measured["mean"])):
            self.assertLess(abs(said / found - 1), tolerance,
                            f"{words} on {ranks}: {what} {said / 1e6:.1f} MB planned, {found / 1e6:.1f} MB measured")

    # Within a tenth where A is most of it; a fifth where d x d matrices are.
    @measures_memory
    def test_memory_of_tall_matrices(self):
        A = self.problem(200_000, 50)
        for ranks in (1, 2, 3, 4):
            self.compare(A, ranks, 0.1)
        self.compare(A, 1, 0.1, "--storage", "float", "--method", "newton")
        self.compare(A, 2, 0.12, "--storage", "half", "--method", "newton-cg")
        self.compare(A, 3, 0.12, "--reproducible", "--blocks", 4)

    @measures_memory
    def test_memory_of_wider_matrices(self):
        A = self.problem(12_000, 500)
        self.compare(A, 1, 0.2, "--method", "newton-cg")
        self.compare(A, 3, 0.2, "--method", "newton-cg")
        self.compare(A, 4, 0.2, "--method", "newton-cg", "--linear-solver", "scalapack")
        self.compare(A, 2, 0.2, "--method", "newton-cg", "--reproducible", "--blocks", 16)

    @measures_memory
    def test_memory_of_sparse_matrices(self):
        A = self.problem(100_000, 100, sparse=True)
        for ranks in (1, 4):
            self.compare(A, ranks, 0.15)

    def test_reads_nothing_but_headers(self):
        with open(self.A, "wb") as file:  # 8 TB, of which there is nothing but the header
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False,
                                                        "shape": (10**10, 100)})
            file.truncate(file.tell() + 8 * 10**12)
        with open(self.b, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": "<f8", "fortran_order": False, "shape": (10**10,)})
            file.truncate(file.tell() + 8 * 10**10)
        for ranks in (0, 2):
            result = run("plan", self.A, self.b, "--nodes", 2 if ranks else 1, "--memory-per-node", 64, ranks=ranks)
            self.assert_code(7, result)
            self.assertIn("does NOT fit", result.stdout)
            self.assertRegex(result.stdout, r"it fits on \d+ nodes of this kind")

    def test_without_files(self):
        planned = plan(*BIG)
        self.assertEqual("attnreg-plan-1", planned["schema"])
        self.assertEqual((64, 2048, 32, 1), tuple(planned["layout"][name]
                                                  for name in ("nodes", "ranks", "ranks_per_node", "threads")))
        self.assertTrue(planned["fits"])
        self.assertEqual(8e11, planned["problem"]["bytes"])
        node = planned["memory_bytes"]["node"]
        self.assertTrue(8e11 / 64 < node < 1.3 * 8e11 / 64, node)
        self.assertEqual(sorted(planned["reads"][name] for name in ("least", "typical", "most")),
                         [planned["reads"][name] for name in ("least", "typical", "most")])
        parts = planned["seconds"]
        self.assertAlmostEqual(parts["total"], sum(value for name, value in parts.items() if name != "total"))
        text = run("plan", *BIG).stdout
        for words in ("It fits", "2048 ranks on 64 nodes", "surrogate", "rank0", "assumed", "--memory-per-node"):
            self.assertIn(words, text)

    def test_options_of_solve_count(self):
        memory = lambda *options: plan(*BIG, *options)["memory_bytes"]["node"]
        self.assertLess(memory("--storage", "half"), memory("--storage", "float"))
        self.assertLess(memory("--storage", "float"), memory())
        self.assertLess(memory("--entries", 10**10), memory())
        self.assertLess(memory(), memory("--weights", "w.npy"))
        self.assertEqual("newton", plan(*BIG, "--method", "newton")["method"])
        self.assertEqual("newton-cg", plan(*BIG, "--loss", "exp")["method"])
        self.assertEqual(32, plan(*BIG, "--reproducible", "--blocks", 32)["layout"]["blocks"])
        self.assertEqual("scalapack", plan("--for", "1000000x4000", "--ranks", 4)["linear_solver"])

    def test_advice(self):
        large = ("--for", "10000000x1500", "--nodes", 16, "--cores-per-node", 64, "--linear-solver", "rank0")
        self.assertEqual(1, plan(*large, "--memory-per-node", 512)["advised"]["threads"])
        advised = plan(*large, "--memory-per-node", 24)["advised"]
        self.assertGreater(advised["threads"], 1)
        self.assertEqual(64, advised["threads"] * advised["ranks_per_node"])
        crowded = plan(*BIG, "--ranks", 4096)
        self.assertTrue(any("share the 32 cores" in advice for advice in crowded["advice"]), crowded["advice"])
        small = plan("--for", "4096x100")
        self.assertEqual(1, small["layout"]["ranks"])
        never = plan("--for", "100000x20000", "--method", "sketched-newton", "--memory-per-node", 1,
                     "--cores-per-node", 4)
        self.assertEqual((False, None), (never["fits"], never["fewest_nodes"]))

    def test_figures_of_doctor(self):
        path = self.directory / "doctor.json"
        path.write_text(run("doctor", "--json", ranks=2).stdout)
        found = read_json(path)
        for ranks in (0, 3):
            planned = plan(*BIG[:4], "--ranks", 64, "--doctor", path, ranks=ranks)["machine"]
            self.assertEqual(found["self_test"]["bytes_per_second"], planned["bandwidth"])
            self.assertEqual(found["self_test"]["reduction_seconds"], planned["round_seconds"])
            self.assertEqual(found["ranks"][0]["node_cores"], planned["cores_per_node"])
            self.assertEqual({"doctor"}, set(planned["sources"].values()))
        other = plan(*BIG[:4], "--doctor", path, "--bandwidth", 50)["machine"]
        self.assertEqual((50e9, "--bandwidth"), (other["bandwidth"], other["sources"]["bandwidth"]))

    def test_what_is_refused(self):
        for size in ("10", "0x3", "axb", "10x3x2", "1.5x3", "-1x3", "1e30x3", "nanx3"):
            self.fails(2, "--for", "ROWSxCOLUMNS", arguments=("plan", f"--for={size}"))
        self.fails(2, "missing", arguments=("plan",))
        self.fails(2, "surplus argument", arguments=("plan", self.A, self.b, "--for", "10x3"))
        self.fails(2, "--for is in place of the files", arguments=("plan", "--for", "10x3", "--targets", self.b))
        self.fails(2, "--entries", arguments=("plan", self.A, self.b, "--entries", 5))
        self.fails(2, "--entries is 31", arguments=("plan", "--for", "10x3", "--entries", 31))
        self.fails(2, "8 nodes for 4 ranks", arguments=("plan", *BIG[:2], "--nodes", 8, "--ranks", 4))
        self.fails(2, "do not go on 2 nodes", arguments=("plan", *BIG[:2], "--nodes", 2, "--ranks", 40,
                                                         "--ranks-per-node", 8))
        self.fails(2, "--grid", arguments=("plan", "--for", "1000x10", "--ranks", 4, "--grid", "3x2"))
        self.fails(2, "scalapack", arguments=("plan", "--for", "1000x10", "--reproducible", "--linear-solver",
                                              "scalapack"))
        self.fails(3, "A.npy", arguments=("plan", self.directory / "none/A.npy", self.b))
        rows = len(np.load(self.A))
        for shape in ((3,), (), (rows, 2), (rows, 1, 2)):
            np.save(self.b, np.full(shape, 0.2))
            self.fails(3, "b.npy", str(shape), arguments=("plan", self.A, self.b))
        for shape in ((), (0, 3), (10, 0), (10, 3, 2)):
            np.save(self.directory / "C.npy", np.zeros(shape))
            np.save(self.b, np.full(10, 0.2))
            self.fails(3, "C.npy", str(shape), arguments=("plan", self.directory / "C.npy", self.b))
        for text in ("{", "[]", '{"schema": "attnreg-doctor-1"}'):
            (self.directory / "doctor.json").write_text(text)
            self.fails(3, "doctor.json", "attnreg doctor --json",
                       arguments=("plan", "--for", "10x3", "--doctor", self.directory / "doctor.json"))


if __name__ == "__main__":
    unittest.main()
