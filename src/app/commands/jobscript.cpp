#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "app/node/job_plan.hpp"
#include "app/options/commands.hpp"
#include "app/report/json.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "build_info.hpp"
#include "errors/printable.hpp"
#include "files/npy_header.hpp"
#include "files/output_file.hpp"
#include "launch_scripts.hpp"
#include "ranks/stop.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kJobscriptEpilogue = R"(Examples:
  attnreg jobscript slurm --rows 100000000 --cols 200 --ranks 64 --cores-per-node 32 -o job.sh
  attnreg jobscript pbs --rows 1000000 --cols 100 --ranks 16 --cores-per-node 16 --arguments "scores A.npy -o s.npy"
  attnreg jobscript ssh --rows 1000000 --cols 100 --ranks 8 --cores-per-node 4 --hosts node1,node2

Memory and time are upper estimates for a solve of this size; the script says what they rest on. Code 7: it does not fit
into --memory-per-node.
)";

const Syntax kJobscriptSyntax{
    "jobscript",
    "Write a script that runs a solve on a cluster: nodes, ranks, threads, binding, memory and time for its size.",
    {{"KIND", "what starts the job", Choice{{"slurm", "pbs", "ssh"}}}},
    {{"Problem",
      {{"rows", 0, "N", Integer{1, std::int64_t{1} << 40}, "", "rows of A; needed"},
       {"cols", 0, "D", Integer{1, 1000000}, "", "columns of A; needed"},
       {"nonzeros", 0, "COUNT", Integer{1, std::int64_t{1} << 50}, "", "A is sparse with COUNT entries"},
       {"storage", 0, "TYPE", Choice{{"double", "float", "half", "bfloat16"}}, "double", "type in which A is held"},
       {"arguments", 0, "TEXT", Text{}, "solve A.npy b.npy -o run",
        "what attnreg is to do; words are separated by blanks"}}},
     {"Layout",
      {{"ranks", 0, "P", Integer{1, 1000000}, "", "MPI ranks; needed"},
       {"threads", 0, "T", Integer{1, 4096}, "1", "threads per rank"},
       {"cores-per-node", 0, "C", Integer{1, 4096}, "", "default: those of this machine"},
       {"ranks-per-node", 0, "R", Integer{1, 4096}, "", "default: as many as the cores allow"},
       {"memory-per-node", 0, "GB", Number{0, true, 1e6}, "", "what a node has; checked if given"},
       {"bandwidth", 0, "GB/s", Number{0, true, 1e6}, "10",
        "a node's reading of memory; `attnreg doctor` measures it"}}},
     {"Script",
      {{"time", 0, "MINUTES", Integer{1, 1000000}, "", "time limit; default: five times what is expected"},
       {"launcher", 0, "NAME", Choice{{"mpirun", "srun"}}, "mpirun", "slurm: what starts the ranks"},
       {"hosts", 0, "LIST", Text{}, "", "ssh: host names with commas between them"},
       {"program", 0, "FILE", Text{}, "", "attnreg on the nodes; default: this one"},
       {"output", 'o', "FILE", Text{}, "", "where the script goes; default: stdout"},
       json_option("print the script and what it rests on as JSON"),
       force_option()}}},
    kJobscriptEpilogue};

SolveShape solve_shape(const Arguments& arguments) {
  SolveShape shape;
  shape.rows = arguments.integer("rows");
  shape.columns = arguments.integer("cols");
  shape.sparse = arguments.given("nonzeros");
  shape.entries = shape.sparse ? arguments.integer("nonzeros") : 0;
  shape.storage = held_as(storage_choice(arguments), Storage::float64);
  return shape;
}

SolveLayout job_layout(const Arguments& arguments) {
  SolveLayout layout;
  layout.ranks = static_cast<int>(arguments.integer("ranks"));
  layout.threads = static_cast<int>(arguments.integer("threads"));
  const auto cores =
      arguments.optional_integer("cores-per-node").value_or(static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN)));
  layout.ranks_per_node = arguments.optional_integer("ranks-per-node")
                              .value_or(std::max(1, std::min(layout.ranks, cores / layout.threads)));
  if (static_cast<std::int64_t>(layout.ranks_per_node) * layout.threads > cores)
    throw UsageError(counted(layout.ranks_per_node, "rank") + " a node with " + counted(layout.threads, "thread") +
                     " each need more than " + counted(cores, "core") +
                     "; change --ranks-per-node, --threads or --cores-per-node");
  return layout;
}

