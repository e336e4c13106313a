#pragma once

#include <chrono>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/communicator.hpp"
#include "attnreg/regression.hpp"
#include "attnreg/row_partition.hpp"
#include "files/file_descriptor.hpp"

namespace attnreg::app {

/// The files of one solve: x.npy, f.npy, run.json, history.csv and status.json in one directory.
/// Rank 0 writes, but for f.npy. A file of an earlier run is replaced whole, when the new one is complete.
class RunDirectory {
 public:
  /// Collective. Creates the directory and checks that a file can be written there. Throws `OutputError` on all ranks,
  /// also for a directory that holds a finished run, unless `force`. With an empty path nothing is ever written.
  RunDirectory(const Communicator& communicator, std::string path, bool force);

  bool is_used() const { return !path_.empty(); }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }

  /// Local. Adds a line to history.csv, and refreshes status.json once a second. A failure to write is kept for
  /// `finish`: the solve goes on. Of several targets each line begins with the target, from 0.
  void record(const IterationRecord& record, std::optional<int> target = std::nullopt) noexcept;
  /// Local. For records that are not part of the history.
  void record_start(const IterationRecord& record) noexcept { refresh_status(record); }

  /// Collective. Writes x_path.npy, one row of d values per weight, and path.csv. Throws `OutputError` on all ranks.
  void write_path(const std::vector<double>& weights, const std::vector<RegressionResult>& path);

  /// Collective. Writes a matrix whose rows are spread over the ranks, row-major. Throws `OutputError` on all ranks.
  void write_rows(std::string_view name, const RowMajorMatrix& rows, const RowPartition& partition);

  /// Collective. Writes a file of text. Throws `OutputError` on all ranks.
  void write_text(std::string_view name, const std::string& text);

  /// An array that rank 0 writes.
  struct Array {
    std::string_view name;  ///< "x.npy"
    std::span<const double> values;
    std::vector<std::int64_t> shape;
  };

  /// Collective. Throws `OutputError` on all ranks.
  void write_arrays(const std::vector<Array>& arrays);

  /// Collective. Writes the arrays, run.json, and at last status.json with the state "done". Removes `stale`, the files
  /// of an earlier run that do not belong to this one. Throws `OutputError` on all ranks, also for what went wrong
  /// before.
  void finish(const NewtonSummary& summary, const std::vector<Array>& arrays,
              const std::vector<std::string_view>& stale, const nlohmann::ordered_json& run, ExitCode code);
  /// Collective. The same for x.npy, and f.npy if `with_fitted`.
  void finish(const RegressionResult& result, const RowPartition& partition, bool with_fitted,
              const nlohmann::ordered_json& run, ExitCode code);

  /// Local. Sets the state "failed"; as this is said on the way out of an error, its own failures are ignored.
  void fail(ExitCode code) const noexcept;

 private:
  void refuse_finished_run() const;
  void write_history(const IterationRecord& record, std::optional<int> target);
  void refresh_status(const IterationRecord& record) noexcept;
  void write_status(std::string_view state, const ExitCode* code) const;

  Communicator communicator_;
  std::string path_, error_;
  FileDescriptor history_;
  IterationRecord last_;
  std::chrono::steady_clock::time_point next_status_;
};

}  // namespace attnreg::app
