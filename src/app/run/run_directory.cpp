#include "app/run/run_directory.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/options/commands.hpp"
#include "app/options/parsed_json.hpp"
#include "app/report/text.hpp"
#include "app/run/checkpoint.hpp"
#include "app/run/progress_line.hpp"
#include "app/run/timing.hpp"
#include "attnreg/error.hpp"
#include "attnreg/files.hpp"
#include "errors/faults.hpp"
#include "errors/lone_failure.hpp"
#include "errors/printable.hpp"
#include "files/directory_names.hpp"
#include "files/input_file.hpp"
#include "files/output_file.hpp"
#include "ranks/span_of.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::seconds kStatusInterval{1};
constexpr const char* kStatusSchema = "attnreg-status-1";
constexpr const char* kLateHistory = "history.partial.csv";  // while the results of an earlier run are there
constexpr std::int64_t kHeaderBytes = 256, kStatusBytes = 1 << 12, kRunBytes = 1 << 16;  // reserved

constexpr std::string_view kHistoryHeader =
    "iteration,value,gradient_norm,relative_gradient,step,radius,cg_iterations,reads_of_a,collectives,seconds,start,"
    "target,weight\n";

std::string history_line(const IterationRecord& record, std::optional<int> target) {
  std::string line = std::to_string(record.iteration);
  for (const double value : {record.value, record.gradient_norm, record.relative_gradient, record.step, record.radius})
    line += "," + exact(value);
  return line + "," + std::to_string(record.cg_iterations) + "," + exact(record.reads_of_a) + "," +
         std::to_string(record.collectives) + "," + exact(record.seconds) + "," + record.start + "," +
         (target ? std::to_string(*target) : "") + "," + (std::isnan(record.weight) ? "" : exact(record.weight)) + "\n";
}

void write_all(const FileDescriptor& file, const std::string& path, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = faults::transfer("write", bytes.size(), [&](std::size_t length) {
      return retry_interrupted([&] { return ::write(file.get(), bytes.data(), length); });
    });
    if (done <= 0) throw OutputError("cannot write " + printable(path) + ": " + std::strerror(done < 0 ? errno : EIO));
    bytes.remove_prefix(static_cast<std::size_t>(done));
  }
}

/// A new file for lines that appear at once. One that is there loses this name only: another name may be an input.
FileDescriptor open_lines(const std::string& path) {
  check_output(path, true);
  ::unlink(path.c_str());
  FileDescriptor file(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  if (!file.is_open()) throw OutputError("cannot write " + printable(path) + ": " + std::strerror(errno));
  return file;
}

/// What a run may write, whatever its options; what says that a run is finished comes first.
constexpr std::array<const char*, 16> kResults{
    "run.json", "x.npy",    "f.npy",       "x_path.npy",  "X.npy",      "Y.npy",       "P.npy",       "Q.npy",
    "F.npy",    "path.csv", "targets.csv", "history.csv", kLateHistory, "timing.json", "report.html", "status.json"};

std::atomic<RunDirectory*> of_process;  // any, of several blocks: they have the same files

const char* state_of_failure(ExitCode code) {
  return code == ExitCode::limit || code == ExitCode::stopped ? "stopped" : "failed";
}

void remove_regular(const std::filesystem::path& path) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(std::filesystem::symlink_status(path, ignored)))
    std::filesystem::remove(path, ignored);
}

}  // namespace

RunDirectory::RunDirectory(const Communicator& communicator, std::string path)
    : communicator_(communicator),
      path_(std::move(path)),
      status_path_(file("status.json")),
      status_temporary_(status_path_ + ".tmp." + std::to_string(::getpid()) + ".last"),
      next_status_(Clock::now() + kStatusInterval) {}