/// A word for the shell.
std::string shell_word(const std::string& word) {
  std::string text = "'";
  for (const char c : word) text += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return text + "'";
}

/// One line, in quotes, from words that blanks separate.
std::string quoted_words(const std::string& text) {
  std::istringstream words(text);
  std::string line;
  for (std::string word; words >> word;) line += (line.empty() ? "" : " ") + shell_word(word);
  return line;
}

std::string program(const Arguments& arguments) {
  if (arguments.given("program")) return arguments.text("program");
  return std::filesystem::read_symlink("/proc/self/exe").string();
}

std::string clock(std::int64_t minutes) {
  const std::string hours = std::to_string(minutes / 60), rest = std::to_string(minutes % 60);
  return std::string(hours.size() < 2 ? "0" : "") + hours + ":" + (rest.size() < 2 ? "0" : "") + rest + ":00";
}

std::int64_t megabytes(double bytes) { return static_cast<std::int64_t>(bytes / 1e6) + 1; }

/// What the figures rest on, as comments.
std::string head(const Arguments& arguments, const SolveShape& shape, const SolveLayout& layout, const JobPlan& plan) {
  return "#!/usr/bin/env bash\n# Written by attnreg " + std::string(build_info::version) + " jobscript " +
         arguments.text("KIND") + " for a solve of " + std::to_string(shape.rows) + " x " +
         std::to_string(shape.columns) + (shape.sparse ? ", " + std::to_string(shape.entries) + " entries" : "") +
         " as " + storage_name(shape.storage) + ",\n# on " + counted(layout.ranks, "rank") + " with " +
         counted(layout.threads, "thread") + " each, " + std::to_string(layout.ranks_per_node) +
         " a node.\n# Memory: " + plain(solve_bytes(shape, layout, {}) / 1e6, 4) +
         " MB a rank; asked for, with a margin: " + std::to_string(megabytes(plan.bytes_per_node)) +
         " MB a node.\n# Time: about " + plain(plan.seconds, 3) + " s expected at " + arguments.text("bandwidth") +
         " GB/s a node; asked for: " + std::to_string(plan.minutes) + " minutes.\n";
}

std::string settings(const Arguments& arguments) {
  return "set -euo pipefail\nATTNREG=" + shell_word(program(arguments)) + "\n";
}

std::string set_arguments(const Arguments& arguments) {
  return "set -- " + quoted_words(arguments.text("arguments")) + "\n\n";
}

std::string slurm_script(const Arguments& arguments, const SolveLayout& layout, const JobPlan& plan) {
  std::string text;
  const auto directive = [&](const std::string& line) { text += "#SBATCH --" + line + "\n"; };
  directive("job-name=attnreg");
  directive("nodes=" + std::to_string(layout.nodes()));
  directive("ntasks=" + std::to_string(layout.ranks));
  directive("ntasks-per-node=" + std::to_string(layout.ranks_per_node));
  directive("cpus-per-task=" + std::to_string(layout.threads));
  directive("mem=" + std::to_string(megabytes(plan.bytes_per_node)) + "M");
  directive("time=" + clock(plan.minutes));
  directive("output=attnreg-%j.out");
  directive("open-mode=append");
  directive("requeue");
  directive("signal=B:USR2@120");
  return text + settings(arguments) + "ATTNREG_LAUNCHER=" + arguments.text("launcher") + "\n" +
         set_arguments(arguments) + std::string(launch_scripts::slurm);
}

/// Chunks of PBS: whole nodes, and the rest of the ranks on one more.
std::string pbs_script(const Arguments& arguments, const SolveLayout& layout, const JobPlan& plan) {
  const int full = layout.ranks / layout.ranks_per_node, rest = layout.ranks % layout.ranks_per_node;
  const auto chunk = [&](int nodes, int ranks) {
    return std::to_string(nodes) + ":ncpus=" + std::to_string(ranks * layout.threads) +
           ":mpiprocs=" + std::to_string(ranks) + ":ompthreads=" + std::to_string(layout.threads) +
           ":mem=" + std::to_string(megabytes(plan.bytes_per_node)) + "mb";
  };
  std::string select = full > 0 ? chunk(full, layout.ranks_per_node) : "";
  if (rest > 0) select += (full > 0 ? "+" : "") + chunk(1, rest);
  return "#PBS -N attnreg\n#PBS -l select=" + select + "\n#PBS -l walltime=" + clock(plan.minutes) +
         "\n#PBS -j oe\n#PBS -r y\n" + settings(arguments) + "OMP_NUM_THREADS=" + std::to_string(layout.threads) +
         "\ncd \"${PBS_O_WORKDIR:?run it with qsub}\"\n" + set_arguments(arguments) + std::string(launch_scripts::pbs);
}

