"""One table of options and its faces: help, pages of man, completion of bash and zsh, configuration, variables, docs."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import unittest

import numpy as np

from command_line import PROGRAM, SOURCE_DIR, CommandLineTest, ErrorTest, read_json, run
from test_terminal import COMMANDS

GENERAL = {"config", "print-config", "help", "help-all"}


def options_in_help(text):
    return set(re.findall(r"^  (?:-\w, |    )--([A-Za-z0-9-]+)", text, re.MULTILINE))


class FacesTest(CommandLineTest):
    @classmethod
    def setUpClass(cls):
        directory = tempfile.TemporaryDirectory(prefix="attnreg-pages-")
        cls.addClassCleanup(directory.cleanup)
        cls.pages = directory.name
        subprocess.run([PROGRAM, "pages", cls.pages], check=True)
        cls.help = {command: run(command, "--help-all").stdout for command in COMMANDS}

    def page(self, name):
        with open(f"{self.pages}/{name}", encoding="utf-8") as file:
            return file.read()

    def test_all_have_the_same_options(self):
        bash, zsh = self.page("attnreg.bash"), self.page("_attnreg")
        documentation = (SOURCE_DIR / "docs" / "program.md").read_text()
        for command in COMMANDS:
            options = options_in_help(self.help[command])
            with self.subTest(command=command):
                self.assertLess(GENERAL, options)
                man = self.page(f"attnreg-{command}.1").replace(r"\-", "-")
                self.assertEqual(options, set(re.findall(r"\\fB--([A-Za-z0-9-]+)\\fR", man)))
                words = re.search(rf"^    {command}\) words='([^']*)'", bash, re.MULTILINE)[1]
                self.assertEqual(options, {word[2:] for word in words.split() if word.startswith("--")})
                case = re.search(rf"^    {command}\)\n(.*?)^      ;;", zsh, re.MULTILINE | re.DOTALL)[1]
                self.assertEqual(options, set(re.findall(r"'--([A-Za-z0-9-]+)\[", case)))
                config = run(command, "--print-config").stdout
                names = set(re.findall(r"^(?:# )?([A-Za-z0-9-]+) =", config, re.MULTILINE))
                self.assertEqual(options - GENERAL, names & options)
                for option in options:
                    self.assertRegex(documentation, rf"--{option}(?![a-z-])")

    def test_each_option_has_a_variable(self):
        """What no value of an option can be, is found in the variable, and named."""
        for command in ("solve", "sparsify"):
            page = re.sub(r"\n {10}", " ", self.help[command])
            for name, value, text in re.findall(r"^  (?:-\w, |    )--([A-Za-z0-9-]+)( \S+)?(.*)$", page, re.MULTILINE):
                if name in GENERAL or (value and "One of" not in text):
                    continue
                variable = "ATTNREG_" + name.upper().replace("-", "_")
                with self.subTest(command=command, variable=variable):
                    result = run(command, "--print-config", environment={variable: "no such value"})
                    self.assert_error(result, 2, f"{variable} is 'no such value'")

    def test_help_of_a_command(self):
        for command in ("solve", "watch"):
            self.assertEqual(run(command, "--help").stdout, run("help", command).stdout)
        self.assertEqual(run("--help").stdout, run("help").stdout)
        self.assert_error(run("help", "sovle"), 2, "did you mean 'solve'")

    def test_man_reads_the_pages(self):
        for name in ("attnreg", *(f"attnreg-{command}" for command in COMMANDS)):
            result = subprocess.run(["man", "--warnings", "-l", f"{self.pages}/{name}.1"], capture_output=True, text=True,
                                    env=dict(os.environ) | {"MANWIDTH": "80", "PAGER": "cat", "LC_ALL": "C.UTF-8"})
            self.assertEqual((0, ""), (result.returncode, result.stderr), name)
            self.assertIn(name.upper(), result.stdout.upper())

    def complete(self, *words):
        """What bash offers for the last word."""
        script = (f"source {self.pages}/attnreg.bash; COMP_WORDS=({' '.join(map(repr, ('attnreg', *words)))}); "
                  f"COMP_CWORD={len(words)}; _attnreg; printf '%s\\n' \"${{COMPREPLY[@]}}\"")
        return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True,
                              cwd=self.directory).stdout.split()

    def test_bash_completes(self):
        (self.directory / "A.npy").touch()
        self.assertEqual(["solve"], self.complete("so"))
        self.assertEqual(["--weight", "--weights", "--weights-path"], sorted(self.complete("solve", "--weight")))
        self.assertEqual(["newton", "newton-cg"], sorted(self.complete("solve", "A.npy", "--method", "newt")))
        self.assertEqual(["A.npy"], self.complete("solve", "A"))
        self.assertEqual(["cycle-rank"], self.complete("experiment", "cyc"))

    def test_zsh_reads_its_completion(self):
        result = subprocess.run(["zsh", "-n", f"{self.pages}/_attnreg"], capture_output=True, text=True)
        self.assertEqual((0, ""), (result.returncode, result.stderr))


class ConfigurationTest(ErrorTest):
    def configuration(self, *words, environment=None, ranks=0):
        """Value and source of each name that has a value."""
        result = run(*words, "--print-config", environment=environment, ranks=ranks)
        self.assert_code(0, result)
        lines = re.findall(r"^([\w-]+) = (.*?) +# (.*)$", result.stdout, re.MULTILINE)
        return {name: (value, source) for name, value, source in lines}

    def write(self, name, text):
        (self.directory / name).write_text(text)
        return self.directory / name

    def test_precedence(self):
        toml = self.write("run.toml", 'rtol = 1e-6\nseed = 3\nmethod = "newton"\n[solve]\nseed = 4\nstarts = 2\n'
                          '[attention]\nseed = 5\n')
        for ranks in (0, 2):
            found = self.configuration("solve", "--config", toml, "--method", "newton-cg", ranks=ranks,
                                       environment={"ATTNREG_RTOL": "1e-7", "ATTNREG_METHOD": "surrogate"})
            self.assertEqual(('"newton-cg"', "command line"), found["method"])
            self.assertEqual(("1e-07", "environment"), found["rtol"])
            self.assertEqual(("4", "configuration file"), found["seed"])
            self.assertEqual(("2", "configuration file"), found["starts"])
            self.assertEqual(("200", "default"), found["max-iterations"])
        found = self.configuration("attention", environment={"ATTNREG_CONFIG": str(self.write("b.toml", "seed = 7\n"))})
        self.assertEqual(("7", "configuration file"), found["seed"])

    def test_switches_and_files(self):
        json_file = self.write("run.json", json.dumps({"A": str(self.A), "b": str(self.b), "write-fitted": True,
                                                       "force": False, "output": str(self.out), "weight": 1e-3}))
        for ranks in (0, 3):
            shutil.rmtree(self.out, ignore_errors=True)
            result = run("solve", "--config", json_file, ranks=ranks)
            self.assert_code(0, result)
            self.assertTrue((self.out / "f.npy").exists())
            run_json = read_json(self.out / "run.json")
            self.assertEqual({"value": 1e-3, "source": "configuration file"}, run_json["configuration"]["weight"])

    def test_an_old_run_is_repeated(self):
        self.assert_code(0, run("solve", self.A, self.b, "--weight", "1e-3", "--seed", "5", "-o", self.out, ranks=2,
                                environment={"ATTNREG_RTOL": "1e-8"}))
        other = self.directory / "other"
        self.assert_code(0, run("solve", "--config", self.out / "run.json", "-o", other, ranks=2))
        for name in ("x.npy",):
            np.testing.assert_array_equal(np.load(self.out / name), np.load(other / name))
        before, after = (read_json(path / "run.json")["configuration"] for path in (self.out, other))
        for name in ("weight", "seed", "rtol", "A", "b"):
            self.assertEqual(before[name]["value"], after[name]["value"])
        self.fails(2, "is of attnreg \"solve\", not of attention",
                   arguments=("attention", "--config", self.out / "run.json"))

    def test_print_config_is_a_config(self):
        printed = run("solve", self.A, self.b, "--weight", "0.125", "--print-config").stdout
        again = self.configuration("solve", "--config", self.write("again.toml", printed))
        self.assertEqual(("0.125", "configuration file"), again["weight"])
        self.assertEqual(("1e-10", "configuration file"), again["rtol"])

    def test_a_resumed_run_has_them_too(self):
        environment = {"ATTNREG_SEED": "9", "ATTNREG_WEIGHT": "1e-5", "ATTNREG_START": "zero", "ATTNREG_METHOD": "newton"}
        self.assert_code(4, run("solve", self.A, self.b, "-o", self.out, "--checkpoint", "0", "--time-limit", "1e-9",
                                environment=environment))
        self.assert_code(0, run("resume", self.out, "--time-limit", "1000"))
        configuration = read_json(self.out / "run.json")["configuration"]
        self.assertEqual((9, 1e-5, "newton"), tuple(configuration[name]["value"] for name in ("seed", "weight", "method")))

    def test_errors(self):
        for text, messages in (("rtol = 2\n", ("bad.toml: rtol is '2'", "<= 1")), ("wieght = 1\n", ("wieght is no option",
                                "did you mean 'weight'")), ("rtol = [1]\n", ("rtol", "expected a text, a number")),
                               ("rtol = \n", ("bad.toml, line 1",)), ("{\"rtol\": ", ("bad.toml", "JSON")),
                               ("[slove]\nrtol = 1\n", ("[slove] is a table of no command", "did you mean 'solve'")),
                               ('{"rtol": {"value": 1}}', ("[rtol] is a table of no command",)),
                               ("force = 3\n", ("force is '3'", "true or false")),
                               ('{"a":' * 200_000 + "1" + "}" * 200_000, ("bad.toml", "JSON")),
                               ("a" + ".a" * 200_000 + " = 1\n", ("bad.toml", "dots")),
                               ("[a" + ".a" * 200_000 + "]\nb = \n", ("bad.toml", "dots"))):
            with self.subTest(text=text[:40]):
                arguments = ("solve", self.A, self.b, "--config", self.write("bad.toml", text))
                self.assert_error(run(*arguments), 2, *messages)
        dots = self.write("dots.toml", "# " + "." * 2000 + "\nb = \"\"\"" + "." * 2000 + "\\\"\"\"\"\"\nrows = '" + "." * 2000 + "'\n")
        self.assert_error(run("solve", self.A, "--config", dots), 2, "rows is no option")  # they are in texts
        self.fails(2, *messages, arguments=arguments)
        self.fails(3, "absent.toml", arguments=("solve", self.A, self.b, "--config", self.directory / "absent.toml"))
        self.fails(2, "ATTNREG_WEIGHT is 'heavy'", arguments=("solve", self.A, self.b),
                   environment={"ATTNREG_WEIGHT": "heavy"})


if __name__ == "__main__":
    unittest.main()
