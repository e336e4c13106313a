"""The scripts for Slurm, on a real Slurm of two nodes."""

import json
import subprocess
import time
import unittest

from checkout import PROGRAM, SOLVE_WORDS, CheckoutTest, blocks, read_run
from hosts import Hosts, enter_box, require, run_tests, wait_until
from slurm import Slurm

HOSTS = SLURM = None


class SlurmTest(CheckoutTest):
    def submit(self, *arguments, **variables):
        return SLURM.submit(*arguments, cwd=self.directory, ATTNREG=str(PROGRAM), **variables)

    def output(self, job):
        return (self.directory / f"attnreg-{job}.out").read_text()

    def start_long_job(self, starts=100000):
        """A job that has begun to iterate, with its history in run/."""
        job = self.submit("launch/slurm.sh", *SOLVE_WORDS, "--starts", str(starts), "-o", "run")
        wait_until(lambda: len(self.history()) > 1000, "the job runs")
        return job

    def history(self):
        """That of the run that goes on, which stands aside while the results of an earlier one are there."""
        paths = [self.directory / "run" / name for name in ("history.partial.csv", "history.csv")]
        return next((path.read_text() for path in paths if path.exists()), "")

    def wait_for_more_history(self):
        before = self.history()
        wait_until(lambda: self.history() != before, "the job goes on")

    @staticmethod
    def start_now(job):
        """Slurm holds a job back for two minutes after a requeue, from when all of its first start has ended; so what
        shortens that is asked for until the job runs."""
        if SLURM.field(job, "JobState") == "PENDING":
            HOSTS.start("head", "scontrol", "update", f"JobId={job}", "StartTime=now").communicate()

    def cancel(self, job):
        HOSTS.run("head", "scancel", job)
        self.assertEqual("CANCELLED", SLURM.wait(job)[0])
        wait_until(lambda: not any(HOSTS.processes(node, "attnreg") for node in SLURM.nodes), "no rank is left")

    def assert_solved(self, job, directory, x):
        self.assertEqual(("COMPLETED", 0), SLURM.wait(job), self.output(job))
        run = self.assert_same_x(x, directory, ranks=2)
        self.assertEqual([1, 1], run["layout"]["ranks_per_node"])

    def test_script_with_both_launchers(self):
        x = self.solve_here(ranks=2)
        for launcher in ("mpirun", "srun"):
            with self.subTest(launcher=launcher):
                job = self.submit("--nodes=2", "--ntasks-per-node=1", "launch/slurm.sh", *SOLVE_WORDS, "-o", launcher,
                                  ATTNREG_LAUNCHER=launcher)
                self.assert_solved(job, self.directory / launcher, x)

    def test_exit_code_is_the_programs(self):
        job = self.submit("launch/slurm.sh", *SOLVE_WORDS, "--max-iterations", "1")
        self.assertEqual(("FAILED", 4), SLURM.wait(job), self.output(job))

    def test_guide(self):
        commands = blocks("slurm")
        self.assertTrue(commands)
        for _, text in commands:
            HOSTS.run("head", "bash", "-euc", text, cwd=self.directory)
        for name in ("slurm", "job"):
            self.assertEqual([1, 1], read_run(self.directory / "run" / name)["layout"]["ranks_per_node"])

    def wait_for_second_start(self, job):
        wait_until(lambda: SLURM.field(job, "JobState") == "PENDING", "the job waits again")
        # Slurm itself starts it after two minutes; a start beside what is left of the first one fails at once.
        time.sleep(10)
        wait_until(lambda: self.start_now(job) or f"attnreg: start 2 of job {job}" in self.output(job),
                   "the second start", lambda: "\n" + HOSTS.run("head", "scontrol", "show", "job", job) +
                   HOSTS.run("head", "sinfo", "--list-reasons") + self.output(job))
        wait_until(lambda: "the run goes on from its checkpoint" in self.output(job), "the run goes on")
        self.assertNotIn("from the beginning", self.output(job))

    def test_preempted_job_goes_on_and_finishes(self):
        job = self.start_long_job(starts=100)
        HOSTS.run("head", "scontrol", "requeue", job)
        self.wait_for_second_start(job)
        self.assertEqual(("COMPLETED", 0), SLURM.wait(job), self.output(job))
        run = read_run(self.directory / "run")
        self.assertEqual(1, run["resumed"])
        self.assertLessEqual(101, sum(minimum["starts"] for minimum in run["minima"]))

    def test_finished_run_is_not_done_twice(self):
        subprocess.run([PROGRAM, *SOLVE_WORDS, "--max-iterations", "1", "-o", self.directory / "done"], check=False,
                       stdout=subprocess.DEVNULL)
        before = (self.directory / "done/x.npy").stat().st_mtime_ns
        output = HOSTS.run("head", "launch/slurm.sh", *SOLVE_WORDS, "-o", "done", cwd=self.directory, code=4,
                           environment={"SLURM_RESTART_COUNT": "1", "SLURM_JOB_ID": "1"})
        self.assertIn("the run was done already", output)
        self.assertEqual(before, (self.directory / "done/x.npy").stat().st_mtime_ns)

    def test_warning_of_the_time_limit_ends_the_run_with_its_best_x(self):
        """What --signal=B:USR2@120 sends, sent now; the job starts again and goes on from the checkpoint."""
        job = self.start_long_job()
        HOSTS.run("head", "scancel", "--batch", "--signal=USR2", job)
        wait_until(lambda: "Slurm will stop this job soon" in self.output(job), "the script was warned")
        wait_until(lambda: self.status()["state"] == "stopped", "the run has stopped")
        self.assertEqual(75, self.status()["exit_code"])
        self.assertTrue((self.directory / "run/x.npy").exists())
        self.wait_for_second_start(job)
        self.wait_for_more_history()
        self.cancel(job)

    def status(self):
        return json.loads((self.directory / "run/status.json").read_text())

    def test_node_dies(self):
        job = self.start_long_job()
        HOSTS.kill("w2")
        state, code = SLURM.wait(job)
        self.assertEqual("FAILED", state, self.output(job))
        self.assertNotEqual(0, code)
        self.assertEqual([], HOSTS.processes("w1", "attnreg"))
        SLURM.start_node("w2")
        wait_until(lambda: SLURM.states() == ["idle", "idle"], "the node is back")


if __name__ == "__main__":
    require("mpirun", "unshare", "nsenter", "ip", "slurmctld", "slurmd", "sbatch", "munged", root=True)
    enter_box()
    HOSTS = Hosts("head", "w1", "w2", net="10.78.0")
    SLURM = Slurm(HOSTS)
    run_tests()
