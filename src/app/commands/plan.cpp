#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "app/node/job_plan.hpp"
#include "app/options/commands.hpp"
#include "app/options/solver_options.hpp"
#include "app/report/json.hpp"
#include "app/report/summary.hpp"
#include "app/report/text.hpp"
#include "app/run/problem.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kPlanEpilogue = R"(Examples:
  attnreg plan A.npy b.npy --weight 1e-4
  attnreg plan --for 1000000000x100 --nodes 64 --cores-per-node 32 --memory-per-node 256
  mpirun -n 4 attnreg doctor --json > doctor.json
  attnreg plan A.npy b.npy --doctor doctor.json --json

Only headers of files are read. Reads of A and time are those of typical problems, which end at 1e-10; hard ones take
several times as much. Exit code 0: it fits; 7: it does not.
)";

const Syntax kPlanSyntax{
    "plan",
    "Say what a solve would take: memory, method, reads of A, time, messages, and whether it fits.",
    {{"A", "n x d matrix, as for solve"}, {"b", "n target values"}},
    [] {
      std::vector<OptionGroup> groups = solve_options();
      groups.insert(
          groups.begin(),
          {"Size and machine",
           {{"for", 0, "NxD", Text{}, "", "a dense A of N rows and D columns, in place of files"},
            {"entries", 0, "COUNT", Integer{0, std::int64_t{1} << 60}, "", "of --for: A is sparse with COUNT entries"},
            {"nodes", 0, "N", Integer{1, 1 << 20}, "", "nodes; default: 1, or as many as --ranks-per-node makes"},
            {"ranks", 0, "P", Integer{1, 1 << 28}, "",
             "MPI ranks in all; default: those that this runs on, if there are several, else what is advised"},
            {"ranks-per-node", 0, "R", Integer{1, 1 << 16}, "", "default: the ranks, spread evenly over the nodes"},
            {"cores-per-node", 0, "C", Integer{1, 1 << 16}, "", "default: those of this machine"},
            {"memory-per-node", 0, "GB", Number{0, true, 1e9}, "", "default: what this machine has left"},
            {"bandwidth", 0, "GB/s", Number{0, true, 1e6}, "", "a node's reading of memory; default: 10"},
            {"doctor", 0, "FILE", Text{}, "",
             "what `attnreg doctor --json` printed there: cores, memory, bandwidth and messages"}}});
      groups.push_back({"Output", {{"json", 0, "", Switch{}, "", "print JSON"}}});
      return groups;
    }(),
    kPlanEpilogue,
    {"for"},
    "targets"};

/// All that the page says.
struct Plan {
  SolveShape shape;
  SolveLayout layout;
  Machine machine;
  SolveChoice choice;
  SolveMemory memory;
  SolveWork work;
  SolveTime time;
  std::optional<SolveLayout> advised;
  std::optional<int> least_nodes;  ///< where it does not fit on these

  double node() const { return node_bytes(memory, layout); }
  bool fits() const { return node() <= machine.node_bytes; }
};

SolveShape shape_of_size(const Arguments& arguments) {
  const std::string text = arguments.text("for");
  const auto extents = numbers_in<double>(text, 'x');
  const auto is_extent = [](double number, double most) {
    return number >= 1 && number <= most && std::floor(number) == number;
  };
  if (extents.size() != 2 || !is_extent(extents[0], 0x1p53) || !is_extent(extents[1], 0x1p31 - 1))
    throw UsageError("--for is '" + printable(text) + "'; expected ROWSxCOLUMNS, such as 1000000000x100");
  SolveShape shape{.rows = static_cast<std::int64_t>(extents[0]),
                   .columns = static_cast<std::int64_t>(extents[1]),
                   .sparse = arguments.given("entries"),
                   .storage = held_as(storage_choice(arguments), Storage::float64),
                   .row_weights = arguments.given("weights"),
                   .offsets = arguments.given("offset")};
  if (shape.sparse) shape.entries = arguments.integer("entries");
  if (static_cast<double>(shape.entries) > extents[0] * extents[1])
    throw UsageError("--entries is " + arguments.text("entries") + ", more than A of " + text + " has");
  return shape;
}

