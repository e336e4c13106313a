// The program `attnreg`: starts and ends MPI, chooses the command, and is the one place that catches exceptions.

#include <mpi.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <map>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "app/options/commands.hpp"
#include "app/options/settings.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/option_pages.hpp"
#include "app/report/text.hpp"
#include "app/run/progress_line.hpp"
#include "app/run/run_directory.hpp"
#include "app/run/session.hpp"
#include "errors/faults.hpp"
#include "errors/lone_failure.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/output_file.hpp"
#include "files/piped_array.hpp"
#include "files/source_name.hpp"
#include "ranks/activity.hpp"
#include "ranks/mpi_facts.hpp"
#include "ranks/stop.hpp"
#include "ranks/watchdog.hpp"

namespace attnreg::app {

void print_result(const Communicator& communicator, const std::string& text) {
  StopsEndPhases::end();
  ProgressLine::clear();
  communicator.agree_on_root([&] {
    const bool written = std::fwrite(text.data(), 1, text.size(), stdout) == text.size();
    if (std::fflush(stdout) != 0 || !written)
      throw OutputError("the result could not be written to the standard output");
  });
}

namespace {

constexpr std::string_view kExitCodes = R"(Exit codes, the same on all ranks:
   0  converged            4  stopped before     7  not enough memory
   2  wrong usage          5  breakdown          8  unusable checkpoint
   3  bad input data       6  cannot write       9  internal error
  75  stopped by a signal; `attnreg resume` goes on
)";

constexpr std::string_view kExamples = R"(Examples:
  attnreg solve A.npy b.npy --weight 1e-4 -o run
  mpirun -n 4 attnreg solve A.npy b.npy --weight 1e-5 --start cross-entropy -o run
  attnreg evaluate A.npy b.npy run/x.npy --weight 1e-4 --json
  attnreg generate practical --rows 100000 --cols 50 -o problem
)";

std::vector<Command> commands() {
  return {solve_command(),     attention_command(), evaluate_command(), predict_command(),  scores_command(),
          sample_command(),    sparsify_command(),  apply_command(),    private_command(),  experiment_command(),
          inspect_command(),   check_command(),     convert_command(),  generate_command(), doctor_command(),
          jobscript_command(), plan_command(),      status_command(),   watch_command(),    report_command(),
          resume_command()};
}

std::string main_help() {
  std::string text =
      "Usage: [mpirun -n RANKS] attnreg COMMAND ...\n\n"
      "Attention regression: finds x so that softmax(A x) reproduces b, for A with many more rows than\n"
      "columns, on any number of MPI ranks.\n\nCommands:\n";
  for (const auto& [syntax, run] : commands())
    text += "  " + padded(std::string(syntax.name), 12) + std::string(syntax.summary) + "\n";
  return to_width(text +
                  "\nOptions:\n"
                  "  -h, --help  this page; `attnreg help COMMAND` has the options of a command\n"
                  "  --version   version and build facts\n\n" +
                  std::string(kExitCodes) + "\n" + std::string(kExamples));
}

}  // namespace

const Syntax& command_syntax(const std::string& name) {
  for (const auto& command : commands())
    if (command.syntax.name == name) return command.syntax;
  throw UsageError("unknown command '" + printable(name) + "'");
}

