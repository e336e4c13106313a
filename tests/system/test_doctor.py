"""doctor: what it finds, as text and JSON, and what makes it find a problem."""

import os
import resource
import unittest

from command_line import CommandLineTest, read_json, run


class DoctorTest(CommandLineTest):
    def page(self, *options, ranks, code=0, **more):
        result = run("doctor", "--json", "--directory", self.directory, *options, ranks=ranks, mpirun=ranks > 0, **more)
        self.assert_code(code, result)
        (self.directory / "page.json").write_text(result.stdout)
        return read_json(self.directory / "page.json")

    def statuses(self, page):
        return {check["name"]: check["status"] for check in page["checks"]}

    def test_facts_of_every_rank(self):
        for ranks in (1, 2, 3, 4):
            page = self.page(ranks=ranks)
            self.assertEqual("attnreg-doctor-1", page["schema"])
            self.assertEqual(list(range(ranks)), [rank["rank"] for rank in page["ranks"]])
            self.assertEqual({os.uname().nodename}, {rank["host"] for rank in page["ranks"]})
            self.assertEqual({len(os.sched_getaffinity(0))}, {rank["cores"] for rank in page["ranks"]})
            self.assertEqual({""}, {rank["directory_error"] for rank in page["ranks"]})
            self.assertTrue(page["self_test"]["right"], page["self_test"])
            self.assertNotIn("problem", self.statuses(page).values())
            self.assertIn("MPI", page["mpi"]["library"])
            for rank in page["ranks"]:
                self.assertIn(rank["libraries"][0]["version"], page["mpi"]["library"])
        self.assertEqual([], [path.name for path in self.directory.glob(".attnreg-doctor-*")])

    def test_text_without_mpirun(self):
        result = run("doctor", "--directory", self.directory)
        self.assert_code(0, result)
        for word in ("attnreg 0", "MPI", "libraries", "BLAS", "serial", "binding", "CMA", "/dev/shm", "limits", "file system",
                     "self-test", "No problem was found."):
            self.assertIn(word, result.stdout)
        self.assertEqual("", result.stderr)

    def test_more_threads_than_cores_are_a_note(self):
        page = self.page("--threads", len(os.sched_getaffinity(0)) + 1, ranks=1)
        self.assertEqual("note", self.statuses(page)["binding"])

    def test_directory_that_cannot_be_written_is_a_problem(self):
        for ranks in (1, 3):
            result = run("doctor", "--directory", self.directory / "missing", ranks=ranks)
            self.assert_code(3, result)
            self.assertIn("PROBLEM file system", result.stdout)
            self.assertIn("1 problem found.", result.stdout)

    def test_few_open_files_are_a_problem(self):
        def lower():
            resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))

        page = self.page(ranks=0, code=3, preexec=lower)
        self.assertEqual("problem", self.statuses(page)["limits"])
        self.assertEqual(60, page["ranks"][0]["open_files"])


if __name__ == "__main__":
    unittest.main()
