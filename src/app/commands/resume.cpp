#include <filesystem>
#include <memory>
#include <stdexcept>

#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/run/checkpoint.hpp"
#include "errors/printable.hpp"
#include "files/source_name.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kResumeEpilogue = R"(Examples:
  attnreg resume run
  mpirun -n 8 attnreg resume run --time-limit 3600

The run goes on in its directory, with the options it was given and the files it read, which must not have changed, on
any number of ranks, and reaches the same minimum; options given here replace those of the run. With the same numbers of
ranks and threads x has the bits of a run that was not interrupted and left the same checkpoints; of a run with
--reproducible on any.

Exit code: that of the run; 8: the checkpoint is damaged, of other inputs, or of another version, or there is none.
)";

const Syntax kResumeSyntax{
    "resume",
    "Go on with a run of solve or attention that was killed, stopped, or cut off by its time limit.",
    {{"DIR", "run directory, the -o of solve or attention"}},
    {{"Options",
      {time_limit_option(),
       {"checkpoint", 0, "SECONDS", Number{}, "", "as that of the run"},
       threads_option(),
       watchdog_option(),
       progress_option(),
       json_option("print run.json in place of the page"),
       {"quiet", 'q', "", Switch{}, "", "no step lines"},
       {"verbose", 'v', "", Switch{}, "", "say more about files, ranks and memory"}}}},
    kResumeEpilogue};

ExitCode resume(const Communicator& /*communicator*/, const Arguments& /*arguments*/) {
  throw std::logic_error("a run that goes on is a run of its own command");
}

}  // namespace

Arguments resumed_arguments(const Communicator& communicator, const Arguments& resume,
                            const std::function<const Syntax&(const std::string& command)>& find) {
  namespace fs = std::filesystem;
  resume.exclude("quiet", "verbose");
  std::string bytes;
  communicator.agree_on_root([&] { bytes = to_bytes(CheckpointSlots::read(resume.text("DIR")), 1); });
  bytes = communicator.broadcast(std::move(bytes));
  std::uint64_t count = 0;
  auto checkpoint = std::make_shared<const Checkpoint>(from_bytes(bytes, count));
  std::string directory;
  communicator.agree([&] {
    std::error_code error;
    directory = fs::absolute(resume.text("DIR"), error).string();
    if (!error) fs::current_path(checkpoint->directory, error);
    if (error)
      throw CheckpointError("the run was begun in " + printable(checkpoint->directory) +
                            ", which cannot be entered: " + error.message());
  });
  Arguments arguments(find(checkpoint->words[0]), std::span(checkpoint->words.begin() + 1, checkpoint->words.end()));
  if (!arguments.knows("checkpoint"))
    throw Error(ExitCode::checkpoint, "the checkpoint is of " + printable(arguments.words()[0]) + ", which leaves none",
                Error::Scope::all_ranks);
  for (const auto& text : arguments.texts_but({"output"}))
    if (SourceName(text).is_piped())
      throw Error(ExitCode::checkpoint,
                  "the run read - from a pipe, which cannot be read again; start it anew, or write the array to a file "
                  "first",
                  Error::Scope::all_ranks);
  const bool at_each_iteration = arguments.number("checkpoint") == 0;
  arguments.resume(std::move(checkpoint), directory, resume);
  if (reproducible_blocks(arguments) > 0 && (arguments.number("checkpoint") == 0) != at_each_iteration)
    throw UsageError(
        "--checkpoint: a run with --reproducible goes on with checkpoints at every iteration (0), or not, "
        "as it began: its bits depend on that");
  return arguments;
}

Command resume_command() { return {kResumeSyntax, resume}; }

}  // namespace attnreg::app