namespace {

std::vector<std::string_view> names_of(const std::vector<Command>& commands) {
  std::vector<std::string_view> names;
  names.reserve(commands.size());
  for (const auto& command : commands) names.push_back(command.syntax.name);
  return names;
}

const Command& find_command(const std::vector<Command>& all, const std::string& name) {
  const auto found = std::ranges::find_if(all, [&](const Command& command) { return command.syntax.name == name; });
  if (found != all.end()) return *found;
  throw UsageError("unknown " + std::string(name.starts_with("-") ? "option" : "command") + " '" + printable(name) +
                   "'" + suggestion(name, names_of(all)) + "; `attnreg --help` lists the commands");
}

const std::initializer_list<std::string_view> kOutputs{"output", "gradient", "hessian", "sparse", "rank-one", "OUT"};

/// What the command line says in words of its own, but for the names of files that are to be written.
std::vector<std::string> input_texts(const Arguments& arguments) {
  std::vector<std::string> texts = arguments.texts_but(kOutputs);
  texts.insert(texts.end(), arguments.rest().begin(), arguments.rest().end());
  return texts;
}

/// Every file that the command line names, alone or in a list, but for those that are to be written: none of them will
/// be replaced.
void remember_inputs(const Arguments& arguments) {
  for (const std::string& text : input_texts(arguments)) {
    for (const auto& file : files_of(text)) remember_input(file);
    for (const char* const name : {"/X.npy", "/Y.npy"}) remember_input(text + name);  // of a run to start from
    const auto parts = parts_of(text, ',');
    for (std::size_t k = 0; k < parts.size() && parts.size() > 1; ++k)
      for (const auto& file : files_of(std::string(parts[k]))) remember_input(file);
  }
}

/// Collective. Throws if two outputs have the same name.
void require_different_outputs(const Communicator& communicator, const Arguments& arguments) {
  communicator.agree_on_root([&] {
    std::map<std::filesystem::path, std::string_view> outputs;
    for (const std::string_view name : kOutputs) {
      if (!arguments.knows(name) || !arguments.given(name) || arguments.text(name).empty()) continue;
      std::error_code failed;  // then it cannot be written, either
      const auto path = std::filesystem::weakly_canonical(arguments.text(name), failed);
      const auto [place, is_new] = outputs.try_emplace(path, name);
      if (!failed && !is_new)
        throw UsageError("--" + std::string(place->second) + " and --" + std::string(name) + " name the same file, " +
                         printable(arguments.text(name)));
    }
  });
}

/// Collective. Begins to read the standard input, if an argument is "-".
void accept_piped_input(const Communicator& communicator, const Arguments& arguments) {
  const auto is_piped = [](const std::string& text) { return SourceName(text).is_piped(); };
  const bool is_config = arguments.knows("config") && is_piped(arguments.text("config"));  // no array
  const auto piped = std::ranges::count_if(input_texts(arguments), is_piped) - (is_config ? 1 : 0);
  if (piped > 1) throw UsageError("- is given " + std::to_string(piped) + " times; the standard input is one array");
  if (piped == 1) accept_piped_array(communicator);
}

/// What the command line alone says, which all ranks have: it counts before the first message. 0: none so far.
double first_watchdog_seconds(const std::vector<std::string>& words) {
  constexpr std::string_view kName = "--watchdog";
  const auto word = std::ranges::find_if(words, [&](std::string_view text) {
    return text.starts_with(kName) && (text.size() == kName.size() || text[kName.size()] == '=');
  });
  if (word == words.end() || (*word == kName && std::next(word) == words.end())) return 0;
  const auto seconds = number_in<double>(*word == kName ? *std::next(word) : word->substr(kName.size() + 1));
  return seconds && std::isfinite(*seconds) ? std::max(0.0, *seconds) : 0;  // what is wrong is said later
}

/// 0: none.
double watchdog_seconds(const Arguments& arguments) {
  return arguments.knows("watchdog") && arguments.given("watchdog") ? arguments.number("watchdog") : 0;
}

/// Freed memory stays with the process, up to 64 MiB: blocks take turns, and each would fetch what the one before has
/// given back. These are the thresholds that glibc comes to by itself where a long vector is freed.
void keep_freed_memory() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, 32 << 20);
  mallopt(M_TRIM_THRESHOLD, 64 << 20);
#endif
}

/// Collective. The command, on blocks in place of ranks where it is to be reproducible.
ExitCode run_in_blocks(const Communicator& communicator, const Arguments& arguments, const Command& command) {
  const int blocks = reproducible_blocks(arguments);
  if (blocks == 0 || command.syntax.name == plan_command().syntax.name)  // it speaks of blocks only
    return command.run(communicator, arguments);
  keep_freed_memory();
  double code = 0;  // of block 0, which rank 0 has
  communicator.in_blocks(blocks, [&](const Communicator& block) {
    const ExitCode of_block = command.run(block, arguments);
    if (block.is_root()) code = static_cast<double>(of_block);
  });
  communicator.broadcast(std::span(&code, 1));  // to ranks without blocks
  return static_cast<ExitCode>(static_cast<int>(code));
}

