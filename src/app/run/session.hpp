#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "app/run/checkpoint.hpp"
#include "app/run/problem.hpp"
#include "app/run/progress_line.hpp"
#include "app/run/run_directory.hpp"
#include "attnreg/solver.hpp"
#include "ranks/root_clock.hpp"

namespace attnreg::app {

/// --output (which writes `files`), --force, --quiet, --verbose, --help, and what a command adds to them.
OptionGroup session_options(std::string_view output_help, std::vector<Option> more = {});

/// Throws `UsageError` for options of a session that do not go together. `with_output`: options that need -o as well.
void check_session_options(const Arguments& arguments, std::vector<std::string_view> with_output = {});

/// What every command that iterates has around it: threads, run directory, step lines, checkpoints, and its state if it
/// fails.
class Session {
 public:
  /// Collective. Creates the run directory.
  Session(const Communicator& communicator, const Arguments& arguments);
  virtual ~Session() = default;

  /// Collective. Loads and solves; the run directory says "failed" if that throws.
  ExitCode run();

 protected:
  virtual ExitCode load_and_solve() = 0;

  /// Collective. Threads by the size of the files; lines on files, ranks and memory, as --verbose and --quiet have it.
  /// `OutOfMemory` on all ranks where `bytes_needed` a rank, for `what`, are not there.
  void begin(const std::vector<InputFile>& files, double bytes_needed, const std::string& what);
  /// Collective. The data are there, and a solve begins that will write these arrays. `ends_on_stop`: once asked to
  /// stop it ends with what it has; else a stop is an error up to `end`.
  void ready(const std::vector<RunDirectory::Array>& arrays, bool ends_on_stop);
  /// Local. Threads with memory of their own: blocks of a process, which take turns, share those of its threads.
  int threads_of_rank() const { return communicator_.is_of_blocks() ? 1 : threads_.threads; }
  /// Collective. The exit code of a termination; where the run was asked to stop and can go on from a checkpoint, 75.
  ExitCode code_of(Termination termination);
  /// What a run ends with. All calls are collective.
  struct Ending {
    const NewtonSummary& summary;
    ExitCode code;
    std::function<nlohmann::ordered_json()> run;  ///< run.json, but for the page
    std::function<void()> write;                  ///< the arrays and tables of the run directory
    std::function<std::string(const std::vector<std::string>& files)> page;  ///< the summary, with the files written
  };
  /// Collective. Fills the run directory; then the page, or with --json run.json, goes to stdout, without files where
  /// they could not be written: what was found must not be lost with them.
  void end(const Ending& ending);

  /// The callbacks of an iteration and of its start: step lines, history, status. The session must outlive them.
  std::function<void(const IterationRecord&)> on_iteration();
  std::function<void(const IterationRecord&)> on_start_iteration();
  std::function<void(int target, const IterationRecord&)> on_target_iteration();

  /// Collective. The part of run.json that every command has.
  nlohmann::ordered_json run_json(const std::vector<InputFile>& files, Index tile_rows) const;

  const Communicator& communicator_;
  const Arguments& arguments_;
  ThreadLayout threads_;
  RootClock clock_;  ///< since the session began: on rank 0, which alone tells the time
  RunDirectory directory_;
  std::shared_ptr<Journal> journal_;  ///< of the solve; none without a run directory, unless of blocks

 private:
  std::shared_ptr<Journal> journal(std::function<void()> write) const;
  void start_checkpoints();
  void remember_inputs(const std::vector<InputFile>& files);
  void write_checkpoint();
  bool leaves_checkpoint();
  std::string resume_text() const;
  void describe(const std::vector<InputFile>& files, double bytes_needed) const;
  /// Local, for rank 0. A step line on stderr in aligned columns, a header before the first.
  void print_step(const std::string& name, const IterationRecord& record);

  std::optional<WhileSilent> while_silent_;  // of rank 0: the status is kept up to date
  CheckpointSlots slots_;                    // likewise
  Checkpoint checkpoint_;                    // likewise, but for its stages
  bool has_checkpoint_ = false, checkpoint_failed_ = false;
  bool header_printed_ = false;
};

}  // namespace attnreg::app
