#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/node/checks.hpp"
#include "app/node/node_facts.hpp"
#include "app/options/commands.hpp"
#include "app/report/text.hpp"
#include "ranks/mpi_facts.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kDoctorEpilogue = R"(Examples:
  attnreg doctor
  mpirun -n 4 attnreg doctor --directory /scratch/me --json > doctor.json

Run it as the job would run: same mpirun, same nodes. The page is fit for a bug report. Exit code 0: no problem was
found (notes do not count); 3: at least one.
)";

const Syntax kDoctorSyntax{
    "doctor",
    "Look at MPI, BLAS, cores, limits and file system as a job would find them, and test in 2 s that it works.",
    {},
    {{"Where",
      {{"directory", 0, "DIR", Text{}, ".", "where runs are to be written"},
       {"threads", 0, "N", Integer{1, 4096}, "", "threads per rank, as for solve"}}},
     {"Output", {json_option("print JSON, with the facts of every rank")}}},
    kDoctorEpilogue};

using Status = Check::Status;

bool is_problem(const Check& check) { return check.status == Status::problem; }

std::string page(const std::vector<Check>& checks, const MpiFacts& mpi) {
  std::string text;
  for (const auto& check : checks) {
    const char* const mark = check.status == Status::good ? "" : check.status == Status::note ? "note" : "PROBLEM";
    text += padded(mark, 8) + padded(check.name, 13) + check.found + "\n";
    if (!check.advice.empty()) text += std::string(21, ' ') + "-> " + check.advice + "\n";
  }
  const auto problems = std::ranges::count_if(checks, is_problem);
  return version_text(mpi.library) + "\n" + text + "\n" +
         (problems == 0 ? "No problem was found.\n" : counted(problems, "problem") + " found.\n");
}

std::string json_page(const Arguments& arguments, const std::vector<Check>& checks, const std::vector<NodeFacts>& ranks,
                      const MpiFacts& mpi, const SelfTest& test) {
  auto json = document_of("doctor", arguments);
  json.update({{"build", build_facts()},
               {"mpi",
                {{"library", mpi.library.substr(0, mpi.library.find('\0'))},
                 {"standard", mpi.standard},
                 {"thread_level", mpi.thread_level}}},
               {"self_test", test},
               {"checks", checks},
               {"ranks", ranks}});
  return json_text(json);
}

ExitCode doctor(const Communicator& communicator, const Arguments& arguments) {
  const ThreadLayout threads = set_threads(communicator, arguments);
  const auto ranks = node_facts(communicator, threads, arguments.text("directory"));
  const SelfTest test = self_test(communicator);
  const MpiFacts mpi = mpi_facts();

  std::string text;
  bool problem = false;
  if (communicator.is_root()) {
    const auto found = checks(mpi, ranks, test);
    problem = std::ranges::any_of(found, is_problem);
    text = arguments.on("json") ? json_page(arguments, found, ranks, mpi, test) : to_width(page(found, mpi));
  }
  print_result(communicator, text);
  return communicator.max(std::int64_t{problem}) == 0 ? ExitCode::converged : ExitCode::bad_input;
}

}  // namespace

Command doctor_command() { return {kDoctorSyntax, doctor}; }

}  // namespace attnreg::app
