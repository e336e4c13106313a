"""The standard input as a matrix, names of rows and columns in the summary, and the same problem from many formats."""

import gzip
import io
import json
import unittest

import numpy as np

from command_line import WORDS, CommandLineTest, read_json, run
from source_files import bfloat16, write_safetensors
from test_library_sources import h5py, reads_hdf5

try:
    import scipy.io
    import scipy.sparse
except ImportError:
    scipy = None


def npy(array):
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()


class PipeTest(CommandLineTest):
    def test_a_pipe_is_read_as_a_file(self):
        A, b, x = self.write_problem(rows=2500)
        place = lambda name: str(self.directory / name)
        solve = ("solve", "-", place("b.npy"), "-q", "-o")
        self.assert_code(0, run("solve", place("A.npy"), place("b.npy"), "-q", "-o", place("file"), ranks=1))
        for ranks, array in ((0, A), (1, np.asfortranarray(A)), (2, A), (3, np.asfortranarray(A)), (4, A.astype(">f8"))):
            with self.subTest(ranks=ranks):
                self.assert_code(0, run(*solve, place(f"piped{ranks}"), ranks=ranks, piped=npy(array)))
                np.testing.assert_allclose(np.load(place(f"piped{ranks}/x.npy")), np.load(place("file/x.npy")), rtol=1e-9)
        self.assert_code(0, run("solve", place("A.npy"), "-", "-q", "-o", place("b"), ranks=2, piped=npy(b)))
        np.testing.assert_allclose(np.load(place("b/x.npy")), np.load(place("file/x.npy")), rtol=1e-9)
        self.assert_code(0, run("evaluate", place("A.npy"), place("b.npy"), "-", ranks=3, piped=npy(x)))
        wide = np.random.default_rng(2).standard_normal((3, 6000)).astype("f4")  # a row is more than one block
        for ranks, array in ((1, wide), (3, np.asfortranarray(wide)), (3, wide.T)):
            self.assert_code(0, run("convert", "-", place(f"{ranks}.npy"), "--force", ranks=ranks, piped=npy(array))
                             if array.flags.c_contiguous else
                             run("sparsify", "-", "--columns", 9, "--metrics", "none", ranks=ranks, piped=npy(array)))
            if array.flags.c_contiguous:
                np.testing.assert_array_equal(array, np.load(place(f"{ranks}.npy")))
        result = run("solve", "-", place("b.npy"), "-q", "--reproducible", "-o", place("same"), ranks=2, piped=npy(A))
        self.assert_code(0, result)
        text = run("inspect", "-", ranks=2, piped=npy(b))
        self.assertIn("(2500,)", text.stdout)

    def test_what_is_refused(self):
        A, b, _ = self.write_problem(rows=300)
        place = lambda name: str(self.directory / name)
        whole = npy(A)
        bad = A.copy()
        bad[7, 2] = np.nan
        cases = ((("truncated", "byte 7191 of 7200", "(300, 3)"), whole[:-9]),
                 (("goes on behind", "7200 bytes"), whole + b"x"), (("empty",), b""),
                 (("not a .npy file",), b"1,2\n3,4\n"), (("truncated header",), whole[:50]),
                 (("c16", "a.real"), npy(A + 1j)), (("row 7, column 2 is nan", "1 value"), npy(bad)))
        for k, (texts, piped) in enumerate(cases):
            for ranks in (1, 3) if k == 0 else (3,):
                with self.subTest(texts=texts, ranks=ranks):
                    self.assert_error(run("solve", "-", place("b.npy"), "-q", ranks=ranks, piped=piped), 3, "-: ", *texts)
        self.assert_error(run("solve", "-q", "--", "-[3]", place("b.npy"), piped=npy(np.stack([A, A, A]))), 3, "-[3]: ",
                          "no part 3 of 3")
        self.assert_error(run("solve", "-", "-", ranks=2, piped=whole), 2, "2 times")
        self.assert_error(run("convert", "-", place("out.npy"), ranks=2, piped=npy(np.ones((150_000, 3), "u1", "F"))), 3,
                          "read once", "write it to one")
        self.assert_code(4, run("solve", "-", place("b.npy"), "-q", "-o", place("run"), "--time-limit", 1e-9, ranks=2, piped=whole))
        self.assert_error(run("resume", place("run"), ranks=2), 8, "from a pipe")
        result = run("report", place("run"))
        self.assert_code(0, result)
        self.assertIn("-", result.stdout)