/// Collective. The size of the problem, by the headers of its files or by --for.
SolveShape shape_of(const Communicator& communicator, const Arguments& arguments) {
  if (arguments.given("for")) {
    arguments.refuse({"targets"}, "names a file, and --for is in place of the files");
    return shape_of_size(arguments);
  }
  arguments.refuse({"entries"}, "is for --for");
  SolveShape shape;
  communicator.agree([&] { shape = solve_shape(arguments, examine_problem(arguments)); });
  return shape;
}

/// Collective.
Machine machine_of(const Communicator& communicator, const Arguments& arguments) {
  Machine machine;
  if (arguments.given("doctor")) {
    const std::string path = arguments.text("doctor");
    std::string text;
    communicator.agree_on_root([&] {
      const attnreg::InputFile file(path, "what `attnreg doctor --json` printed");
      text.resize(static_cast<std::size_t>(file.bytes()));
      file.read(0, text.data(), file.bytes());
    });
    text = communicator.broadcast(text);
    communicator.agree([&] { machine = machine_of_doctor(text, path); });
  } else {
    machine.cores = static_cast<int>(communicator.min(std::int64_t{sysconf(_SC_NPROCESSORS_ONLN)}));
    machine.node_bytes = -communicator.max(-available_node_memory());
    machine.cores_from = machine.memory_from = "this machine";
    machine.bandwidth_from = "assumed";
  }
  if (machine.messages_from.empty()) machine.messages_from = "assumed";
  const auto take = [&](std::string_view name, auto& figure, auto value, std::string& from) {
    if (!arguments.given(name)) return;
    figure = value;
    from = "--" + std::string(name);
  };
  if (arguments.given("cores-per-node"))
    take("cores-per-node", machine.cores, arguments.count("cores-per-node"), machine.cores_from);
  if (arguments.given("memory-per-node"))
    take("memory-per-node", machine.node_bytes, 1e9 * arguments.number("memory-per-node"), machine.memory_from);
  if (arguments.given("bandwidth"))
    take("bandwidth", machine.speeds.node_bandwidth, 1e9 * arguments.number("bandwidth"), machine.bandwidth_from);
  return machine;
}

/// The layout that was asked for, what is left open as advised, or for one rank a core.
SolveLayout layout_of(const Arguments& arguments, int processes, const Plan& plan, int nodes) {
  SolveLayout layout =
      plan.advised.value_or(SolveLayout{.ranks = nodes * plan.machine.cores, .ranks_per_node = plan.machine.cores});
  layout.blocks = reproducible_blocks(arguments);
  layout.node_bytes = plan.machine.node_bytes;
  if (arguments.given("threads")) {
    layout.threads = arguments.count("threads");
    layout.ranks_per_node = std::max(1, plan.machine.cores / layout.threads);
    layout.ranks = nodes * layout.ranks_per_node;
  }
  const bool has_ranks = arguments.given("ranks") || processes > 1;
  if (has_ranks) layout.ranks = arguments.given("ranks") ? arguments.count("ranks") : processes;
  if (layout.ranks < nodes)
    throw UsageError(counted(nodes, "node") + " for " + counted(layout.ranks, "rank") + "; change --nodes or --ranks");
  if (has_ranks) layout.ranks_per_node = (layout.ranks + nodes - 1) / nodes;
  if (arguments.given("ranks-per-node")) {
    layout.ranks_per_node = arguments.count("ranks-per-node");
    if (!has_ranks) layout.ranks = nodes * layout.ranks_per_node;
    if (arguments.given("nodes") && layout.nodes() > nodes)
      throw UsageError(counted(layout.ranks, "rank") + " with " + std::to_string(layout.ranks_per_node) +
                       " a node do not go on " + counted(nodes, "node"));
  }
  if (has_ranks && !arguments.given("threads"))
    layout.threads = std::max(1, plan.machine.cores / layout.ranks_per_node);
  return layout;
}

