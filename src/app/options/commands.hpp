#pragma once

#include <functional>
#include <string>

#include "app/options/options.hpp"
#include "attnreg/communicator.hpp"
#include "regression/solve_cost.hpp"

namespace attnreg::app {

struct InputFile;

/// One command of the program. `run` is collective, prints its result on rank 0 and throws errors on all ranks.
struct Command {
  const Syntax& syntax;
  ExitCode (*run)(const Communicator& communicator, const Arguments& arguments);
};

// Each in the file of its name.
Command solve_command();
Command attention_command();
Command evaluate_command();
Command predict_command();
Command scores_command();
Command sample_command();
Command sparsify_command();
Command apply_command();
Command private_command();
Command experiment_command();
Command inspect_command();
Command check_command();
Command convert_command();
Command generate_command();
Command doctor_command();
Command jobscript_command();
Command plan_command();
Command status_command();
Command watch_command();
Command report_command();
Command resume_command();

// What `solve` and `plan` have in common.
/// The options that say what to solve and how.
std::vector<OptionGroup> solve_options();
/// Throws `UsageError` for those that do not go together.
void check_solve_options(const Arguments& arguments, int ranks);
/// Local. The shape of the problem in the files of `examine_problem`.
SolveShape solve_shape(const Arguments& arguments, const std::vector<InputFile>& files);

/// Local. Throws `UsageError` for another name.
const Syntax& command_syntax(const std::string& name);

/// Collective. Writes report.html into the directory of a run that is over, and says where it is: on stdout, or where
/// JSON is there on stderr. The names of --labels are on the page.
void report_on_run(const Communicator& communicator, const Arguments& run);

/// Collective. Of a command line `resume DIR ...`, that of the run which goes on.
Arguments resumed_arguments(const Communicator& communicator, const Arguments& resume,
                            const std::function<const Syntax&(const std::string& command)>& find);

/// Collective. Rank 0 writes `text` to stdout; `OutputError` on all ranks if that fails (a full disk behind it).
void print_result(const Communicator& communicator, const std::string& text);

/// Local. Writes one line to stderr at once.
void print_line(const std::string& text);

}  // namespace attnreg::app
