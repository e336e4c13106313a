"""The scripts of launch/ on this host, and the guide: every block is run by some test or says that it is untested."""

import csv
import json
import os
import shutil
import subprocess
import unittest

import numpy as np

from checkout import GUIDE, PROGRAM, SOLVE_WORDS, SOURCE_DIR, CheckoutTest, blocks, read_run
from hosts import require, run_tests

PYTHON = os.environ.get("ATTNREG_PYTHON", "/usr/bin/python3")


class LaunchTest(CheckoutTest):
    def run_here(self, *command, code=0, timeout=120):
        result = subprocess.run([*map(str, command)], cwd=self.directory, stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, timeout=timeout)
        self.assertEqual(code, result.returncode, result.stdout)
        return result.stdout

    def test_local(self):
        x = self.solve_here(ranks=1)
        for ranks in (1, 3):
            self.run_here("launch/local.sh", "-n", ranks, *SOLVE_WORDS, "-o", f"run-{ranks}")
            self.assert_same_x(x, self.directory / f"run-{ranks}", ranks)
        self.run_here("launch/local.sh", *SOLVE_WORDS, "-o", "run")
        self.assertEqual(len(os.sched_getaffinity(0)), read_run(self.directory / "run")["layout"]["ranks"])
        self.assertIn("launch/local.sh [-n RANKS]", self.run_here("launch/local.sh", code=2))
        for ranks in ("0", "two", ""):
            self.assertIn("-n needs a number of ranks", self.run_here("launch/local.sh", "-n", ranks, "doctor", code=2))

    def scaling(self, kind, ranks):
        self.said = self.run_here("launch/scaling.py", kind, "--rows", 20000, "--cols", 20, "--ranks", ranks,
                                  "--repeats", 1, "--program", PROGRAM, "-o", kind)
        with open(self.directory / kind / "scaling.csv", newline="") as file:
            return list(csv.DictReader(file))

    def test_strong_scaling_counts_do_not_depend_on_the_ranks(self):
        lines = self.scaling("strong", "1,2,4,8")
        self.assertEqual(["1", "2", "4", "8"], [line["ranks"] for line in lines])
        # Not the iterations: rounding may decide whether there is a last step.
        for name in ("rows", "reads_per_step", "collectives_per_step"):
            self.assertEqual(1, len({line[name] for line in lines}), (name, lines))
        self.assertIn("the same on any number of ranks", self.said)
        cores = len(os.sched_getaffinity(0))
        self.assertEqual([str(int(ranks > cores)) for ranks in (1, 2, 4, 8)], [line["oversubscribed"] for line in lines])
        self.assertEqual("1.0", lines[0]["efficiency"])
        environment = json.loads((self.directory / "strong/environment.json").read_text())
        self.assertIn("attnreg", environment["program"][0])
        doctor = json.loads((self.directory / "strong/ranks-4/doctor.json").read_text())
        self.assertEqual(4, len(doctor["ranks"]))

    def test_weak_scaling_grows_the_problem(self):
        lines = self.scaling("weak", "1,2,4")
        self.assertEqual(["20000", "40000", "80000"], [line["rows"] for line in lines])
        # Newton's steps hardly depend on n.
        iterations = [int(line["iterations"]) for line in lines]
        self.assertLessEqual(max(iterations) - min(iterations), 2, iterations)

    def scripts(self):
        """Those of the checkout, and those that jobscript writes."""
        scripts = [path for place in ("launch", "docker", "packaging", "tests", "tests/cluster")
                   for path in (SOURCE_DIR / place).glob("*.sh")]
        self.assertGreater(len(scripts), 8)
        for kind in ("slurm", "pbs", "ssh"):
            scripts.append(self.directory / f"{kind}-job.sh")
            self.run_here(PROGRAM, "jobscript", kind, "--rows", 10**8, "--cols", 200, "--ranks", 7, "--cores-per-node",
                          4, *(("--hosts", "a,b") if kind == "ssh" else ()), "-o", scripts[-1])
        return scripts

    def test_scripts_are_accepted_by_the_shell(self):
        for script in self.scripts():
            self.run_here("sh" if script.name == "entrypoint.sh" else "bash", "-n", script)

    @unittest.skipUnless(shutil.which("shellcheck"), "no shellcheck")
    def test_scripts_are_accepted_by_shellcheck(self):
        self.run_here("shellcheck", "-x", "-P", SOURCE_DIR, *self.scripts())

    def test_python_recipes_are_syntactically_right(self):
        for name in ("packaging/spack/packages/attnreg/package.py", "launch/scaling.py", "launch/plot_scaling.py"):
            compile((SOURCE_DIR / name).read_text(), name, "exec")

    def test_every_block_of_the_guide_says_who_runs_it(self):
        tags = [tag for tag, _ in blocks()]
        self.assertEqual(GUIDE.read_text().count("```") // 2, len(tags))
        self.assertEqual({"local", "plot", "slurm", "ssh", "containers", "debian", "untested"}, set(tags))

    def test_guide(self):
        for _, text in blocks("local"):
            self.run_here("bash", "-euc", text)
        self.assertEqual(100, len(np.load(self.directory / "run/words/x.npy")))
        self.assertEqual(2, len(json.loads((self.directory / "doctor.json").read_text())["ranks"]))
        for name in ("strong", "weak"):
            self.assertTrue((self.directory / "run" / name / "scaling.csv").exists())
        if subprocess.run([PYTHON, "-c", "import matplotlib"], stderr=subprocess.DEVNULL).returncode != 0:
            self.skipTest("no matplotlib, so launch/plot_scaling.py is not run")
        for _, text in blocks("plot"):
            self.run_here("bash", "-euc", text.replace("launch/plot", f"{PYTHON} launch/plot"))
        for name in ("strong", "weak"):
            picture = (self.directory / "run" / name / "scaling.svg").read_text()
            self.assertTrue(picture.startswith("<?xml") and "collectives" in picture)


if __name__ == "__main__":
    require("mpirun")
    os.environ["ATTNREG"] = str(PROGRAM)
    run_tests()
