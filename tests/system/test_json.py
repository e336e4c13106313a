"""The contract of JSON: --json on every command, one document on stdout, and a schema for each that tells a broken one."""

import copy
import json
import re
import unittest

import jsonschema
import numpy as np

import schemas
from command_line import SCHEMAS, CommandLineTest, read_json, run, softmax

HEADING = {"schema", "configuration"}


def commands():
    page = run("--help").stdout
    listed = page[page.index("Commands:\n") + 10:page.index("\nOptions:")]
    return [line.split()[0] for line in listed.splitlines() if re.match(r"  \S", line)]


def places(document, path=()):
    """Every place in a document; of lists and of tables with names of their own the first entry only."""
    yield path
    if isinstance(document, dict):
        of_users = path and path[-1] in ("configuration", "inputs")
        for name in list(document)[:1] if of_users else document:
            yield from places(document[name], (*path, name))
    elif isinstance(document, list) and document:
        yield from places(document[0], (*path, 0))


def at(document, path):
    for name in path:
        document = document[name]
    return document


class JsonTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.A, _, _ = self.write_problem(60, 3)
        generator = np.random.default_rng(4)
        B = np.stack([softmax(self.A @ generator.standard_normal(3)) for _ in range(2)], axis=1)
        T = generator.standard_normal((12, 3))
        F = np.stack([np.apply_along_axis(softmax, 1, T @ (s * np.eye(3)) @ T.T) for s in (0.5, 1)])
        for name, array in {"B": B, "T": T, "F": F[0], "heads": F, "V": T[:, :2], "O": F[0] @ T[:, :2] @ np.eye(2, 3),
                            "X": generator.standard_normal((3, 40)), "X1": np.eye(3), "Y1": np.eye(2, 3),
                            "bad": np.array([1, np.nan, 3])}.items():
            np.save(self.path(name), array)
        self.path("S").with_suffix(".mtx").write_text(
            "%%MatrixMarket matrix coordinate real general\n3 2 2\n1 1 0.5\n3 2 -1\n")
        self.used = {}

    def path(self, name):
        return self.directory / f"{name}.npy"

    def document(self, *arguments, code=0, ranks=0, schema=None):
        """The one document on stdout, which has its schema."""
        result = run(*arguments, "--json", ranks=ranks)
        self.assert_code(code, result)
        found = schemas.parse(result.stdout)
        self.assertEqual(f"attnreg-{schema or arguments[0]}-1", found["schema"])
        self.assertTrue(result.stdout.startswith("{") and result.stdout.endswith("}\n"), result.stdout)
        self.assertNotIn("schema", result.stderr)
        self.used.setdefault(found["schema"], []).append(found)
        return found

    def file(self, path):
        found = read_json(path)
        self.used.setdefault(found["schema"], []).append(found)
        return found

    def all_documents(self):
        """Every command, in every form of its result."""
        A, b, x, T = (self.path(name) for name in ("A", "b", "x", "T"))
        data = ["attention", "--queries", T, "--keys", T, "--target"]
        run_directory = self.directory / "run"
        page = self.document("solve", A, b, "--certificate", "full", "-o", run_directory, "--report", schema="run")
        self.assertEqual(page, self.file(run_directory / "run.json"))
        self.assertTrue((run_directory / "report.html").is_file())
        self.file(run_directory / "status.json")
        self.file(run_directory / "timing.json")
        self.document("solve", A, "--targets", self.path("B"), "--max-iterations", 1, "--audit", 1, code=4, ranks=3,
                      schema="run")
        self.document("solve", A, b, "--weights-path", "1e-2:1e-3:2", schema="run")
        self.document("solve", A, b, "--starts", 2, "--audit", 0.5, schema="run")
        self.document("solve", A, b, "--method", "sketched-newton", "--weight", 1, "--epsilon", 0.1, code=None,
                      schema="run")
        self.document(*data, self.path("F"), "--certificate", "full", ranks=2, schema="run")
        self.document(*data, self.path("F"), "--form", "log-odds", schema="run")
        self.document(*data, self.path("heads"), "--rank", 3, schema="run")
        layer = [*data, self.path("O"), "--values", self.path("V")]
        self.document(*layer, "--starts", 1, code=None, schema="run")
        self.document(*layer, "--method", "joint", "--max-iterations", 2, code=None, schema="run")
        self.document("solve", A, b, "--time-limit", 1e-9, "-o", self.directory / "cut", code=4, schema="run")
        self.document("resume", self.directory / "cut", "--time-limit", 60, schema="run")
        self.document("evaluate", A, b, x)
        self.document("evaluate", *data[1:], self.path("F"), "--X", self.path("X1"), ranks=2)
        self.document("predict", A, x, "-o", self.path("f"))
        self.document("scores", A, "-o", self.path("s"), ranks=2)
        self.document("sample", A, "-o", self.directory / "coreset", "--rows", 20, ranks=2)
        self.document("sample", self.directory / "A.npy", "--rows", 20, "--probes", 0)
        self.document("check", A, b, ranks=2)
        self.document("check", A, self.path("bad"), code=3)
        self.document("check", self.path("lost"), code=3)
        self.document("inspect", A)
        self.document("inspect", b, ranks=3)
        self.document("inspect", self.directory / "S.mtx")
        self.document("convert", A, self.directory / "A.npz")
        self.document("convert", A, self.directory / "A.%d.npy", "--shards", 3, ranks=2)
        self.document("sparsify", self.path("X"), "--columns", 20, "-o", self.directory / "Y", code=None)
        self.document("sparsify", self.path("X"), "--metrics", "none", "--method", "bss", code=None, ranks=2)
        heads = ("sparsify", "--tokens", "--queries", T, "--keys", T, "--values", T)
        self.document(*heads, "--keep", 3, "-o", self.directory / "kept", ranks=2, schema="sparsify-tokens")
        self.document(*heads, "--metrics", "none", schema="sparsify-tokens")
        self.document("apply", T, T, T, "-o", self.path("O1"))
        self.document("apply", T, T, T, "--kernel", "threshold", "--tau", 1, "-o", self.path("O2"), ranks=2)
        self.document("apply", T, T, T, "--kernel", "threshold", "--top", 2, "--compare", "-o", self.path("O3"))
        self.document("private", self.path("X"), "--ridge", 1e5, "--sensitivity", 0.001)
        self.document("experiment", "adversarial-training", "--widths", 100, "--steps", 2, ranks=2)
        self.document("experiment", "cycle-rank", "--size", 5, "--starts", 1, "-o", self.directory / "ring")
        self.document("apply", T, T, T, "--kernel", "polynomial", "--sketch", 30, "-o", self.path("O4"))
        self.assertEqual(self.document("generate", "coherent", "--rows", 50, "--cols", 2, "-o", self.directory / "P",
                                       schema="problem"), self.file(self.directory / "P" / "meta.json"))
        self.document("generate", "sparse", "--rows", 50, "--cols", 2, "--nonzeros-per-row", 1, "-o", self.directory / "P2", schema="problem")
        self.document("generate", "misfit", "--rows", 50, "--cols", 2, "-o", self.directory / "P3", schema="problem")
        self.document("doctor", code=None, ranks=2)
        size = ("--rows", 1000, "--cols", 10, "--ranks", 2, "--cores-per-node", 2)
        script = self.document("jobscript", "slurm", *size, "-o", self.directory / "job.sh")
        self.assertEqual(script["script"], (self.directory / "job.sh").read_text())
        self.document("jobscript", "pbs", *size)
        self.document("plan", A, b, ranks=2)
        self.document("plan", "--for", "1000000000x100", "--nodes", 2, "--memory-per-node", 64, code=7)
        self.document("status", run_directory)
        self.document("watch", run_directory)
        self.document("report", run_directory, "--force")
        self.document("solve", A, b, "--print-config", schema="config")

    def assert_code(self, code, result):
        if code is not None:
            super().assert_code(code, result)

    def test_every_command(self):
        """Each has it and prints one document; each schema is used, and refuses what is broken at any place."""
        self.all_documents()
        for command in commands():
            with self.subTest(command=command):
                self.assertIn("--json", run(command, "--help").stdout)
        self.assertEqual({path.stem for path in SCHEMAS.glob("attnreg-*.json")}, set(self.used))
        for schema, documents in self.used.items():
            jsonschema.Draft202012Validator.check_schema(read_schema(schema))
            for document in documents:
                self.check_that_breaks_are_seen(schema, document)

    def check_that_breaks_are_seen(self, schema, document):
        check = schemas.validator(str(SCHEMAS), schema)
        self.assertTrue(check.is_valid(document))
        for path in places(document):
            if not path:
                continue
            broken = copy.deepcopy(document)
            at(broken, path[:-1])[path[-1]] = {"another": []}
            self.assertFalse(check.is_valid(broken), f"{schema}: {path} may be anything")
            if isinstance(at(document, path), dict):
                broken = copy.deepcopy(document)
                at(broken, path)["another"] = 1
                self.assertFalse(check.is_valid(broken), f"{schema}: {path} may have any member")
        for name in document:
            broken = {key: value for key, value in document.items() if key != name}
            if name in HEADING or name in read_schema(schema).get("required", ()):
                self.assertFalse(check.is_valid(broken), f"{schema}: {name} may be missing")
        self.assertFalse(check.is_valid(document | {"schema": schema[:-1] + "2"}))

    def test_every_command_with_a_schema_of_its_own_describes_itself(self):
        for path in SCHEMAS.glob("attnreg-*.json"):
            with self.subTest(schema=path.stem):
                schema = read_schema(path.stem)
                self.assertEqual(path.stem, schema["title"])
                self.assertTrue(schema["description"])

    def test_what_is_not_finite_is_null(self):
        A, b = self.path("A"), self.path("b")
        np.save(self.path("huge"), np.full(3, 1e200))
        found = self.document("evaluate", A, b, self.path("huge"), "--loss", "exp", code=5)
        self.assertIsNone(found["value"])
        np.save(self.path("none"), np.full(3, np.inf))
        found = self.document("inspect", self.path("none"), code=3)
        self.assertEqual((3, None, None), (found["not_finite"], found["minimum"], found["maximum"]))

    def test_an_error_leaves_stdout_empty(self):
        for arguments, code in ((("solve", self.path("A"), self.path("bad")), 3), (("inspect", self.path("lost")), 3),
                                (("status", self.directory / "lost"), 3), (("solve", self.path("A")), 2)):
            for ranks in (0, 2):
                with self.subTest(command=arguments[0], ranks=ranks):
                    self.assert_error(run(*arguments, "--json", ranks=ranks), code)

    def test_a_run_repeats_what_its_json_says(self):
        document = self.document("solve", self.path("A"), self.path("b"), "--weight", 0.01, "--print-config",
                                 schema="config")
        config = self.directory / "config.json"
        config.write_text(json.dumps(document))
        again = self.document("solve", "--config", config, schema="run")
        self.assertEqual({"value": 0.01, "source": "configuration file"}, again["configuration"]["weight"])


def read_schema(name):
    return schemas.parse((SCHEMAS / f"{name}.json").read_text())


if __name__ == "__main__":
    unittest.main()
