"""Where the time of a run goes, and what is seen of it while it goes on: timing.json, --progress, status.json, watch."""

import os
import pathlib
import re
import signal
import subprocess
import time
import unittest

import numpy as np

from command_line import MPIRUN, PROGRAM, TIMEOUT_SECONDS, CommandLineTest, read_json, require_faults, run, softmax
from test_terminal import COLUMNS, in_terminal, widest

PHASES = ["load", "scan", "start", "solve", "certificate", "write"]


class TimingTest(CommandLineTest):
    def setUp(self):
        super().setUp()
        self.write_problem(400, 6)

    def solve(self, *options, ranks=0):
        out = self.directory / "run"
        result = run("solve", self.directory / "A.npy", self.directory / "b.npy", "-o", out, "--force", *options,
                     ranks=ranks)
        self.assert_code(0, result)
        return result, read_json(out / "timing.json")

    def test_phases_add_up_to_the_wall_clock(self):
        everything = ("--certificate", "full", "--start", "cross-entropy", "--method", "newton")
        for ranks, options in ((1, ()), (2, everything), (3, ()), (4, everything)):
            with self.subTest(ranks=ranks, options=options):
                begin = time.monotonic()
                result, timing = self.solve(*options, ranks=ranks)
                outside = time.monotonic() - begin
                self.assertEqual(PHASES, [phase["phase"] for phase in timing["phases"]])
                total = sum(phase["seconds"] for phase in timing["phases"])
                self.assertAlmostEqual(timing["wall_seconds"], total, delta=0.02 * total)
                self.assertLessEqual(timing["wall_seconds"], outside)
                self.assertAlmostEqual(1, sum(phase["share"] for phase in timing["phases"]), places=6)
                self.assertEqual(ranks, timing["ranks"])
                for phase in timing["phases"]:
                    self.assertLessEqual(phase["least"], phase["mean"] + 1e-9)
                    self.assertLessEqual(phase["mean"], phase["largest"] + 1e-9)
                    self.assertTrue(0 <= phase["message_share"] <= 1 + 1e-9)
                by_name = {phase["phase"]: phase for phase in timing["phases"]}
                self.assertEqual(ranks > 1, by_name["solve"]["messages"] > 0)
                if options:
                    self.assertGreater(by_name["start"]["seconds"], 0)
                    self.assertGreater(by_name["certificate"]["messages"], 5)

    def test_messages_are_all_counted(self):
        """The phases have as many as the solve counts, and those around it."""
        _, timing = self.solve("--start", "zero", "--method", "newton-cg", ranks=2)
        summary = read_json(self.directory / "run" / "run.json")["summary"]
        counted = sum(phase["messages"] for phase in timing["phases"] if phase["phase"] in ("scan", "start", "solve",
                                                                                            "certificate"))
        self.assertGreaterEqual(counted, summary["collectives"])
        self.assertLess(counted, summary["collectives"] + 40)

    def test_the_last_table_of_the_summary(self):
        result, _ = self.solve("--certificate", "full", ranks=2)
        table = result.stdout[result.stdout.rindex("\nTime"):].splitlines()
        names = [line.split()[0] for line in table[3:]]
        self.assertEqual("all", names[-1])
        self.assertEqual([name for name in PHASES if name in names], names[:-1])
        for name in ("load", "solve", "certificate", "write"):
            self.assertIn(name, names)
        self.assertLessEqual(max(map(len, table)), COLUMNS)

    def test_several_targets_and_attention_have_phases(self):
        A = np.load(self.directory / "A.npy")
        np.save(self.directory / "B.npy", np.stack([softmax(A @ np.full(6, s)) for s in (0.1, 0.3)], axis=1))
        result = run("solve", self.directory / "A.npy", "--targets", self.directory / "B.npy", "-o",
                     self.directory / "several", ranks=2)
        self.assert_code(0, result)
        timing = read_json(self.directory / "several" / "timing.json")
        self.assertGreater({p["phase"]: p["messages"] for p in timing["phases"]}["solve"], 0)
        tokens = np.random.default_rng(2).standard_normal((9, 3))
        F = np.apply_along_axis(softmax, 1, tokens @ np.eye(3) @ tokens.T)
        np.save(self.directory / "T.npy", tokens)
        np.save(self.directory / "F.npy", F)
        result = run("attention", "--queries", self.directory / "T.npy", "--keys", self.directory / "T.npy", "--target",
                     self.directory / "F.npy", "--certificate", "full", "-o", self.directory / "head", ranks=2)
        self.assert_code(0, result)
        timing = read_json(self.directory / "head" / "timing.json")
        by_name = {phase["phase"]: phase for phase in timing["phases"]}
        for name in ("load", "scan", "start", "solve", "certificate"):
            self.assertGreater(by_name[name]["seconds"], 0, name)