ExitCode run(const Communicator& communicator, const std::vector<std::string>& words, std::optional<Watchdog>& watchdog,
             std::optional<ProgressLine>& progress) {
  faults::start(communicator.rank());
  faults::at("start");
  if (words.empty()) {
    if (communicator.is_root()) print_line(main_help());
    return ExitCode::usage;
  }
  if (words[0] == "--help" || words[0] == "-h") {
    print_result(communicator, main_help());
    return ExitCode::converged;
  }
  if (words[0] == "--version") {
    print_result(communicator, to_width(version_text(mpi_facts().library)));
    return ExitCode::converged;
  }
  const auto watch_for = [&](double seconds) {
    if (seconds > 0 && !watchdog) watchdog.emplace(communicator, seconds);
  };
  watch_for(first_watchdog_seconds(words));
  const auto all = commands();
  std::vector<std::string> rest(words.begin() + 1, words.end());
  const bool is_help = words[0] == "help";  // help COMMAND, as COMMAND --help
  if (is_help && (rest.empty() || rest[0].starts_with("-"))) {
    print_result(communicator, main_help());
    return ExitCode::converged;
  }
  const Command& command = find_command(all, is_help ? rest[0] : words[0]);
  if (is_help) rest.emplace_back("--help");
  const auto asks = [&](std::string_view word) { return std::ranges::find(rest, word) != rest.end(); };
  if (asks("--help") || asks("-h") || asks("--help-all")) {
    print_result(communicator, help_text(command.syntax, asks("--help-all")));
    return ExitCode::converged;
  }
  const auto syntax_of = [&](const std::string& name) -> const Syntax& { return find_command(all, name).syntax; };
  const auto settings = settings_of(communicator, command.syntax, rest, names_of(all));
  const Arguments given(command.syntax, rest, settings);
  if (given.on("print-config")) {
    auto json = document_of("config", given);
    json["command"] = command.syntax.name;
    print_result(communicator, given.on("json") ? json_text(json) : config_text(given));
    return ExitCode::converged;
  }
  const bool goes_on = words[0] == resume_command().syntax.name;
  const Arguments arguments = goes_on ? resumed_arguments(communicator, given, syntax_of) : given;
  remember_inputs(arguments);
  require_different_outputs(communicator, arguments);
  if (arguments.knows("trust-input") && arguments.on("trust-input")) trust_inputs();
  watch_for(watchdog_seconds(arguments));
  accept_piped_input(communicator, arguments);
  if (arguments.knows("progress")) progress.emplace(communicator, ProgressLine::style_of(arguments));
  const ExitCode code = run_in_blocks(communicator, arguments, find_command(all, std::string(arguments.syntax().name)));
  if (arguments.knows("report") && arguments.on("report")) report_on_run(communicator, arguments);
  return code;
}

/// Ends the job because of the exception that is being handled: this rank failed alone, and the others may wait for it
/// for ever. The code and what status.json says need no memory.
[[noreturn]] void abort_job() {
  const ExitCode code = code_of_lone_failure();
  int rank = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  RunDirectory::fail_at_once(code);
  try {
    print_line("attnreg: " + text_of_lone_failure(rank));
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "attnreg: error on rank %d: out of memory\n", rank);
  }
  std::fflush(nullptr);
  MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  std::abort();
}

/// In place of std::terminate's own end: what is thrown where nothing may be, a lack of memory for one, ends the job
/// with the code and message that it has elsewhere.
[[noreturn]] void end_of_terminate() {
  if (std::current_exception() == nullptr) std::abort();
  abort_job();
}

