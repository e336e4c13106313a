#include "app/run/session.hpp"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/options/commands.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "errors/faults.hpp"
#include "errors/printable.hpp"
#include "files/source_name.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

std::string right(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : " " + text;
}

}  // namespace

OptionGroup session_options(std::string_view output_help, std::vector<Option> more) {
  more.insert(more.begin(), {"output", 'o', "DIR", Text{}, "", output_help});
  more.insert(more.end(), {{"force", 0, "", Switch{}, "", "replace a finished run in DIR"},
                           {"quiet", 'q', "", Switch{}, "", "no step lines"},
                           {"verbose", 'v', "", Switch{}, "", "say more about files, ranks and memory"},
                           {"checkpoint", 0, "SECONDS", Number{}, "60",
                            "leave a checkpoint in DIR every so many seconds, for `attnreg resume DIR`; 0: every "
                            "iteration"},
                           help_option()});
  return {"Output", std::move(more)};
}

void check_session_options(const Arguments& arguments, std::vector<std::string_view> with_output) {
  arguments.exclude("quiet", "verbose");
  with_output.insert(with_output.end(), {"force", "checkpoint"});
  if (arguments.given("output")) return;
  for (const auto name : with_output) arguments.refuse({name}, "needs a run directory; add -o DIR");
}

std::string Session::resume_text() const { return "; `attnreg resume " + printable(directory_.path()) + "` goes on"; }

Session::Session(const Communicator& communicator, const Arguments& arguments)
    : communicator_(communicator),
      arguments_(arguments),
      threads_(set_threads(communicator, arguments)),
      directory_(communicator, arguments.text("output"), arguments.on("force"),
                 arguments.resumed() ? std::optional(arguments.resumed()->history_bytes) : std::nullopt),
      clock_(communicator) {}

std::shared_ptr<Journal> Session::journal(std::function<void()> write) const {
  constexpr int kIterations = 20;  // between checkpoints of blocks: one is about as dear as an iteration
  const double interval = arguments_.number("checkpoint");
  Journal::Cadence cadence;
  if (communicator_.is_of_blocks()) {
    const auto has = [&](std::string_view name) { return arguments_.knows(name) && arguments_.has(name); };
    const bool several = has("weights-path") || (has("starts") && arguments_.integer("starts") > 0);
    cadence = interval == 0 ? Journal::Cadence{1, true} : Journal::Cadence{kIterations, several};
  }
  return std::make_shared<Journal>(interval, std::move(write), cadence);
}

/// The first has the command only, from which a run that is killed before another one starts again.
void Session::start_checkpoints() {
  journal_ = journal([this] { write_checkpoint(); });
  const Checkpoint* const before = arguments_.resumed();
  if (before != nullptr) {
    checkpoint_ = *before;
    ++checkpoint_.resumed;
    journal_->resume(std::move(checkpoint_.stages));
  } else {
    checkpoint_.words = arguments_.words();
    checkpoint_.directory = std::filesystem::current_path();
  }
  communicator_.agree_on_root([&] {
    slots_ = CheckpointSlots(directory_.path(), before != nullptr);
    write_checkpoint();
  });
  if (before == nullptr || !communicator_.is_root() || (arguments_.on("quiet") && before->has_begun())) return;
  print_line("attnreg: resumed from the checkpoint of " + before->written +
             (before->has_begun() ? "" : ", which has no iteration yet: the run starts from the beginning"));
}

/// Those of a run that goes on must be the ones that it began with.
void Session::remember_inputs(const std::vector<InputFile>& files) {
  communicator_.agree_on_root([&] {
    std::vector<std::string> paths = arguments_.texts_but({"output"});
    for (const auto& file : files)
      for (const auto& path : files_of(file.header.path)) paths.push_back(path);
    auto found = identities(paths);
    for (const auto& [path, identity] : checkpoint_.inputs.items())
      if (!found.contains(path) || found[path] != identity)
        throw CheckpointError(printable(path) +
                              " has changed since the run began; run the command again, with --force");
    checkpoint_.inputs = std::move(found);
  });
}