/// Collective.
Plan plan_of(const Communicator& communicator, const Arguments& arguments) {
  Plan plan;
  plan.shape = shape_of(communicator, arguments);
  plan.machine = machine_of(communicator, arguments);
  const int nodes = arguments.given("nodes") ? arguments.count("nodes") : 1;
  const auto known = [&](int ranks) {
    check_solve_options(arguments, ranks);
    return regression_options(arguments, ranks);
  };
  const int most = std::max(communicator.size(), arguments.optional_integer("ranks").value_or(1 << 28));
  const RegressionOptions options = known(most);
  const int blocks = reproducible_blocks(arguments);
  plan.advised = advised_layout(plan.shape, options, nodes, plan.machine, blocks);
  plan.layout = layout_of(arguments, communicator.size(), plan, nodes);
  known(plan.layout.ranks);  // a grid has at most so many processes
  plan.choice = solve_choice(plan.shape, plan.layout, options);
  plan.memory = solve_memory(plan.shape, plan.layout, options);
  plan.work = solve_work(plan.shape, plan.layout, options);
  plan.time = solve_time(plan.shape, plan.layout, options, plan.machine.speeds);
  if (!plan.fits()) plan.least_nodes = fewest_nodes(plan.shape, options, plan.machine, blocks);
  return plan;
}

/// "1.23 GB"
std::string size_text(double bytes) {
  for (const auto& [unit, name] : {std::pair{1e15, " PB"}, {1e12, " TB"}, {1e9, " GB"}, {1e6, " MB"}, {1e3, " kB"}})
    if (bytes >= unit) return plain(bytes / unit, 3) + name;
  return plain(bytes, 3) + " bytes";
}

std::string time_text(double seconds) {
  if (seconds >= 2 * 86400) return plain(seconds / 86400, 3) + " days";
  if (seconds >= 2 * 3600) return plain(seconds / 3600, 3) + " hours";
  if (seconds >= 120) return plain(seconds / 60, 3) + " minutes";
  return plain(seconds, 3) + " s";
}

std::string layout_text(const SolveLayout& layout) {
  return counted(layout.ranks, "rank") + " on " + counted(layout.nodes(), "node") + ", " +
         counted(layout.threads, "thread") + " each";
}

std::string parts_text(const RankMemory& memory, double program) {
  std::string text;
  const auto add = [&](const char* name, double bytes) {
    if (bytes >= 0.005 * (memory.total() + program))
      text += (text.empty() ? "" : ", ") + (name + (" " + size_text(bytes)));
  };
  add("rows of A", memory.rows);
  add("vectors", memory.vectors);
  add("samples", memory.sample);
  add("d x d matrices", memory.matrices);
  add("program", program);
  return size_text(memory.total() + program) + ": " + text;
}

/// What takes a hundredth or more, by name.
std::string seconds_text(const SolveTime& time) {
  std::string text;
  for (const auto& [name, seconds] : {std::pair{"reading ", time.reading},
                                      {"d x d sums ", time.matrices},
                                      {"factors ", time.factorizations},
                                      {"messages ", time.messages}})
    if (seconds >= 0.01 * time.total()) text += (text.empty() ? "" : ", ") + (name + time_text(seconds));
  return "about " + time_text(time.total()) + ": " + text;
}