class StoppedRankTest(CommandLineTest):
    """Rank 1 stops in its second iteration, and goes on once rank 0 has shown what is asked for."""

    def setUp(self):
        super().setUp()
        require_faults()
        self.write_problem(400, 6)
        self.out = self.directory / "run"

    def watched(self, shown, *options, look=lambda: None):
        """Runs a solve on 2 ranks up to what is `shown` on stderr, looks, and lets it end. Returns stderr."""
        command = [MPIRUN, "-n", "2", PROGRAM, "solve", self.directory / "A.npy", self.directory / "b.npy", "--start",
                   "zero", "--method", "newton", "-o", self.out, "--force", *options]
        variables = dict(os.environ) | {"ATTNREG_FAULT": "1:in-iteration:STOP:2", "ATTNREG_WATCHDOG": "0"}
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True,
                                   env=variables)
        os.set_blocking(process.stderr.fileno(), False)
        text, end = "", time.monotonic() + TIMEOUT_SECONDS
        try:
            while not re.search(shown, text):
                self.assertLess(time.monotonic(), end, text)
                self.assertIsNone(process.poll(), text)
                text += (process.stderr.read() or b"").decode()
                time.sleep(0.05)
            looked = look()
            for stopped in self.stopped_children(process.pid):
                os.kill(stopped, signal.SIGCONT)
            os.set_blocking(process.stderr.fileno(), True)
            text += process.communicate(timeout=TIMEOUT_SECONDS)[1].decode()
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        self.assertEqual(0, process.returncode, text)
        return text, looked

    def stopped_children(self, parent):
        """Processes below `parent` that are stopped: there is one."""
        found, end = [], time.monotonic() + TIMEOUT_SECONDS
        while not found and time.monotonic() < end:
            for directory in pathlib.Path("/proc").glob("[0-9]*"):
                try:
                    fields = (directory / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if fields[0] == "T" and int(fields[1]) == parent:
                    found.append(int(directory.name))
        self.assertEqual(1, len(found))
        return found

    def test_a_line_once_nothing_was_said_for_a_while(self):
        text, _ = self.watched(r"(?m)^attnreg: solve: zero, iteration 1.*s\n", "--progress", "lines")
        self.assertEqual(1, len(re.findall(r"(?m)^attnreg: solve: ", text)), text)
        self.assertNotIn("[K", text)

    def test_a_bar_is_redrawn_and_goes(self):
        text, _ = self.watched(r"\[[#.]{20}\].*\r.*\[[#.]{20}\]", "--progress", "bar")
        bars = re.findall(r"\[[#.]{20}\] [^\r\n]*", text)
        self.assertLessEqual(max(map(len, bars)), COLUMNS)
        self.assertRegex(text, r"\r\x1b\[Kzero ")  # the next step line takes its place

    def test_nothing_is_shown_where_none_is_wanted(self):
        text, status = self.watched(r"fault played", "--progress", "none", look=self.status_of_work)
        self.assertNotIn("attnreg: solve:", text)
        self.assertNotIn("[#", text)
        self.assertEqual("solve", status["work"]["phase"])

    def status_of_work(self):
        """status.json once it says what the run is at: it is renewed while nothing is written."""
        end = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < end:
            status = read_json(self.out / "status.json")
            if status.get("work", {}).get("what", "").startswith("zero, iteration 1"):
                return status
            time.sleep(0.05)
        self.fail(f"no work in {status}")

    def test_watch_shows_a_run_that_goes_on_and_one_that_is_over(self):
        text, looked = self.watched(r"attnreg: solve: ", "--progress", "lines",
                                    look=lambda: run("watch", self.out, "--once"))
        self.assert_code(10, looked)
        self.assertIn("running", looked.stdout)
        self.assertIn("solve: zero, iteration 1", looked.stdout)
        over = run("watch", self.out)
        self.assert_code(0, over)
        self.assertIn("done, exit code 0", over.stdout)
        self.assertRegex(over.stdout, "\\|g\\|/\\|g_ref\\| +[\u2581-\u2588]{3,} ")
        self.assertRegex(over.stdout, "(?m)^L +[\u2581-\u2588]{3,} ")


class TerminalTest(CommandLineTest):
    def test_a_bar_on_a_terminal(self):
        """Of work that takes minutes, and is ended once the bar is there."""
        np.save(self.directory / "Q.npy", np.random.default_rng(3).standard_normal((60000, 64)))
        files = [self.directory / "Q.npy"] * 3
        code, text = in_terminal([PROGRAM, "apply", *files, "-o", self.directory / "O.npy"], self.directory,
                                 until=r"\[[#.]{20}\] (\d+ s left|for \d+ s), solve: attention, \d+ of 60000 keys, ")
        self.assertEqual(4, code, text)
        self.assertLessEqual(len(widest(text)), COLUMNS)

    def test_watch_without_a_run(self):
        for ranks in (1, 3):
            self.assert_error(run("watch", self.directory, ranks=ranks), 3, "holds no run")


if __name__ == "__main__":
    unittest.main()