/// On rank 0. That a run has no checkpoint is said once, and does not end it.
void Session::write_checkpoint() noexcept {
  if (!communicator_.is_root()) return;
  try {
    checkpoint_.stages = journal_->kept();
    checkpoint_.history_bytes = directory_.history_bytes();
    checkpoint_.written = utc_time(std::time(nullptr));
    slots_.write(checkpoint_);
    has_checkpoint_ = true;
  } catch (const std::exception& error) {
    if (!std::exchange(checkpoint_failed_, true))
      print_line(std::string("attnreg: warning: no checkpoint: ") + error.what());
  }
}

/// Collective. After a stop: whether there is one to go on from.
bool Session::leaves_checkpoint() {
  if (!directory_.is_used()) return false;
  journal_->cut_off();
  write_checkpoint();
  return communicator_.max(std::int64_t{has_checkpoint_}) != 0;
}

ExitCode Session::run() {
  try {
    if (directory_.is_used())
      start_checkpoints();
    else if (communicator_.is_of_blocks())
      journal_ = journal([] {});  // for the same bits as with a run directory
    return load_and_solve();
  } catch (const Error& error) {
    const bool agreed = error.scope() == Error::Scope::all_ranks;
    if (agreed && error.code() == ExitCode::limit) {
      StopsEndPhases::end();
      if (leaves_checkpoint()) {
        directory_.fail(ExitCode::stopped);
        throw Error(ExitCode::stopped, error.what() + resume_text(), Error::Scope::all_ranks);
      }
    }
    if (communicator_.is_root() || !agreed) directory_.fail(agreed ? error.code() : ExitCode::internal);
    if (directory_.is_used() && !checkpoint_.has_begun()) slots_.remove();
    throw;
  } catch (...) {
    directory_.fail(ExitCode::internal);
    throw;
  }
}

void Session::begin(const std::vector<InputFile>& files, double bytes_needed, const std::string& what) {
  double numbers = 0;
  for (const auto& file : files)
    numbers += static_cast<double>(file.nonzeros ? *file.nonzeros : file.header.elements());
  use_fewer_threads(threads_, numbers / communicator_.size());
  if (communicator_.is_root()) describe(files, bytes_needed);
  note_activity("loading");
  if (directory_.is_used()) remember_inputs(files);
  require_memory(communicator_, bytes_needed, what);
}

void Session::ready(const std::vector<RunDirectory::Array>& arrays, bool ends_on_stop) {
  directory_.reserve(arrays);
  if (ends_on_stop) StopsEndPhases::end();
}

ExitCode Session::code_of(Termination termination) {
  const ExitCode code = exit_code(termination);
  return code == ExitCode::limit && communicator_.is_stopped() && leaves_checkpoint() ? ExitCode::stopped : code;
}

void Session::end(const std::function<void()>& write,
                  const std::function<std::string(const std::vector<std::string>& files)>& page) {
  StopsEndPhases::end();
  if (communicator_.is_stopped() && communicator_.is_root())
    print_line("attnreg: " + stop_text() + ": the best x so far is the result" +
               (has_checkpoint_ ? resume_text() : ""));
  if (directory_.is_used() && journal_->is_cut_off() && !communicator_.is_stopped())
    write_checkpoint();  // of a time limit
  note_activity("writing");
  faults::at("before-write");
  try {
    write();
  } catch (const OutputError&) {
    print_result(communicator_, page({}));
    throw;
  }
  if (directory_.is_used() && !journal_->is_cut_off()) slots_.remove();
  print_result(communicator_, page(directory_.files()));
}