ExitCode run_and_catch(const std::vector<std::string>& words) {
  std::optional<Communicator> communicator;  // outlives the handlers: freeing it may wait for the other ranks
  std::optional<Watchdog> watchdog;          // likewise
  std::optional<ProgressLine> progress;
  try {
    communicator.emplace(MPI_COMM_WORLD);
    const StopsEndPhases until_there_is_a_result;
    return run(*communicator, words, watchdog, progress);
  } catch (const Error& error) {
    if (error.scope() != Error::Scope::all_ranks) abort_job();
    const std::string kind = error.code() == ExitCode::limit || error.code() == ExitCode::stopped ? ""  // asked for
                                                                                                  : "error: ";
    if (communicator->is_root()) print_line("attnreg: " + kind + printable(error.what()));
    const bool has_checkpoint = !words.empty() && words[0] == resume_command().syntax.name;
    return has_checkpoint && error.code() == ExitCode::limit ? ExitCode::stopped : error.code();
  } catch (...) {
    abort_job();
  }
}

#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__)
/// Threads that spin while they wait take the cores from whoever else works on them. libgomp looks at its variables
/// when it is initialised: before that the program starts anew with the one that says so, where the user has none.
void wait_passively(int /*count*/, char** words, char** variables) {
  constexpr std::size_t kMost = 4096;
  static std::array<char*, kMost> extended;
  static std::array<char, kMost> path;  // of the program: tools know it by its name
  static std::array<char, 24> policy{"OMP_WAIT_POLICY=passive"};
  std::size_t count = 0;
  for (; variables[count] != nullptr && count + 2 < kMost; ++count) {
    const std::string_view variable = variables[count];
    if (variable.starts_with("OMP_WAIT_POLICY=") || variable.starts_with("GOMP_SPINCOUNT=")) return;
    extended[count] = variables[count];
  }
  if (variables[count] != nullptr || readlink("/proc/self/exe", path.data(), kMost - 1) < 0) return;
  extended[count] = policy.data();
  execve(path.data(), words, extended.data());
}

// The loader calls what is here before it initialises any library.
__attribute__((section(".preinit_array"), used)) void (*const before_libraries)(int, char**, char**) = wait_passively;
#endif

extern "C" void attnreg_answer_signal(int signal) {
  if (signal == SIGUSR1) return ask_for_checkpoint();
  if (signal == SIGINT && stop_signal() == SIGINT) {  // the second time: at once
    std::signal(SIGINT, SIG_DFL);
    std::raise(SIGINT);
  }
  ask_to_stop(signal);
}

/// What was ignored, as under nohup, stays so.
void answer_signals() {
  struct sigaction action {
  }, before{};
  action.sa_handler = attnreg_answer_signal;
  action.sa_flags = SA_RESTART;
  for (const int signal : {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2})
    if (sigaction(signal, nullptr, &before) == 0 && before.sa_handler != SIG_IGN) sigaction(signal, &action, nullptr);
}

}  // namespace

/// `pages DIR`, for packages: pages of man and completions, without MPI, as machines that build have no use for it.
int write_pages(const std::string& directory) {
  std::vector<const Syntax*> all;
  for (const auto& command : commands()) all.push_back(&command.syntax);
  try {
    create_directories(directory);
    write_file(directory + "/attnreg.1", man_page(all));
    for (const Syntax* const syntax : all)
      write_file(directory + "/attnreg-" + std::string(syntax->name) + ".1", man_page(*syntax));
    write_file(directory + "/attnreg.bash", bash_completion(all));
    write_file(directory + "/_attnreg", zsh_completion(all));
  } catch (const Error& error) {
    print_line("attnreg: error: " + printable(error.what()));
    return static_cast<int>(error.code());
  }
  return 0;
}

}  // namespace attnreg::app

int main(int argc, char** argv) {
  if (argc == 3 && std::string_view(argv[1]) == "pages") return attnreg::app::write_pages(argv[2]);
  std::signal(SIGXFSZ, SIG_IGN);  // a file size limit is an error of write(), which has a message
  attnreg::app::answer_signals();
  int provided = 0;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  std::set_terminate(attnreg::app::end_of_terminate);
  attnreg::start_phases();
  const attnreg::ExitCode code = attnreg::app::run_and_catch({argv + 1, argv + argc});
  MPI_Finalize();
  return static_cast<int>(code);
}