class NamesTest(CommandLineTest):
    def test_rows_and_columns(self):
        generator = np.random.default_rng(4)
        A, x = generator.standard_normal((2500, 3)), np.array([0.5, -2.0, 0.1])
        z = np.exp(A @ x)
        b = z / z.sum()
        place = lambda name: str(self.directory / name)
        np.savetxt(place("A.csv"), A, delimiter=",", header='age,"height",weight', comments="")
        np.save(place("b.npy"), b)
        names = [f"row-{i}" for i in range(2500)]
        (self.directory / "names.txt").write_text("\n".join(names) + "\n")
        (self.directory / "names.csv").write_text("name,kind\n" + "".join(f'"{name}",1\n' for name in names))
        expected = np.argsort(-b, kind="stable")[:5]
        for ranks, labels in ((0, "names.txt"), (2, "names.csv"), (3, "names.txt"), (4, "names.csv")):
            with self.subTest(ranks=ranks):
                result = run("solve", place("A.csv"), place("b.npy"), "-q", "--weight", "1e-9", "--labels", place(labels),
                             "-o", place(f"run{ranks}"), ranks=ranks)
                self.assert_code(0, result)
                line = next(line for line in result.stdout.split("Largest rows")[1].splitlines() if line.strip().startswith("b "))
                self.assertEqual([f"row-{i}" for i in expected], [part.split()[0] for part in line.strip()[1:].split(", ")])
                self.assertRegex(result.stdout.split("Largest columns")[1], r"x +height -2, age 0\.5, weight 0\.1\b")
                largest = read_json(self.directory / f"run{ranks}" / "run.json")["largest"]
                self.assertEqual(expected.tolist(), [one["place"] for one in largest["b"]])
                self.assertEqual(["height", "age", "weight"], [one["name"] for one in largest["x"]])
                F = np.exp(A @ np.load(self.directory / f"run{ranks}" / "x.npy"))
                F /= F.sum()
                for what, values in (("f", F), ("f - b", F - b)):
                    found = np.array([one["value"] for one in largest[what]])
                    np.testing.assert_allclose(np.sort(np.abs(found))[::-1], np.sort(np.abs(values))[::-1][:5], rtol=1e-3,
                                               atol=1e-15)

    def test_refusals(self):
        self.write_problem(rows=30)
        place = lambda name: str(self.directory / name)
        (self.directory / "few.txt").write_text("a\nb\n")
        for ranks in (1, 3):
            self.assert_error(run("solve", place("A.npy"), place("b.npy"), "--labels", place("few.txt"), "-q", ranks=ranks), 3,
                              "few.txt", "found 2 names, expected 30")
            self.assert_error(run("solve", place("A.npy"), place("b.npy"), "--labels", place("none.txt"), "-q", ranks=ranks), 3,
                              "none.txt", "No such file")
        self.assert_error(run("solve", place("A.npy"), "--targets", place("b.npy"), "--labels", place("few.txt")), 2, "--labels")


class SameProblemTest(CommandLineTest):
    def test_words_from_every_format(self):
        """The same L, to the precision of the type in which A is held."""
        A, b = np.load(WORDS / "A.npy"), WORDS / "b.npy"
        place = lambda name: str(self.directory / name)
        half = A.astype("f2")
        bits, _ = bfloat16(A)
        np.save(place("half.npy"), half)
        for k in range(5):
            np.save(place(f"A.{k:02d}.npy"), A[k * 900:(k + 1) * 900])
        write_safetensors(self.directory / "m.safetensors", {"A": A, "bf16": ("BF16", bits)})
        np.savez_compressed(place("A.npz"), A=A)
        text = "\n".join(",".join(map(str, row)) for row in A.tolist())
        (self.directory / "A.csv").write_text(text)
        with gzip.open(place("A.tsv.gz"), "wt", compresslevel=1) as out:
            out.write(text.replace(",", "\t"))
        with open(place("A.svm"), "w") as out:
            for row in A.tolist():
                out.write("0 " + " ".join(f"{j}:{value!r}" for j, value in enumerate(row)) + "\n")
        sources = {str(WORDS / "A.npy"): 1e-9, place("A.%02d.npy"): 1e-9, place("m.safetensors:A"): 1e-9,
                   place("A.npz"): 1e-9, place("A.csv"): 1e-7, place("A.tsv.gz"): 1e-7, place("A.svm"): 1e-7,
                   place("half.npy"): 2e-3, place("m.safetensors:bf16"): 2e-2}
        if scipy:
            scipy.io.mmwrite(place("array.mtx"), A, precision=9)
            scipy.io.mmwrite(place("sparse.mtx"), scipy.sparse.csr_matrix(A), precision=9)
            sources |= {place("array.mtx"): 1e-7, place("sparse.mtx"): 1e-7}
        if h5py and reads_hdf5():
            with h5py.File(place("A.h5"), "w") as file:
                file.create_dataset("g/A", data=A, chunks=(512, 100), compression="gzip", compression_opts=1)
            sources[place("A.h5:/g/A")] = 1e-9
        values = {}
        for ranks, source in zip((1, 2, 3) * 9, sources):
            result = run("solve", source, b, "--weight", "1e-3", "--start", "zero", "--storage", "file", "-q", "-o",
                         place("run"), "--force", ranks=ranks)
            self.assert_code(0, result)
            values[source] = read_json(self.directory / "run" / "run.json")["summary"]["value"]
        wanted = values[str(WORDS / "A.npy")]
        for source, tolerance in sources.items():
            with self.subTest(source):
                self.assertAlmostEqual(1, values[source] / wanted, delta=tolerance)


