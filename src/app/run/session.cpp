#include "app/run/session.hpp"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/report/verdict.hpp"
#include "app/run/timing.hpp"
#include "errors/faults.hpp"
#include "errors/lone_failure.hpp"
#include "errors/printable.hpp"
#include "files/source_name.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

std::string working_directory() {
  std::error_code ignored;
  return std::filesystem::current_path(ignored).string();
}

std::string right(const std::string& text, std::size_t width) {
  return text.size() < width ? std::string(width - text.size(), ' ') + text : " " + text;
}

}  // namespace

OptionGroup session_options(std::string_view output_help, std::vector<Option> more) {
  more.insert(more.begin(), {"output", 'o', "DIR", Text{}, "", output_help});
  more.insert(more.end(), {{"force", 0, "", Switch{}, "", "replace a finished run in DIR"},
                           {"report", 0, "", Switch{}, "", "also write report.html, a page on the run, there"},
                           json_option("print run.json in place of the page"),
                           {"quiet", 'q', "", Switch{}, "", "no step lines"},
                           {"verbose", 'v', "", Switch{}, "", "say more about files, ranks and memory"},
                           {"checkpoint", 0, "SECONDS", Number{}, "60",
                            "leave a checkpoint in DIR every so many seconds, for `attnreg resume DIR`; 0: every "
                            "iteration"}});
  return {"Output", std::move(more)};
}

void check_session_options(const Arguments& arguments, std::vector<std::string_view> with_output) {
  arguments.exclude("quiet", "verbose");
  with_output.insert(with_output.end(), {"force", "report", "checkpoint"});
  if (arguments.given("output")) return;
  for (const auto name : with_output) arguments.refuse({name}, "needs a run directory; add -o DIR");
}

std::string Session::resume_text() const { return "; `attnreg resume " + printable(directory_.path()) + "` goes on"; }

Session::Session(const Communicator& communicator, const Arguments& arguments)
    : communicator_(communicator),
      arguments_(arguments),
      threads_(set_threads(communicator, arguments)),
      clock_(communicator),
      directory_(communicator, arguments.text("output"), arguments.on("force"),
                 arguments.resumed() ? std::optional(arguments.resumed()->history_bytes) : std::nullopt) {}

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
void Session::write_checkpoint() {
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
    if (directory_.is_used() && communicator_.is_root()) while_silent_.emplace([this] { directory_.show_work(); });
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
    if (communicator_.is_root() || !agreed) directory_.fail(agreed ? error.code() : code_of_lone_failure());
    if (directory_.is_used() && !checkpoint_.has_begun()) slots_.remove();
    throw;
  } catch (...) {
    directory_.fail(code_of_lone_failure());
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

void Session::end(const Ending& ending) {
  StopsEndPhases::end();
  if (communicator_.is_stopped() && communicator_.is_root())
    print_line("attnreg: " + stop_text() + ": the best x so far is the result" +
               (has_checkpoint_ ? resume_text() : ""));
  if (directory_.is_used() && journal_->is_cut_off() && !communicator_.is_stopped())
    write_checkpoint();  // of a time limit
  const InPhase writing(Phase::write);
  note_activity("writing");
  faults::at("before-write");
  nlohmann::ordered_json run = ending.run();
  run["page"] = ending.page({});
  const auto print = [&](const std::vector<std::string>& files) {
    while_silent_.reset();
    print_result(communicator_, arguments_.on("json")
                                    ? json_text(run)
                                    : to_width(ending.page(files) + timing_text(run_timing(communicator_))));
  };
  try {
    ending.write();
    directory_.finish(ending.summary, run, ending.code);
  } catch (const OutputError&) {
    print({});
    throw;
  }
  if (directory_.is_used() && !journal_->is_cut_off()) slots_.remove();
  print(directory_.files());
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

void Session::print_step(const std::string& name, const IterationRecord& record) {
  if (arguments_.on("quiet") || !communicator_.is_root()) return;
  const bool verbose = arguments_.on("verbose"), stepped = record.iteration > 0;
  const auto if_stepped = [&](double value) { return stepped ? scientific(value, 3) : "-"; };
  if (!std::exchange(header_printed_, true))
    print_line(verbose
                   ? padded("start", 15) + right("it", 4) + right("L", 13) + right("|g|/ref", 9) + right("step", 9) +
                         right("radius", 9) + right("reads", 7) + right("sums", 6) + right("seconds", 8)
                   : padded("start", 15) + right("it", 5) + right("L", 17) + right("|g|/|g_ref|", 12) +
                         right("step", 11) + right("reads", 10) + right("seconds", 10));
  std::string line = padded(name, 15);
  if (verbose)
    line += right(std::to_string(record.iteration), 4) + right(scientific(record.value, 6), 13) +
            right(scientific(record.relative_gradient, 3), 9) + right(if_stepped(record.step), 9) +
            right(if_stepped(record.radius), 9) + right(fixed(record.reads_of_a, 1), 7) +
            right(std::to_string(record.collectives), 6) + right(fixed(record.seconds, 2), 8);
  else
    line += right(std::to_string(record.iteration), 5) + right(scientific(record.value, 9), 17) +
            right(scientific(record.relative_gradient, 3), 12) + right(if_stepped(record.step), 11) +
            right(fixed(record.reads_of_a, 1), 10) + right(fixed(record.seconds, 2), 10);
  print_line(line);
}

namespace {

/// What tells the solves of one run apart: "w 1.00e-05", else the start.
std::string name_of(const IterationRecord& record) {
  return std::isnan(record.weight) ? record.start : "w " + scientific(record.weight, 3);
}

}  // namespace

std::function<void(const IterationRecord&)> Session::on_iteration() {
  return [this](const IterationRecord& record) {
    const std::string name = name_of(record);
    note_activity(name + (name.empty() ? "" : ", ") + "iteration " + std::to_string(record.iteration));
    faults::at("in-iteration");
    print_step(name, record);
    directory_.record(record);
  };
}

std::function<void(const IterationRecord&)> Session::on_start_iteration() {
  return [this](const IterationRecord& record) {
    note_activity("start, iteration " + std::to_string(record.iteration));
    print_step("start", record);
    directory_.refresh_status(record);
  };
}

std::function<void(int target, const IterationRecord&)> Session::on_target_iteration() {
  return [this](int target, const IterationRecord& record) {
    const std::string name = "target " + std::to_string(target);
    note_activity(name + ", iteration " + std::to_string(record.iteration));
    faults::at("in-iteration");
    print_step(record.start.starts_with("random") ? std::to_string(target) + " " + record.start : name, record);
    directory_.record(record, target);
  };
}

nlohmann::ordered_json Session::run_json(const std::vector<InputFile>& files, Index tile_rows) const {
  auto ranks_on_node =
      communicator_.all_gather(communicator_.leads_process() ? std::int64_t{communicator_.processes_on_node()} : 0);
  std::erase(ranks_on_node, 0);
  auto inputs = nlohmann::ordered_json::object();
  for (const auto& file : files) inputs[file.role] = to_json(file);
  auto run = document_of("run", arguments_);
  run.update({{"command", arguments_.syntax().name},
              {"directory", working_directory()},
              {"build", build_facts()},
              {"layout",
               {{"ranks", communicator_.processes()},
                {"ranks_per_node", ranks_on_node},
                {"threads", threads_.threads},
                {"cores", threads_.cores},
                {"tile_rows", tile_rows},
                {"blocks", communicator_.is_of_blocks() ? communicator_.size() : 0}}},
              {"inputs", inputs},
              {"resumed", checkpoint_.resumed}});
  return run;
}

}  // namespace attnreg::app
