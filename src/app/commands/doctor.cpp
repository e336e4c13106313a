#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/node/checks.hpp"
#include "app/node/node_facts.hpp"
#include "app/node/self_test.hpp"
#include "app/options/commands.hpp"
#include "app/options/threads.hpp"
#include "app/report/text.hpp"
#include "app/report/version.hpp"
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
     {"Output", {{"json", 0, "", Switch{}, "", "print JSON, with the facts of every rank"}, help_option()}}},
    kDoctorEpilogue};

std::string page(const std::vector<Check>& checks, const MpiFacts& mpi) {
  std::string text;
  for (const auto& check : checks) {
    std::string label = check.status == Check::Status::good   ? "      "
                        : check.status == Check::Status::note ? "note  "
                                                              : "PROBLEM ";
    label.resize(8, ' ');
    std::string name = check.name;
    name.resize(13, ' ');
    text += label + name + check.found + "\n";
    if (!check.advice.empty()) text += std::string(21, ' ') + "-> " + check.advice + "\n";
  }
  const auto problems =
      std::ranges::count_if(checks, [](const Check& check) { return check.status == Check::Status::problem; });
  return version_text(mpi.library) + "\n" + text + "\n" +
         (problems == 0 ? "No problem was found.\n" : counted(problems, "problem") + " found.\n");
}

std::string json_page(const std::vector<Check>& checks, const std::vector<NodeFacts>& ranks, const MpiFacts& mpi,
                      const SelfTest& test) {
  nlohmann::ordered_json all{{"schema", "attnreg-doctor-1"},
                             {"build", build_facts()},
                             {"mpi",
                              {{"library", mpi.library.substr(0, mpi.library.find('\0'))},
                               {"standard", mpi.standard},
                               {"thread_level", mpi.thread_level}}},
                             {"self_test",
                              {{"right", test.right},
                               {"found", test.found},
                               {"bytes_per_second", test.bytes_per_second},
                               {"reduction_seconds", test.reduction_seconds},
                               {"long_reduction_seconds", test.long_reduction_seconds},
                               {"seconds", test.seconds}}},
                             {"checks", nlohmann::ordered_json::array()},
                             {"ranks", nlohmann::ordered_json::array()}};
  for (const auto& check : checks)
    all["checks"].push_back({{"name", check.name},
                             {"status", status_name(check.status)},
                             {"found", check.found},
                             {"advice", check.advice}});
  for (const auto& rank : ranks) all["ranks"].push_back(to_json(rank));
  return json_text(all);
}

ExitCode doctor(const Communicator& communicator, const Arguments& arguments) {
  const ThreadLayout threads = set_threads(communicator, arguments.optional_integer("threads"));
  const auto ranks = node_facts(communicator, threads, arguments.text("directory"));
  const SelfTest test = self_test(communicator);
  const MpiFacts mpi = mpi_facts();

  std::vector<Check> found;
  if (communicator.is_root()) found = checks(mpi, ranks, test);
  const bool problem =
      std::ranges::any_of(found, [](const Check& check) { return check.status == Check::Status::problem; });
  std::string text;
  if (communicator.is_root()) text = arguments.on("json") ? json_page(found, ranks, mpi, test) : page(found, mpi);
  print_result(communicator, text);
  return communicator.max(std::int64_t{problem}) == 0 ? ExitCode::converged : ExitCode::bad_input;
}

}  // namespace

Command doctor_command() { return {kDoctorSyntax, doctor}; }

}  // namespace attnreg::app
