"""Matrices in text: CSV, TSV and Matrix Market, as NumPy, SciPy and pandas write them, and those that are refused."""

import gzip
import unittest

import numpy as np

from source_files import SourceTest

try:
    import scipy.io
    import scipy.sparse
except ImportError:
    scipy = None

ROWS = 2500


def matrix(rows=ROWS, columns=3, seed=1):
    """Of all sizes, with numbers that take all 17 digits."""
    generator = np.random.default_rng(seed)
    return generator.standard_normal((rows, columns)) * 10.0 ** generator.integers(-300, 300, (rows, columns))


class TableTest(SourceTest):
    def write(self, name, text):
        data = text.encode() if isinstance(text, str) else text
        self.path(name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)

    def test_tables(self):
        array = matrix()
        lines = [",".join(map(repr, row)) for row in array.tolist()]
        for name, text in (("plain.csv", "\n".join(lines) + "\n"), ("end.csv", "\n".join(lines)),
                           ("returns.csv", "\r\n".join(lines) + "\r\n"), ("names.csv", "\n".join(["a,b,long name", *lines])),
                           ("quoted.csv", "\n".join(['"a","b","c d"', *lines])), ("mark.csv", "\ufeff" + "\n".join(lines)),
                           ("named-mark.csv", "\ufeffa,b,c\n" + "\n".join(lines)),
                           ("comments.csv", "# by hand\n\n" + "\n# again\n  \n".join(lines) + "\n\n"),
                           ("blanks.csv", "\n".join(lines).replace(",", " ,  "))):
            self.write(name, text)
            self.holds(name, array)
            self.write(name + ".gz", text)
            self.holds(name + ".gz", array)
        self.write("tabs.tsv", "\n".join(lines).replace(",", "\t"))
        self.holds("tabs.tsv", array)
        self.holds("T tabs.tsv", array.T)
        self.write("two.tsv.gz", b"")
        half = "\n".join(lines).replace(",", "\t").encode()
        self.path("two.tsv.gz").write_bytes(gzip.compress(half[:70001]) + gzip.compress(half[70001:]))  # one text
        self.holds("two.tsv.gz", array)
        self.write("vector.csv", "\n".join(map(repr, array[:, 0].tolist())))
        self.holds("vector.csv", array[:, 0])
        self.write("spellings.csv", "+1,-.5,1.,1E5\n1e-05,-0,+.25,0x0\n".replace("0x0", "00.50"))
        self.holds("spellings.csv", [[1, -.5, 1, 1e5], [1e-5, 0, .25, .5]])
        self.write("one.csv", "7")
        self.holds("one.csv", [[7]])
        wide = matrix(3, 200_000, seed=2)  # a line that is longer than what is read at once
        self.write("wide.csv", "\n".join(",".join(map(repr, row)) for row in wide.tolist()))
        self.holds("T wide.csv", wide.T)
        self.write("long.csv.gz", "\n".join(",".join(map(repr, row)) for row in wide[:, :20_000].tolist()))
        self.holds("T long.csv.gz", wide[:, :20_000].T)
        self.path("transposed.csv").write_text("\n".join(",".join(map(repr, row)) for row in wide[:, :4_000].T.tolist()))
        self.holds("T transposed.csv", wide[:, :4_000])
        np.savetxt(self.path("savetxt.csv"), array, delimiter=",", header="made by NumPy")
        self.holds("savetxt.csv", np.loadtxt(self.path("savetxt.csv"), delimiter=","))
        for k in range(3):
            self.write(f"shard.{k}.csv", "\n".join(lines[k * 800:(k + 1) * 800 if k < 2 else None]))
        self.holds("shard.*.csv", array)
        self.check_all()

    def test_tables_that_are_refused(self):
        for name, text, *wanted in (
                ("empty", "", "no rows"), ("comments", "# a\n\n", "no rows"), ("names", "a,b\n", "at least one row"),
                ("ragged", "1,2\n3\n", "line 2", "found 1 number, expected 2"),
                ("ragged2", "x,y\n\n1,2\n3,4,5\n", "line 4", "found 3 numbers, expected 2"),
                ("gap", "1,2\n3,\n", "line 2, column 1", "found nothing"),
                ("word", "1,2\n3,NA\n", "line 2, column 1", "found 'NA'"),
                ("mixed", "id,1\n2,3\n", "line 1, column 0", "found 'id'"),
                ("semicolons", "1;2\n3;4\n5;6\n", "found '3;4'"), ("index", ",a,b\n0,1,2\n", "line 1, column 0", "found nothing"),
                ("missing", "NA\n1\n", "line 1, column 0", "found 'NA'"), ("twice", "a,a\n1,2\n", "found 'a' again"),
                ("decimal", "1,5;2,5\n1,5;2,5\n", "found '5;2'"), ("quotes", '"1","2"\n1,"2"\n', "line 2, column 1"),
                ("hex", "1,2\n0x10,3\n", "found '0x10'"), ("huge", "1,2\n1e999,3\n", "found '1e999'", "double has"),
                ("tiny", "1,2\n1e-999,3\n", "found '1e-999'"), ("signs", "1,2\n+-1,3\n", "found '+-1'"),
                ("nul", "1,2\n3,4\0\n", "line 2"), ("binary", b"1,2\n\xff\xfe,4\n", "line 2"),
                ("utf16", "1,2\n".encode("utf-16"), "UTF-16"), ("nan", "1,2\nnan,4\n", "row 1, column 0 is nan"),
                ("inf", "1,2\n3,-inf\n", "row 1, column 1 is -inf"), ("blank", "1,2\n3 4,5\n", "found '3 4'")):
            self.write(f"{name}.csv", text)
            self.refused(f"{name}.csv", f"{name}.csv", *wanted)
        self.write("a.csv", "1,2\n")
        self.refused("a.csv:x", "without a name")
        self.refused("a.csv[9]", "no part 9")
        whole = gzip.compress("\n".join(map(str, range(20000))).encode())
        for name, data in (("cut", whole[:-9]), ("half", whole[:len(whole) // 2]), ("tail", whole + b"surplus"),
                           ("sum", whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:]), ("head", whole[:3])):
            self.path(f"{name}.csv.gz").write_bytes(data)
            self.refused(f"{name}.csv.gz", f"{name}.csv.gz", "copy the file again")
        self.check_all()


@unittest.skipUnless(scipy, "without SciPy")
class MatrixMarketTest(SourceTest):
    def write(self, name, array, **options):
        scipy.io.mmwrite(str(self.path(name)), array, **options)
        found = scipy.io.mmread(str(self.path(name)))
        self.holds(name, found.toarray() if scipy.sparse.issparse(found) else found)
        self.holds("T " + name, self.wanted[-1].T)
        self.path(f"{name}.gz").write_bytes(gzip.compress(self.path(name).read_bytes()))
        self.holds(f"{name}.gz", self.wanted[-2])

    def test_what_scipy_writes(self):
        generator = np.random.default_rng(3)
        array = matrix(1200, 4)
        self.write("array.mtx", array, precision=17)
        self.write("integers.mtx", generator.integers(-2**50, 2**50, (30, 3)))
        self.write("vector.mtx", array[:, :1], precision=17)
        square = generator.standard_normal((40, 40))
        self.write("symmetric.mtx", square + square.T, precision=17, symmetry="symmetric")
        self.write("skew.mtx", square - square.T, precision=17, symmetry="skew-symmetric")
        for name, shape, density in (("sparse", (3000, 40), 0.5), ("wide", (9, 4000), 0.1), ("thin", (5000, 1), 0.01),
                                     ("empty", (7, 3), 0)):
            self.write(f"{name}.mtx", scipy.sparse.random(*shape, density, random_state=4), precision=17)
        self.write("counts.mtx", scipy.sparse.random(800, 30, 0.3, random_state=5, dtype="i4",
                                                     data_rvs=lambda k: generator.integers(1, 99, k)))
        self.write("pattern.mtx", scipy.sparse.random(800, 30, 0.3, random_state=6), field="pattern")
        both = scipy.sparse.random(300, 300, 0.1, random_state=7)
        self.write("sparse-symmetric.mtx", both + both.T, precision=17, symmetry="symmetric")
        self.write("sparse-skew.mtx", both - both.T, precision=17, symmetry="skew-symmetric")
        entries = "".join(f"{i % 7 + 1}   {i % 3 + 1}\t{i * .25}\r\n" for i in range(90_000))  # many of one place
        self.path("sums.mtx").write_text(f"%%MatrixMarket MATRIX Coordinate real GENERAL\n%x\n\n7 3 90000\n{entries}")
        self.path("other-name").write_bytes(self.path("sums.mtx").read_bytes())
        self.holds("other-name", scipy.io.mmread(str(self.path("sums.mtx"))).toarray())
        self.check_all()

    def test_what_is_refused(self):
        start = "%%MatrixMarket matrix "
        for name, text, *wanted in (
                ("empty", "", "expected %%MatrixMarket"), ("other", "1 2 3\n", "line 1", "expected %%MatrixMarket"),
                ("vector", "%%MatrixMarket vector array real general\n1 1\n1\n", "line 1: found 'vector'"),
                ("kind", start + "list real general\n1 1\n1\n", "line 1: found 'list'", "array, coordinate"),
                ("complex", start + "array complex general\n1 1\n1 1\n", "complex", "A.real"),
                ("pattern", start + "array pattern general\n1 1\n", "found 'pattern'"),
                ("hermitian", start + "coordinate real hermitian\n1 1 1\n1 1 1\n", "found 'hermitian'"),
                ("short", start + "array real\n1 1\n1\n", "line 1: found ''"),
                ("no-size", start + "array real general\n% only\n", "ends before"),
                ("size", start + "array real general\n2 2 2\n", "line 2", "found 3 words"),
                ("minus", start + "array real general\n-2 2\n", "line 2", "found '-2'"),
                ("wraps", start + "array real general\n4294967296 4294967296\n", "2^60"),
                ("huge", start + "coordinate real general\n99999999999999999999 2 1\n", "line 2"),
                ("none", start + "array real general\n0 2\n", "at least one row"),
                ("zero", start + "coordinate real general\n0 2 0\n", "at least one row"),
                ("square", start + "array real symmetric\n2 3\n", "expected a square matrix"),
                ("few", start + "array real general\n2 2\n1\n2\n3\n", "found 3 numbers, expected 4"),
                ("many", start + "array real general\n2 1\n1\n2\n3\n", "found 3 numbers, expected 2"),
                ("half", start + "array real symmetric\n2 2\n1\n2\n", "found 2 numbers, expected 3"),
                ("word", start + "array real general\n2 1\n1\nx\n", "line 4", "found 'x'"),
                ("two", start + "array real general\n2 1\n1\n2 3\n", "line 4", "found 2 numbers"),
                ("entries", start + "coordinate real general\n2 2 3\n1 1 1\n", "found 1 entries, expected 3"),
                ("more", start + "coordinate real general\n2 2 1\n1 1 1\n2 2 2\n", "found 2 entries, expected 1"),
                ("row", start + "coordinate real general\n2 2 1\n3 1 1\n", "found row 3", "rows 1 to 2"),
                ("from0", start + "coordinate real general\n2 2 1\n0 1 1\n", "found row 0", "rows 1 to 2"),
                ("column", start + "coordinate real general\n2 2 1\n1 5 1\n", "column 5", "columns 1 to 2"),
                ("upper", start + "coordinate real symmetric\n2 2 1\n1 2 1\n", "below the diagonal"),
                ("diagonal", start + "coordinate real skew-symmetric\n2 2 1\n1 1 1\n", "below the diagonal"),
                ("value", start + "coordinate real general\n2 2 1\n1 1 1 1\n", "found '1 1 1 1'"),
                ("no-value", start + "coordinate real general\n2 2 1\n1 1\n", "row, column and a number"),
                ("with-value", start + "coordinate pattern general\n2 2 1\n1 1 4\n", "expected row and column"),
                ("fraction", start + "coordinate real general\n2 2 1\n1.5 1 1\n", "found '1.5 1 1'"),
                ("nan", start + "coordinate real general\n2 2 1\n1 2 nan\n", "row 0, column 1 is nan"),
                ("sum", start + "coordinate real general\n2 2 2\n1 1 1e308\n1 1 1e308\n", "several entries")):
            self.path(f"{name}.mtx").write_text(text)
            self.refused(f"{name}.mtx", f"{name}.mtx", *wanted)
        self.path("a.mtx").write_text(start + "coordinate real general\n2 2 1\n1 1 1\n")
        self.refused("a.mtx[0]", "a sparse matrix, expected a dense one")
        self.check_all()


if __name__ == "__main__":
    unittest.main()
