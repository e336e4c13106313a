"""The page of HTML on a run: well-formed, of one file, names escaped, and what it says of runs of every kind."""

import json
import re
import unittest
import xml.etree.ElementTree

import numpy as np

from command_line import WORDS, CommandLineTest, read_json, run, softmax

NAME = "<b>&\"'\\\x01 evil</b>.d"


class ReportTest(CommandLineTest):
    def report(self, *directories, options=(), ranks=0, code=0):
        """The page as a tree, after all that must hold of any."""
        page = self.directory / "page.html"
        result = run("report", *directories, "-o", page, "--force", *options, ranks=ranks)
        self.assert_code(code, result)
        text = page.read_text(encoding="utf-8")
        self.assertLess(len(text.encode()), 1_000_000)
        for what in ("://", "<script", "javascript:", " src=", "url(", "@import", "href=\"//"):
            self.assertNotIn(what, text.lower())
        self.assertEqual(set(), set(re.findall(r'href="[^#][^"]*"', text)))
        tree = xml.etree.ElementTree.fromstring(text)  # no entity but those of XML, every element closed
        self.assertEqual("html", tree.tag)
        for numbers in re.findall(r' (?:x|y|width|height|points|cx|cy)="([^"]*)"', text):
            self.assertNotRegex(numbers, "nan|inf")
        self.text, self.result = text, result
        return tree

    def titles(self, tree):
        return [element.text for element in tree.iter("title")][1:]

    def sections(self, tree):
        return [element.text for element in tree.iter("h2")]

    def test_the_example(self):
        out = self.directory / "words"
        result = run("solve", WORDS / "A.npy", WORDS / "b.npy", "--certificate", "full", "--starts", 2, "--weight",
                     "1e-3", "-o", out, ranks=2)
        self.assert_code(0, result)
        tree = self.report(out, options=("--labels", WORDS / "words.txt"), ranks=2)
        self.assertEqual(["Result", "Convergence", "Fit", "Minima", "Spectra", "Time", "How to repeat it"],
                         self.sections(tree))
        for title in ("Gradient over reads", "Gradient over seconds", "Objective above the least that was met",
                      "Products with the Hessian", "b, and f of the same rows", "f / b by rank",
                      "Leverage scores of the rows of A", "Singular values of A", "Eigenvalues of the Hessian at x",
                      "Where the starts ended", "Phases", "Work of the ranks, without messages"):
            self.assertIn(title, self.titles(tree))
        words = (WORDS / "words.txt").read_text().split()
        b = np.load(WORDS / "b.npy")
        self.assertIn(f"<td>{words[int(np.argmax(b))]}</td>", self.text)
        run_json = read_json(out / "run.json")
        for text in ("a local minimum of L", "the smallest eigenvalue of the Hessian is positive", "mpirun -n 2 attnreg "
                     "solve", run_json["build"]["version"], run_json["certificate"]["distance_reason"].split(":")[0]):
            self.assertIn(text, self.text)

    def test_f_and_spectra_are_those_of_the_data(self):
        """The same numbers on any number of ranks, and those of NumPy."""
        A, b, _ = self.write_problem(60, 4)
        out = self.directory / "run"
        self.assert_code(0, run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", out))
        pages = []
        for ranks in (1, 2, 3, 4):
            tree = self.report(out, ranks=ranks)
            rows = [[cell.text for cell in row.iter("td")] for row in tree.iter("tr")]
            table = [row for row in rows if len(row) == 5 and row[0].isdigit()][:12]
            pages.append([(row[1], row[3]) for row in table])
        f = softmax(A @ np.load(out / "x.npy"))
        order = np.argsort(-b, kind="stable")[:12]
        for page in pages:
            self.assertEqual([str(i) for i in order], [row for row, _ in page])
            np.testing.assert_allclose(f[order], [float(value) for _, value in page], rtol=1e-3)

    def test_names_are_escaped(self):
        A, b, _ = self.write_problem(40, 3)
        evil = self.directory / NAME.replace("/", "_")
        evil.mkdir()
        np.save(evil / "A.npy", A)
        np.save(evil / "b.npy", b)
        (self.directory / "labels").write_bytes(b"<i>one</i> & \x01\xff\xed\xa0\x80two\n" * 40)
        self.assert_code(0, run("solve", evil / "A.npy", evil / "b.npy", "-o", evil / "run"))
        tree = self.report(evil / "run", options=("--labels", self.directory / "labels"))
        self.assertNotIn("<b>", self.text)
        self.assertNotIn("<i>", self.text)
        self.assertNotIn("\x01", self.text)
        self.assertIn("&lt;b&gt;&amp;", self.text)
        self.assertIn("<i>one</i> & ", [cell.text.split("\ufffd")[0] for cell in tree.iter("td") if cell.text])
        self.assertIn("Fit", self.sections(tree))

    def test_data_that_have_changed_are_not_read(self):
        self.write_problem(40, 3)
        out = self.directory / "run"
        self.assert_code(0, run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", out))
        np.save(self.directory / "A.npy", np.ones((41, 3)))
        tree = self.report(out, ranks=2)
        self.assertNotIn("Fit", self.sections(tree))
        self.assertIn("A.npy has changed since the run", self.text)
        (self.directory / "A.npy").unlink()
        self.report(out, ranks=3)
        self.assertIn("A.npy is not there any more", self.text)

    def test_a_path_and_targets(self):
        A, _, _ = self.write_problem(60, 3)
        np.save(self.directory / "B.npy", np.stack([softmax(A @ np.full(3, s)) for s in (0.1, 0.3, 0.5)], axis=1))
        for name, words, section in (("path", (self.directory / "b.npy", "--weights-path", "1e-2:1e-4:4"),
                                      "Path of weights"),
                                     ("targets", ("--targets", self.directory / "B.npy"), "Targets")):
            out = self.directory / name
            self.assert_code(0, run("solve", self.directory / "A.npy", *words, "-o", out))
            tree = self.report(out)
            self.assertIn(section, self.sections(tree))
            self.assertIn("Total variation", " ".join(self.titles(tree)))

    def test_attention(self):
        generator = np.random.default_rng(5)
        head = generator.standard_normal((4, 2)) @ generator.standard_normal((2, 4))
        lines = []
        for k in range(3):
            tokens = generator.standard_normal((10 + k, 4))
            logits = tokens @ head @ tokens.T
            logits[np.triu_indices(10 + k, 1)] = -np.inf
            np.save(self.directory / f"T{k}.npy", tokens)
            np.save(self.directory / f"F{k}.npy", np.apply_along_axis(softmax, 1, logits))
            lines.append(f"T{k}.npy T{k}.npy F{k}.npy")
        (self.directory / "list.txt").write_text("\n".join(lines) + "\n")
        out = self.directory / "head"
        self.assert_code(0, run("attention", "--sequences", self.directory / "list.txt", "--mask", "causal", "-o", out))
        for ranks in (1, 3):
            tree = self.report(out, ranks=ranks)
            for k in range(3):
                for what in ("F", "B", "F - B"):
                    self.assertIn(f"{what}, sequence {k}", self.titles(tree))
            self.assertIn("Singular values of X", self.titles(tree))
            largest = float(re.search(r"F - B, sequence 0</text>.*?strongest colour: \+-([\d.e-]+)", self.text)[1])
            self.assertLess(largest, 1e-6)

    def test_sparsify_and_experiment(self):
        np.save(self.directory / "X.npy", np.random.default_rng(4).standard_normal((6, 300)))
        self.assertIn(run("sparsify", self.directory / "X.npy", "-o", self.directory / "Y").code, (0, 4))
        tree = self.report(self.directory / "Y")
        self.assertIn("Errors of Y beside those of Y = 0 and of as many uniform columns", self.titles(tree))
        self.assert_code(0, run("experiment", "cycle-rank", "-o", self.directory / "E"))
        tree = self.report(self.directory / "E")
        self.assertIn("Tables", self.sections(tree))

    def test_several_runs_are_compared(self):
        self.write_problem(60, 3)
        directories = []
        for method in ("newton", "newton-cg"):
            directories.append(self.directory / method)
            self.assert_code(0, run("solve", self.directory / "A.npy", self.directory / "b.npy", "--method", method,
                                    "-o", directories[-1]))
        tree = self.report(*directories, ranks=2)
        self.assertEqual(["Results", "Convergence", "Time", "What differs", "How to repeat them"], self.sections(tree))
        options = [row.find("td").text for row in tree.iter("tr") if len(row.findall("td")) == 3]
        self.assertEqual(["method", "output"], options)

    def test_at_the_end_of_a_run(self):
        self.write_problem(60, 3)
        out = self.directory / "run"
        for ranks in (0, 3):
            result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", out, "--report", "--force",
                         ranks=ranks)
            self.assert_code(0, result)
            xml.etree.ElementTree.fromstring((out / "report.html").read_text())
        self.assert_error(run("solve", self.directory / "A.npy", self.directory / "b.npy", "--report"), 2, "-o DIR")

    def test_errors(self):
        self.write_problem(60, 3)
        for ranks in (1, 3):
            self.assert_error(run("report", self.directory, ranks=ranks), 3, "holds no finished run")
        out = self.directory / "run"
        self.assert_code(0, run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", out))
        self.assert_code(0, run("report", out))
        self.assert_error(run("report", out), 6, "exists")
        document = read_json(out / "run.json")
        for damage in ({"inputs": {"A": 3, "b": {"path": 4, "bytes": "many"}}}, {"configuration": {"rtol": {"source": 1}}},
                       {"configuration": [1]}, {"page": 7, "summary": "none", "minima": {"a": 1}}, {"directory": []}):
            (out / "run.json").write_text(json.dumps(document | damage))
            self.assert_code(0, run("report", out, "--force"))
            xml.etree.ElementTree.fromstring((out / "report.html").read_text())
        for text in ("[1, 2", '{"a":' * 200_000 + "1" + "}" * 200_000):
            (out / "run.json").write_text(text)
            self.assert_error(run("report", out, "--force"), 3, "run.json")
            (out / "status.json").write_text(text.replace("{", '{"state":"done",', 1))
            self.assert_error(run("status", out, "--json"), 3, "status.json")


if __name__ == "__main__":
    unittest.main()