/// What to do, in sentences.
std::vector<std::string> advice_of(const Plan& plan) {
  std::vector<std::string> advice;
  const SolveLayout& layout = plan.layout;
  if (layout.ranks_on_busiest() * layout.threads > plan.machine.cores)
    advice.push_back(counted(layout.ranks_on_busiest(), "rank") + " with " + counted(layout.threads, "thread") +
                     " each share the " + counted(plan.machine.cores, "core") + " of a node");
  const bool differs = plan.advised && (plan.advised->ranks != layout.ranks || plan.advised->threads != layout.threads);
  if (!plan.fits()) {
    if (differs) advice.push_back("it fits as " + layout_text(*plan.advised));
    if (!plan.advised && plan.least_nodes)
      advice.push_back("it fits on " + counted(*plan.least_nodes, "node") + " of this kind and more");
    if (!plan.advised && !plan.least_nodes)
      advice.push_back(
          "it fits on no number of such nodes: what each rank has of d x d matrices is too much; give "
          "nodes more memory, or ranks more threads");
    if (plan.shape.storage == Storage::float64)
      advice.push_back("--storage float halves what A takes" +
                       std::string(plan.shape.sparse ? "" : ", half and bfloat16 quarter it"));
  } else if (differs) {
    advice.push_back("a good choice are " + layout_text(*plan.advised));
  }
  return advice;
}

std::string page_of(const Plan& plan) {
  const SolveShape& shape = plan.shape;
  const double program = program_bytes(plan.layout.ranks_on_busiest());
  const std::string size = std::to_string(shape.rows) + " x " + std::to_string(shape.columns);
  std::string text = plan.fits() ? "It fits.\n\n" : "It does NOT fit.\n\n";
  text += summary_line("problem", size + " as " + storage_name(shape.storage) + ", " + size_text(shape.bytes()) +
                                      (shape.sparse ? ", " + std::to_string(shape.entries) + " entries" : "") +
                                      (shape.targets > 1 ? ", " + counted(shape.targets, "target") : ""));
  text += summary_line(
      "layout", layout_text(plan.layout) + (plan.layout.blocks > 0 ? ", " + counted(plan.layout.blocks, "block") : ""));
  text += summary_line("method", std::string(method_name(plan.choice.method)) +
                                     (plan.choice.starts_on_sample ? ", from the lowest end on a sample" : "") +
                                     (plan.choice.in_row_space ? ", in the row space" : ""));
  text += summary_line("linear solver", std::string(linear_solver_name(plan.choice.linear_solver)));
  text += summary_line("memory of rank 0", parts_text(plan.memory.rank0, program));
  if (plan.layout.ranks > 1) text += summary_line("of another rank", parts_text(plan.memory.other, program));
  text += summary_line("of a node", size_text(plan.node()) + " of " + size_text(plan.machine.node_bytes) + " (" +
                                        plan.machine.memory_from + ")");
  text += summary_line(
      "reads of A",
      fixed(plan.work.reads, 0) + ", " + fixed(plan.work.least_reads, 0) + " to " + fixed(plan.work.most_reads, 0) +
          " in typical solves" +
          (plan.work.sample_reads >= 0.5 ? "; work on samples worth " + fixed(plan.work.sample_reads, 0) : ""));
  text += summary_line("time", seconds_text(plan.time) + ", without loading");
  text +=
      summary_line("rests on", plain(plan.machine.speeds.node_bandwidth / 1e9, 3) + " GB/s a node (" +
                                   plan.machine.bandwidth_from + "), " + counted(plan.machine.cores, "core") + " (" +
                                   plan.machine.cores_from + "), " + plain(1e6 * plan.machine.speeds.round_seconds, 2) +
                                   " us a round of messages (" + plan.machine.messages_from + ")");
  if (plan.layout.ranks > 1)
    text += summary_line("messages", fixed(plan.work.collectives, 0) + " collectives, " +
                                         size_text(plan.work.message_bytes) + " in all, the longest of " +
                                         size_text(plan.work.largest_message));
  for (const auto& advice : advice_of(plan)) text += summary_line("advice", advice);
  return text;
}