RunDirectory::RunDirectory(const Communicator& communicator, std::string path, bool force,
                           std::optional<std::int64_t> resumed_history)
    : RunDirectory(communicator, std::move(path)) {
  if (!is_used()) return;
  try {
    communicator_.agree_on_root([&] {
      create_directories(path_);
      lock_ = RunLock(path_);
      owner_ = this_process();
      if (!force && !resumed_history) refuse_finished_run();
      for (const char* const name : kResults)
        if (is_input(file(name)))
          throw OutputError(printable(file(name)) +
                            " is an input, which the run would replace; choose another directory");
      remove_temporaries();
      if (has_results()) live_history_ = kLateHistory;
      if (resumed_history) reopen_history(*resumed_history);
      reserve("status.json", kStatusBytes);  // however full the disk gets, how the run ended can be said
    });
    const std::string owner = communicator_.broadcast(to_json(owner_).dump());
    owner_ = owner_in(nlohmann::ordered_json::parse(owner)).value_or(owner_);
    status_end_ = json_text(to_json(owner_)).substr(1);
    of_process = this;
    communicator_.agree_on_root([&] {
      is_running_ = true;
      write_status("running", nullptr);
    });
  } catch (const Error& error) {
    const bool agreed = error.scope() == Error::Scope::all_ranks;
    const bool goes_on = resumed_history && error.code() == ExitCode::limit;  // a stop
    if (agreed ? is_running_ : !status_end_.empty())
      fail(!agreed ? code_of_lone_failure() : goes_on ? ExitCode::stopped : error.code());
    throw;
  } catch (...) {
    if (!status_end_.empty()) fail(code_of_lone_failure());
    throw;
  }
}

RunDirectory::~RunDirectory() {
  RunDirectory* self = this;
  of_process.compare_exchange_strong(self, nullptr);
  if (is_running_) fail(ExitCode::internal);
}

/// Of runs that were killed; as this one has the lock, no other is there.
void RunDirectory::remove_temporaries() const {
  std::error_code ignored;
  for (const std::string& entry : names_in(path_, ignored))
    for (const char* const name : kResults)
      if (entry.starts_with(std::string(name) + ".tmp.")) remove_regular(file(entry));
}

void RunDirectory::reserve(const std::vector<Array>& arrays) {
  if (!is_used()) return;
  communicator_.agree_on_root([&] {
    for (const auto& [name, numbers] : arrays)
      reserve(name, kHeaderBytes + numbers * static_cast<std::int64_t>(sizeof(double)));
    reserve("run.json", kRunBytes);
  });
}

/// Before the first result: those of an earlier run go, but for the one that this one replaces.
void RunDirectory::replace_results(std::string_view first) {
  if (std::exchange(is_replacing_, true)) return;
  for (const std::string_view name : kResults)
    if (name != "status.json" && name != first && name != live_history_) remove_regular(file(name));
}

void RunDirectory::reserve(const std::string& name, std::int64_t bytes) {
  auto space = std::make_unique<OutputFile>(file(name));
  space->reserve(bytes);
  reserved_[name] = std::move(space);
}

/// What was reserved, else a new file.
std::unique_ptr<OutputFile> RunDirectory::space_for(std::string_view name) {
  const auto found = reserved_.find(name);
  if (found == reserved_.end()) return std::make_unique<OutputFile>(file(name));
  auto space = std::move(found->second);
  reserved_.erase(found);
  return space;
}

bool RunDirectory::has_results() const {
  std::error_code ignored;
  return std::filesystem::exists(file("x.npy"), ignored) || std::filesystem::exists(file("X.npy"), ignored) ||
         std::filesystem::exists(file("run.json"), ignored);
}

void RunDirectory::refuse_finished_run() const {
  bool finished = has_results();
  std::ifstream status_file(file("status.json"));
  const auto status = parsed_json(status_file);
  finished = finished || (status.is_object() && status.contains("state") && status["state"] == "done");
  bool goes_on = false;
  try {
    goes_on = CheckpointSlots::read(path_).has_begun();
  } catch (const CheckpointError&) {  // nothing that would be lost
  }
  if (!finished && goes_on)
    throw OutputError(printable(path_) + " holds the checkpoint of a run that is not finished; `attnreg resume " +
                      printable(path_) + "` goes on with it, --force begins anew");
  if (finished)
    throw OutputError(printable(path_) +
                      " holds a finished run; choose another directory for -o, or add --force to replace the run" +
                      (goes_on ? "; `attnreg resume " + printable(path_) + "` goes on with it" : ""));
}

void RunDirectory::record(const IterationRecord& record, std::optional<int> target) noexcept {
  try {
    if (is_used() && communicator_.is_root() && !failure_) write_history(record, target);
  } catch (const std::exception&) {
    failure_ = std::current_exception();
  }
  refresh_status(record);
}

void RunDirectory::write_history(const IterationRecord& record, std::optional<int> target) {
  const std::string path = file(live_history_);
  if (!history_.is_open()) {
    check_output(file("history.csv"), true);
    history_ = open_lines(path);
    add_to_history(kHistoryHeader);
  }
  add_to_history(history_line(record, target));
}

