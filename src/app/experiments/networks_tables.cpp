#include <limits>

#include "app/experiments/all_experiments.hpp"
#include "app/report/text.hpp"
#include "attnreg/files.hpp"
#include "errors/refuse.hpp"
#include "ranks/activity.hpp"
#include "ranks/span_of.hpp"

namespace attnreg::app {

namespace {

using experiments::Points;

/// The integers of a list that an option has, from `least` to `most`; `fallback` without it.
std::vector<std::int64_t> integers_of(const Arguments& arguments, std::string_view name, std::int64_t least,
                                      std::int64_t most, std::vector<std::int64_t> fallback) {
  if (!arguments.has(name)) return fallback;
  const auto numbers = numbers_in<std::int64_t>(arguments.text(name), ',');
  bool fits = !numbers.empty();
  for (const std::int64_t number : numbers) fits = fits && number >= least && number <= most;
  if (!fits)
    throw UsageError("--" + std::string(name) + " is '" + printable(arguments.text(name)) +
                     "'; expected integers from " + std::to_string(least) + " to " + std::to_string(most) +
                     ", with commas between them");
  return numbers;
}

std::int64_t integer_or(const Arguments& arguments, std::string_view name, std::int64_t fallback) {
  return arguments.has(name) ? arguments.integer(name) : fallback;
}

/// Collective. X and y of the files, or random ones.
Points points_of(const Communicator& communicator, const Arguments& arguments, std::int64_t count,
                 std::int64_t dimension, bool labels) {
  const InPhase loading(Phase::load);
  const auto& files = arguments.rest();
  if (files.empty())
    return experiments::random_points(integer_or(arguments, "points", count),
                                      integer_or(arguments, "dimension", dimension), labels, arguments.seed());
  if (files.size() != 2)
    throw UsageError("experiment " + arguments.text("NAME") + " takes X.npy and y.npy, or no file");
  arguments.refuse({"points", "dimension"}, "is for points that are made, and files are given");
  RowMajorMatrix X = load_replicated_matrix(communicator, files[0]);
  const RowMajorMatrix y = load_replicated_matrix(communicator, files[1]);
  require(y.cols() == 1, printable(files[1]) + ": y has shape (" + std::to_string(y.rows()) + ", " +
                             std::to_string(y.cols()) + "), expected a value for each row of X");
  return experiments::unit_points(std::move(X), y.col(0));
}

constexpr std::int64_t kWidest = 1000000000;

std::vector<experiments::Table> exponential_network_tables(const Communicator& communicator, const Arguments& arguments,
                                                           const ReportDirectory& /*directory*/) {
  experiments::ExponentialNetwork options{.widths = integers_of(arguments, "widths", 1, kWidest, {500, 4000}),
                                          .residual = arguments.has("residual") ? arguments.number("residual") : 1e-2,
                                          .most_steps = static_cast<int>(integer_or(arguments, "steps", 5000)),
                                          .seed = arguments.seed()};
  const auto counts = integers_of(arguments, "smallest-widths", 1, std::numeric_limits<std::int32_t>::max(), {});
  const Points points = points_of(communicator, arguments, 10, 8, false);
  std::vector<experiments::Table> tables, widths;
  if (!counts.empty())
    widths.push_back(smallest_widths(communicator, points, {.counts = counts, .seed = options.seed}));
  for (const bool gauss_newton : {false, true}) {
    options.gauss_newton = gauss_newton;
    tables.push_back(exponential_network(communicator, points, options));
  }
  tables.insert(tables.end(), widths.begin(), widths.end());
  return tables;
}

std::vector<experiments::Table> adversarial_training_tables(const Communicator& communicator,
                                                            const Arguments& arguments,
                                                            const ReportDirectory& directory) {
  const experiments::AdversarialTraining options{
      .widths = integers_of(arguments, "widths", 2, kWidest, {1000, 10000, 100000}),
      .radius = arguments.number("radius"),
      .attack_steps = arguments.count("attack-steps"),
      .steps = static_cast<int>(integer_or(arguments, "steps", 20)),
      .batch = arguments.count("batch"),
      .rate = arguments.number("rate"),
      .structure = static_cast<experiments::AdversarialTraining::Structure>(arguments.choice("structure")),
      .compares = !arguments.on("no-dense"),
      .seed = arguments.seed()};
  const Points points = points_of(communicator, arguments, 64, 8, true);
  const auto fit = adversarial_training(communicator, points, options);
  if (directory.is_used()) {
    const InPhase writing(Phase::write);
    write_npy(communicator, directory.file("W.npy"), {fit.width, fit.W.cols()}, fit.first_neuron, span_of(fit.W));
    write_npy(communicator, directory.file("a.npy"), {fit.width}, fit.first_neuron, span_of(fit.a));
  }
  return {fit.table};
}

}  // namespace

Experiment exponential_network_experiment() {
  return {.name = "exp-network",
          .summary = "over-parameterised exponential regression (arXiv 2303.16504)",
          .files = "X.npy y.npy",
          .most_files = 2,
          .options = {{"widths", 0, "M,...", Text{}, "",
                       "numbers of neurons; default: 500,4000, of adversarial-training 1000,10000,100000"},
                      {"steps", 0, "N", Integer{1, 1000000}, "", "at most; default: 5000, of adversarial-training 20"},
                      {"points", 0, "N", Integer{1, 1000000}, "",
                       "without files: so many are made; default: 10, of adversarial-training 64"},
                      {"dimension", 0, "D", Integer{1, 100000}, "", "of these; default: 8"},
                      {"smallest-widths", 0, "N,...", Text{}, "",
                       "numbers of points, the first ones, for which the smallest width that converges is searched"}},
          .shared = {"residual"},
          .run = exponential_network_tables};
}

Experiment adversarial_training_experiment() {
  return {.name = "adversarial-training",
          .summary = "a shifted ReLU network whose active neurons a tree reports (arXiv 2208.05395)",
          .files = "X.npy y.npy",
          .most_files = 2,
          .options = {{"radius", 0, "R", Number{0}, "0.1", "of the ball in which points are moved; their length is 1"},
                      {"attack-steps", 0, "K", Integer{1, 1000}, "3", "of projected gradient ascent on a point"},
                      {"batch", 0, "N", Integer{1, 100000}, "32", "points of a step"},
                      {"rate", 0, "R", Number{0, true}, "2", "step of gradient descent on the mean loss of a batch"},
                      {"structure", 0, "NAME", Choice{{"auto", "tree", "dense"}}, "auto",
                       "what finds the active neurons: a tree of balls, all inner products, or what takes less work"},
                      {"no-dense", 0, "", Switch{}, "", "leave out the dense training that it is compared with"}},
          .shared = {"widths", "steps", "points", "dimension"},
          .run = adversarial_training_tables};
}

}  // namespace attnreg::app