class CheckTest(CommandLineTest):
    def check(self, code, *arguments, ranks=0):
        result = run("check", *arguments, ranks=ranks)
        self.assert_code(code, result)
        return result.stdout

    def test_finds_all(self):
        generator = np.random.default_rng(5)
        A = generator.standard_normal((2500, 8)).astype("f4")
        A[:, 2] = 0
        A[:, 5] = A[:, 1]
        A[:, 6] = 4
        A[:, 7] *= 1e9
        A[9] = 0
        A[9, 6] = 4
        b = generator.random(2500)
        b[[30, 40]] = -1
        w = np.full(2500, 1e-3)
        w[77] = 1e-200
        place = lambda name: str(self.directory / name)
        for name, array in (("A", A), ("b", b), ("w", w), ("short", b[:-1])):
            np.save(place(f"{name}.npy"), array)
        pages = []
        for ranks in (0, 2, 3):
            page = self.check(3, place("A.npy"), place("b.npy"), place("w.npy"), "--json", ranks=ranks)
            pages.append(page)
            found = json.loads(page)
            first, second, third = found["files"]
            self.assertEqual(("attnreg-check-1", 1), (found["schema"], found["problems"]))
            self.assertEqual(([2], [6], [[1, 5]]), tuple(first[k] for k in ("zero_columns", "constant_columns", "equal_columns")))
            self.assertEqual(np.abs(A).max(0).tolist(), first["column_scales"])
            self.assertEqual([], first["problems"])
            self.assertEqual({"count": 2, "first": [30, 0]}, second["negative"])
            self.assertIn("1 value is such", third["problems"][0])
            self.assertIn("row 77", third["problems"][0])
            self.assertAlmostEqual(b.sum(), second["sum"])
        text = self.check(3, place("A.npy"), place("b.npy"), place("w.npy"))
        for part in ("column 2: all values are 0", "column 6: all values are the same", "5 is 1", "from 3", "--normalise-b",
                     "1 problem: solve would refuse these files"):
            self.assertIn(part, text)
        A[3, 4], A[1000, 1], A[2000, 0], A[2400, 3] = np.inf, np.nan, -np.inf, np.nan
        np.save(place("A.npy"), A)
        for ranks in (0, 3):
            text = self.check(3, place("A.npy"), place("short.npy"), ranks=ranks)
            for part in ("2 values are nan, the first at row 1000, column 1", "1 value is inf, the first at row 3, column 4",
                         "1 value is -inf, the first at row 2000, column 0", "found 2499 rows, expected 2500", "4 problems"):
                self.assertIn(part, text)
        self.assertIn("4 problems", self.check(3, place("none.npy"), place("absent.npy"), place("A.npy")) + "4 problems")

    def test_good_files(self):
        A, b, _ = self.write_problem(rows=400)
        place = lambda name: str(self.directory / name)
        np.save(place("B.npy"), np.stack([b, b], 1))
        for ranks in (0, 2, 3):
            for others in ((), ("b.npy",), ("B.npy",), ("b.npy", "b.npy")):
                self.assertIn("no problem", self.check(0, place("A.npy"), *map(place, others), ranks=ranks))
        if scipy:
            scipy.sparse.save_npz(place("S.npz"), scipy.sparse.csc_matrix(np.where(A > 1, A, 0)))
            text = self.check(0, place("S.npz"), place("b.npy"), ranks=3)
            self.assertIn("csc with", text)
            self.assertRegex(text, r"[0-9]+ rows of zeros")
        (self.directory / "t.csv").write_text("a,b c\n" + "1,0\n2,0\n" * 200)
        self.assertIn("column 1 (b c): all values are 0", self.check(0, place("t.csv"), place("b.npy"), ranks=2))

    def test_attention(self):
        generator = np.random.default_rng(6)
        Q, K = generator.standard_normal((30, 4)), generator.standard_normal((20, 3))
        B = generator.random((30, 20))
        B /= B.sum(1, keepdims=True)
        B[4] *= 2
        place = lambda name: str(self.directory / name)
        for name, array in (("Q", Q), ("K", K), ("B", B), ("C", B[:, :-1])):
            np.save(place(f"{name}.npy"), array)
        names = ("Q.npy", "K.npy", "B.npy")
        self.assertIn("1 row does not sum to 1", self.check(0, "--attention", *map(place, names), ranks=2))
        self.assertIn("found 19 columns, expected 20", self.check(3, "--attention", *map(place, (*names[:2], "C.npy")), ranks=3))
        self.assert_error(run("check", "--attention", place("Q.npy")), 2, "found 1 file")
        self.assert_error(run("check", *[place("Q.npy")] * 4), 2, "surplus")


if __name__ == "__main__":
    unittest.main()