void RunDirectory::add_to_history(std::string_view bytes) {
  write_all(history_, file(live_history_), bytes);
  history_bytes_ += std::ssize(bytes);
}

/// What an earlier process wrote up to its checkpoint; a new one begins where that is not there any more. Of a run that
/// was stopped it has the last name already, beside results that are going to be replaced.
void RunDirectory::reopen_history(std::int64_t bytes) {
  std::error_code ignored;
  if (live_history_ == kLateHistory && !std::filesystem::exists(file(kLateHistory), ignored))
    std::filesystem::rename(file("history.csv"), file(kLateHistory), ignored);
  FileDescriptor lines(::open(file(live_history_).c_str(), O_WRONLY | O_NOFOLLOW | O_CLOEXEC));
  if (bytes == 0 || !lines.is_open() || ::lseek(lines.get(), 0, SEEK_END) < bytes) return;
  if (::ftruncate(lines.get(), bytes) != 0 || ::lseek(lines.get(), 0, SEEK_END) != bytes)
    throw OutputError("cannot write " + printable(file(live_history_)) + ": " + std::strerror(errno));
  history_ = std::move(lines);
  history_bytes_ = bytes;
}

void RunDirectory::refresh_status(const IterationRecord& record) noexcept {
  last_iteration_ = record.iteration;  // on every rank: any of them may have to say where it failed
  last_relative_gradient_ = record.relative_gradient;
  const std::lock_guard lock(status_mutex_);
  try {
    if (!is_used() || !communicator_.is_root()) return;
    if (Clock::now() < next_status_) return;
    write_status("running", nullptr);
  } catch (const std::exception&) {
    if (!failure_) failure_ = std::current_exception();
  }
  next_status_ = Clock::now() + kStatusInterval;
}

/// write(path) on rank 0.
template <class Write>
void RunDirectory::write_on_root(std::string_view name, Write&& write) {
  if (!is_used()) return;
  communicator_.agree_on_root([&] {
    replace_results(name);
    write(file(name));
  });
  files_.push_back(file(name));
}

void RunDirectory::write_array(std::string_view name, std::span<const double> values,
                               const std::vector<std::int64_t>& shape) {
  write_on_root(name, [&](const std::string& path) { write_npy(*space_for(name), path, values, shape); });
}

void RunDirectory::write_matrix(std::string_view name, const RowMajorMatrix& matrix) {
  if (matrix.size() > 0) write_array(name, span_of(matrix), {matrix.rows(), matrix.cols()});
}

void RunDirectory::write_text(std::string_view name, const std::string& text) {
  write_on_root(name, [&](const std::string& path) { write_file(path, text); });
}

void RunDirectory::write_rows(std::string_view name, std::span<const double> values, const RowPartition& partition,
                              const std::vector<std::int64_t>& shape) {
  if (!is_used()) return;
  NpyWriter writer(communicator_, file(name), Storage::float64, shape);
  writer.write_rows(partition.begin(communicator_.rank()), values);
  communicator_.agree_on_root([&] { replace_results(name); });
  writer.commit();
  files_.push_back(file(name));
}

void RunDirectory::finish(const NewtonSummary& summary, const nlohmann::ordered_json& run, ExitCode code) {
  last_iteration_ = summary.iterations;
  last_relative_gradient_ = summary.relative_gradient;
  write_on_root("run.json", [&](const std::string& /*path*/) {
    if (history_.is_open() && !failure_ &&
        !(history_.close() &&
          (live_history_ != kLateHistory || ::rename(file(live_history_).c_str(), file("history.csv").c_str()) == 0)))
      failure_ = std::make_exception_ptr(OutputError("cannot write " + printable(file("history.csv"))));
    write_file(*space_for("run.json"), json_text(run));
    if (failure_) std::rethrow_exception(failure_);
  });
  const RunTiming timing = run_timing(communicator_);
  write_on_root("timing.json", [&](const std::string& path) {
    write_file(path, json_text(timing_file(timing, communicator_.size())));
    const std::lock_guard lock(status_mutex_);
    is_running_ = false;
    const bool may_go_on = code == ExitCode::limit || code == ExitCode::stopped;
    write_status(may_go_on && communicator_.is_stopped() ? "stopped" : "done", &code);
    lock_ = RunLock();
  });
  if (!is_used()) return;
  for (const std::string_view name : {"history.csv", "status.json"}) files_.push_back(file(name));
}