void Session::describe(const std::vector<InputFile>& files, double bytes_needed) const {
  if (arguments_.on("quiet")) return;
  if (threads_.crowded())
    print_line("attnreg: note: " + counted(threads_.ranks_on_cores, "rank") + " with " +
               counted(threads_.threads, "thread") + " each share " + counted(threads_.cores, "core"));
  if (!arguments_.on("verbose")) return;
  for (const auto& file : files)
    print_line("attnreg: " + file.role + ": " + printable(file.header.path) + ", " + file.header.shape_text() + " " +
               file.header.dtype_text() + (file.nonzeros ? ", " + std::to_string(*file.nonzeros) + " entries" : "") +
               ", " + std::to_string(file.header.disk_bytes) + " bytes");
  print_line("attnreg: " + counted(communicator_.processes(), "rank") + ", " +
             std::to_string(communicator_.processes_on_node()) + " on this node, " +
             counted(threads_.threads, "thread") + " each" +
             (communicator_.is_of_blocks() ? ", " + counted(communicator_.size(), "block") + " in all" : ""));
  print_line("attnreg: memory: at least " + plain(bytes_needed / 1e6, 4) + " MB per rank, " +
             plain(available_node_memory() / 1e6, 4) + " MB available on this node");
}

void Session::print_step(const std::string& phase, const IterationRecord& record) {
  if (arguments_.on("quiet") || !communicator_.is_root()) return;
  const bool verbose = arguments_.on("verbose"), stepped = record.iteration > 0;
  if (!std::exchange(header_printed_, true))
    print_line(right("iteration", 9) + right("L", 17) + right("|g|/|g_ref|", 13) + right("step", 11) +
               right("radius", 11) + right("reads of A", 12) + (verbose ? right("collectives", 13) : "") +
               right("seconds", 11));
  print_line(right(phase + std::to_string(record.iteration), 9) + right(scientific(record.value, 9), 17) +
             right(scientific(record.relative_gradient, 3), 13) +
             right(stepped ? scientific(record.step, 3) : "-", 11) +
             right(stepped ? scientific(record.radius, 3) : "-", 11) + right(fixed(record.reads_of_a, 1), 12) +
             (verbose ? right(std::to_string(record.collectives), 13) : "") + right(fixed(record.seconds, 3), 11));
}

std::function<void(const IterationRecord&)> Session::on_iteration() {
  return [this](const IterationRecord& record) {
    note_activity("iteration " + std::to_string(record.iteration));
    faults::at("in-iteration");
    print_step("", record);
    directory_.record(record);
  };
}

std::function<void(const IterationRecord&)> Session::on_start_iteration() {
  return [this](const IterationRecord& record) {
    note_activity("start, iteration " + std::to_string(record.iteration));
    print_step("start ", record);
    directory_.refresh_status(record);
  };
}

std::function<void(int target, const IterationRecord&)> Session::on_target_iteration() {
  return [this](int target, const IterationRecord& record) {
    note_activity("target " + std::to_string(target) + ", iteration " + std::to_string(record.iteration));
    faults::at("in-iteration");
    print_step(std::to_string(target) + ": ", record);
    directory_.record(record, target);
  };
}

nlohmann::ordered_json Session::run_json(const std::vector<InputFile>& files, Index tile_rows) const {
  auto ranks_on_node =
      communicator_.all_gather(communicator_.leads_process() ? std::int64_t{communicator_.processes_on_node()} : 0);
  std::erase(ranks_on_node, 0);
  nlohmann::ordered_json inputs;
  for (const auto& file : files) inputs[file.role] = to_json(file);
  return {{"schema", "attnreg-run-1"},
          {"command", arguments_.syntax().name},
          {"configuration", arguments_.configuration()},
          {"build", build_facts()},
          {"layout",
           {{"ranks", communicator_.processes()},
            {"ranks_per_node", ranks_on_node},
            {"threads", threads_.threads},
            {"cores", threads_.cores},
            {"tile_rows", tile_rows},
            {"blocks", communicator_.is_of_blocks() ? communicator_.size() : 0}}},
          {"inputs", inputs},
          {"resumed", checkpoint_.resumed}};
}

}  // namespace attnreg::app