nlohmann::ordered_json memory_json(const RankMemory& memory) {
  return {
      {"rows", memory.rows}, {"vectors", memory.vectors}, {"samples", memory.sample}, {"matrices", memory.matrices}};
}

nlohmann::ordered_json layout_json(const SolveLayout& layout) {
  return {{"nodes", layout.nodes()},
          {"ranks", layout.ranks},
          {"ranks_per_node", layout.ranks_per_node},
          {"threads", layout.threads}};
}

/// What `plan --json` prints: schema attnreg-plan-1.
nlohmann::ordered_json plan_json(const Plan& plan, const Arguments& arguments) {
  const auto maybe = [](const auto& value) {
    return value ? nlohmann::ordered_json(*value) : nlohmann::ordered_json();
  };
  nlohmann::ordered_json layout = layout_json(plan.layout);
  layout["blocks"] = plan.layout.blocks;
  auto json = document_of("plan", arguments);
  json.update({{"fits", plan.fits()},
               {"problem",
                {{"rows", plan.shape.rows},
                 {"columns", plan.shape.columns},
                 {"entries", plan.shape.sparse ? nlohmann::ordered_json(plan.shape.entries) : nlohmann::ordered_json()},
                 {"storage", storage_name(plan.shape.storage)},
                 {"targets", plan.shape.targets},
                 {"bytes", plan.shape.bytes()}}},
               {"layout", layout},
               {"method", method_name(plan.choice.method)},
               {"linear_solver", linear_solver_name(plan.choice.linear_solver)},
               {"starts_on_sample", plan.choice.starts_on_sample},
               {"in_row_space", plan.choice.in_row_space},
               {"memory_bytes",
                {{"rank0", plan.memory.rank0.total() + program_bytes(plan.layout.ranks_on_busiest())},
                 {"rank", plan.memory.other.total() + program_bytes(plan.layout.ranks_on_busiest())},
                 {"node", plan.node()},
                 {"node_has", plan.machine.node_bytes},
                 {"program", program_bytes(plan.layout.ranks_on_busiest())},
                 {"rank0_parts", memory_json(plan.memory.rank0)},
                 {"rank_parts", memory_json(plan.memory.other)}}},
               {"reads",
                {{"typical", plan.work.reads},
                 {"least", plan.work.least_reads},
                 {"most", plan.work.most_reads},
                 {"on_samples", plan.work.sample_reads}}},
               {"seconds",
                {{"total", plan.time.total()},
                 {"reading", plan.time.reading},
                 {"matrices", plan.time.matrices},
                 {"factorizations", plan.time.factorizations},
                 {"messages", plan.time.messages}}},
               {"messages",
                {{"collectives", plan.work.collectives},
                 {"bytes", plan.work.message_bytes},
                 {"longest_bytes", plan.work.largest_message}}},
               {"machine",
                {{"cores_per_node", plan.machine.cores},
                 {"bandwidth", plan.machine.speeds.node_bandwidth},
                 {"round_seconds", plan.machine.speeds.round_seconds},
                 {"byte_seconds", plan.machine.speeds.byte_seconds},
                 {"sources",
                  {{"cores", plan.machine.cores_from},
                   {"memory", plan.machine.memory_from},
                   {"bandwidth", plan.machine.bandwidth_from},
                   {"messages", plan.machine.messages_from}}}}},
               {"advised", plan.advised ? layout_json(*plan.advised) : nlohmann::ordered_json()},
               {"fewest_nodes", maybe(plan.least_nodes)},
               {"advice", advice_of(plan)}});
  return json;
}

ExitCode plan(const Communicator& communicator, const Arguments& arguments) {
  const Plan found = plan_of(communicator, arguments);
  print_result(communicator, arguments.on("json") ? json_text(plan_json(found, arguments)) : to_width(page_of(found)));
  return found.fits() ? ExitCode::converged : ExitCode::memory;
}

}  // namespace

Command plan_command() { return {kPlanSyntax, plan}; }

}  // namespace attnreg::app
