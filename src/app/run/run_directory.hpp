#pragma once

#include <atomic>
#include <chrono>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/options/options.hpp"
#include "app/run/run_lock.hpp"
#include "attnreg/communicator.hpp"
#include "attnreg/row_partition.hpp"
#include "attnreg/row_storage.hpp"
#include "attnreg/solver.hpp"
#include "files/file_descriptor.hpp"
#include "files/output_file.hpp"

namespace attnreg::app {

/// The files of one solve: x.npy, f.npy, run.json, history.csv, timing.json and status.json in one directory. Rank 0
/// writes, but for matrices whose rows are spread. Nobody else runs there up to the last status (`RunLock`). The
/// results of an earlier run stay until this one has its own: then all of them go, and its x is replaced. At no time
/// the directory has those of two; the history is history.partial.csv so long.
class RunDirectory {
 public:
  /// Collective. Creates the directory, locks it, and says "running". Throws `OutputError` on all ranks, also for a
  /// directory in which another run is, or which holds a finished run, unless `force`. With an empty path nothing is
  /// ever written. resumed_history: of a run that goes on, the bytes of the history that are kept.
  RunDirectory(const Communicator& communicator, std::string path, bool force,
               std::optional<std::int64_t> resumed_history = std::nullopt);
  ~RunDirectory();  ///< Local. Says "failed", code 9, where nothing else was said.
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  /// An array that rank 0 will write: name and numbers.
  struct Array {
    std::string name;
    std::int64_t numbers;
  };
  /// Collective. Before the first iteration: takes the space for these arrays and run.json, so that a full disk is
  /// noticed now. Throws `OutputError` on all ranks.
  void reserve(const std::vector<Array>& arrays);

  bool is_used() const { return !path_.empty(); }
  const std::string& path() const { return path_; }              ///< Local.
  std::int64_t history_bytes() const { return history_bytes_; }  ///< Local, of rank 0.
  /// Local. Path and name of the files written so far, history.csv and status.json with `finish`.
  const std::vector<std::string>& files() const { return files_; }

  /// Local. Adds a line to history.csv, and refreshes status.json once a second. A failure to write is kept for
  /// `finish`: the solve goes on. Of several targets each line names the target, from 0.
  void record(const IterationRecord& record, std::optional<int> target = std::nullopt) noexcept;
  /// Local. For records that are not part of the history.
  void refresh_status(const IterationRecord& record) noexcept;
  /// Local, from another thread: refreshes it in between, with what the rank is at.
  void show_work() noexcept;

  // Collective, and without a directory nothing is done. They throw `OutputError` on all ranks.
  /// An array that rank 0 has. shape: of .npy, row-major.
  void write_array(std::string_view name, std::span<const double> values, const std::vector<std::int64_t>& shape);
  /// An array whose rows are spread over the ranks. shape: of the whole.
  void write_rows(std::string_view name, std::span<const double> values, const RowPartition& partition,
                  const std::vector<std::int64_t>& shape);
  void write_text(std::string_view name, const std::string& text);
  /// `write_array`, unless the matrix has no numbers.
  void write_matrix(std::string_view name, const RowMajorMatrix& matrix);
  /// Writes run.json, and at last status.json with the state "done", or "stopped" where a stop is why the code is what
  /// it is. Throws also for what went wrong before.
  void finish(const NewtonSummary& summary, const nlohmann::ordered_json& run, ExitCode code);

  /// Local. Sets the state "failed", or "stopped" for the code of a stop; as this is said on the way out of an error,
  /// its own failures are ignored. A lack of memory is none.
  void fail(ExitCode code) noexcept;
  /// Local. The same for the directory of this process, if there is one, where the process ends without unwinding.
  static void fail_at_once(ExitCode code) noexcept;

 private:
  RunDirectory(const Communicator& communicator, std::string path);
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  template <class Write>
  void write_on_root(std::string_view name, Write&& write);
  bool has_results() const;
  void refuse_finished_run() const;
  void replace_results(std::string_view first);
  void remove_temporaries() const;
  void reserve(const std::string& name, std::int64_t bytes);
  std::unique_ptr<OutputFile> space_for(std::string_view name);
  void write_history(const IterationRecord& record, std::optional<int> target);
  void add_to_history(std::string_view bytes);
  void reopen_history(std::int64_t bytes);
  void write_status(std::string_view state, const ExitCode* code);
  void write_status_without_memory(ExitCode code) const noexcept;

  Communicator communicator_;
  std::string path_;
  std::exception_ptr failure_;  // the first of record and refresh_status, for finish
  std::vector<std::string> files_;
  RunLock lock_;
  RunOwner owner_;                                           // the process of rank 0
  std::string status_path_, status_temporary_, status_end_;  // for `write_status_without_memory`
  std::map<std::string, std::unique_ptr<OutputFile>, std::less<>> reserved_;
  FileDescriptor history_;
  std::int64_t history_bytes_ = 0;
  std::string_view live_history_ = "history.csv";
  bool is_replacing_ = false;
  std::mutex status_mutex_;  // of status.json, and what is next
  bool is_running_ = false;  // rank 0 says so there
  std::atomic<int> last_iteration_ = 0;
  std::atomic<double> last_relative_gradient_ = 0;
  std::chrono::steady_clock::time_point next_status_;
};

/// Local. Creates the directory, and checks that files of these names can be written there. Throws `OutputError` (this
/// rank), also if one of them is there, unless `force`; whole: what --force replaces, "run".
void prepare_directory(const std::string& directory, const std::vector<std::string>& names, bool force,
                       std::string_view whole);

/// The directory of a command that writes report.json, with --output, --force and --json.
class ReportDirectory {
 public:
  /// Collective. Without --output nothing is ever written. Throws `OutputError` on all ranks.
  ReportDirectory(const Communicator& communicator, const Arguments& arguments);

  bool is_used() const { return !path_.empty(); }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Collective. Writes report.json, and prints it if there is --json, else `text`. Throws `OutputError` on all ranks.
  void finish(const nlohmann::ordered_json& report, const std::string& text) const;

 private:
  const Communicator& communicator_;
  const Arguments& arguments_;
  std::string path_;
};

}  // namespace attnreg::app