void RunDirectory::show_work() noexcept {
  if (!is_used() || !communicator_.is_root()) return;
  const std::lock_guard lock(status_mutex_);
  try {
    if (is_running_) write_status("running", nullptr);
  } catch (const std::exception&) {
    // The rank itself will notice.
  }
}

void RunDirectory::fail(ExitCode code) noexcept {
  if (!is_used()) return;
  const std::lock_guard lock(status_mutex_);
  is_running_ = false;
  try {
    write_status(state_of_failure(code), &code);
  } catch (const std::bad_alloc&) {
    write_status_without_memory(code);
  } catch (const std::exception&) {
    // The error that led here is the one to report.
  }
  lock_ = RunLock();
}

void RunDirectory::fail_at_once(ExitCode code) noexcept {
  if (const RunDirectory* const directory = of_process) directory->write_status_without_memory(code);
}

void RunDirectory::write_status(std::string_view state, const ExitCode* code) {
  nlohmann::ordered_json status{{"schema", kStatusSchema},
                                {"state", state},
                                {"iteration", last_iteration_.load()},
                                {"relative_gradient", last_relative_gradient_.load()},
                                {"exit_code", nullptr},
                                {"updated", utc_time(std::time(nullptr))}};
  if (code != nullptr) status["exit_code"] = static_cast<int>(*code);
  if (code == nullptr) status["work"] = to_json(work_figures());
  status.update(to_json(owner_));
  if (code != nullptr)
    write_file(*space_for("status.json"), json_text(status));
  else
    write_file(file("status.json"), json_text(status));
}

/// The file of `write_status` after the end of a run.
void RunDirectory::write_status_without_memory(ExitCode code) const noexcept {
  std::array<char, 512> begin{};
  std::array<char, 32> gradient{"null"}, updated{};
  const double relative_gradient = last_relative_gradient_;
  if (std::isfinite(relative_gradient)) std::snprintf(gradient.data(), gradient.size(), "%.17g", relative_gradient);
  const std::time_t now = std::time(nullptr);
  std::tm parts{};
  std::strftime(updated.data(), updated.size(), kUtcFormat, gmtime_r(&now, &parts));
  const int length = std::snprintf(begin.data(), begin.size(),
                                   "{\n  \"schema\": \"%s\",\n  \"state\": \"%s\",\n  \"iteration\": %d,\n"
                                   "  \"relative_gradient\": %s,\n  \"exit_code\": %d,\n  \"updated\": \"%s\",",
                                   kStatusSchema, state_of_failure(code), last_iteration_.load(), gradient.data(),
                                   static_cast<int>(code), updated.data());
  FileDescriptor file(::open(status_temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666));
  const auto writes = [&](std::string_view bytes) {
    return ::write(file.get(), bytes.data(), bytes.size()) == std::ssize(bytes);
  };
  const bool is_whole = file.is_open() && writes({begin.data(), static_cast<std::size_t>(length)}) &&
                        writes(status_end_) && ::fsync(file.get()) == 0 && file.close();
  if (!is_whole || ::rename(status_temporary_.c_str(), status_path_.c_str()) != 0) ::unlink(status_temporary_.c_str());
}

void prepare_directory(const std::string& directory, const std::vector<std::string>& names, bool force,
                       std::string_view whole) {
  create_directories(directory);
  for (const auto& name : names) {
    const std::string path = directory + "/" + name;
    if (!force && std::filesystem::exists(path))
      throw OutputError(printable(path) + " exists; choose another directory for -o, or add --force to replace the " +
                        std::string(whole));
    OutputFile check(path);
  }
}

ReportDirectory::ReportDirectory(const Communicator& communicator, const Arguments& arguments)
    : communicator_(communicator), arguments_(arguments), path_(arguments.text("output")) {
  communicator.agree_on_root([&] {
    if (is_used()) prepare_directory(path_, {"report.json"}, arguments.on("force"), "run");
  });
}

void ReportDirectory::finish(const nlohmann::ordered_json& report, const std::string& text) const {
  StopsEndPhases::end();
  communicator_.agree_on_root([&] {
    if (is_used()) write_file(file("report.json"), json_text(report));
  });
  print_result(communicator_, arguments_.on("json") ? json_text(report) : to_width(text));
}

}  // namespace attnreg::app