std::string ssh_script(const Arguments& arguments, const SolveLayout& layout, const JobPlan& plan) {
  std::istringstream names(arguments.text("hosts"));
  std::string list;
  int count = 0;
  for (std::string name; std::getline(names, name, ',');) {
    if (name.empty() || name.front() == '-' ||
        name.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_") !=
            std::string::npos)
      throw UsageError("--hosts has the name '" + printable(name) +
                       "'; expected letters, digits, '.', '-' and '_', not '-' first");
    list += name + " slots=" + std::to_string(layout.ranks_per_node) + "\n";
    ++count;
  }
  if (count < layout.nodes())
    throw UsageError("--hosts names " + counted(count, "host") + ", " + std::to_string(layout.nodes()) + " are needed");
  return settings(arguments) + "export OMP_NUM_THREADS=" + std::to_string(layout.threads) +
         "\nATTNREG_RANKS=" + std::to_string(layout.ranks) + "\nATTNREG_MINUTES=" + std::to_string(plan.minutes) +
         "\nhosts=attnreg-hosts\ncat > \"$hosts\" <<'HOSTS'\n" + list + "HOSTS\n" + set_arguments(arguments) +
         std::string(launch_scripts::hostfile);
}

/// A script, and what it rests on.
struct JobScript {
  SolveShape shape;
  SolveLayout layout;
  JobPlan plan;
  std::string text{};
};

JobScript script(const Arguments& arguments) {
  const SolveShape shape = solve_shape(arguments);
  const SolveLayout layout = job_layout(arguments);
  JobPlan plan = plan_job(shape, layout, arguments.number("bandwidth") * 1e9);
  if (arguments.given("time")) plan.minutes = arguments.integer("time");
  if (arguments.given("memory-per-node") && plan.bytes_per_node > arguments.number("memory-per-node") * 1e9)
    throw OutOfMemory("a node needs " + plain(plan.bytes_per_node / 1e9, 4) + " GB for " +
                          counted(layout.ranks_per_node, "rank") + ", it has " + arguments.text("memory-per-node") +
                          " GB; use more ranks on more nodes, or --storage float",
                      Error::Scope::all_ranks);
  const std::string kind = arguments.text("KIND");
  const std::string top = head(arguments, shape, layout, plan);
  JobScript made{shape, layout, plan};
  made.text = top + (kind == "slurm" ? slurm_script(arguments, layout, plan)
                     : kind == "pbs" ? pbs_script(arguments, layout, plan)
                                     : ssh_script(arguments, layout, plan));
  return made;
}

std::string jobscript_json(const Arguments& arguments, const JobScript& made) {
  const auto& [shape, layout, plan, text] = made;
  auto json = document_of("jobscript", arguments);
  json.update({{"kind", arguments.text("KIND")},
               {"nodes", layout.nodes()},
               {"ranks", layout.ranks},
               {"ranks_per_node", layout.ranks_per_node},
               {"threads", layout.threads},
               {"bytes_per_rank", solve_bytes(shape, layout, {})},
               {"bytes_per_node", plan.bytes_per_node},
               {"seconds", plan.seconds},
               {"minutes", plan.minutes},
               {"script", text}});
  return json_text(json);
}

ExitCode jobscript(const Communicator& communicator, const Arguments& arguments) {
  for (const std::string_view name : {"rows", "cols", "ranks"}) arguments.require(name);
  if (arguments.text("KIND") == "ssh") arguments.require("hosts");
  const JobScript made = script(arguments);
  const std::string& text = made.text;
  const std::string path = arguments.text("output");
  if (path.empty()) {
    print_result(communicator, arguments.on("json") ? jobscript_json(arguments, made) : text);
    return ExitCode::converged;
  }
  StopsEndPhases::end();
  communicator.agree_on_root([&] {
    check_output(path, arguments.on("force"));
    write_file(path, text);
    std::filesystem::permissions(path, std::filesystem::perms::owner_exec, std::filesystem::perm_options::add);
  });
  print_result(communicator, arguments.on("json") ? jobscript_json(arguments, made) : printable(path) + "\n");
  return ExitCode::converged;
}

}  // namespace

Command jobscript_command() { return {kJobscriptSyntax, jobscript}; }

}  // namespace attnreg::app
