#include <algorithm>
#include <array>
#include <utility>

#include "app/experiments/all_experiments.hpp"
#include "app/report/text.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "ranks/activity.hpp"

namespace attnreg::app {

namespace {

using experiments::CycleRank;

CycleRank cycle_rank_options(const Arguments& arguments, const std::array<std::int64_t, 3>& sides) {
  CycleRank options;
  options.rank = arguments.integer("rank");
  options.starts = arguments.count("starts");
  options.sweeps = arguments.count("sweeps");
  options.tolerance = arguments.number("tolerance");
  if (arguments.has("residual")) options.residual = arguments.number("residual");
  options.seed = arguments.seed();
  if (arguments.has("sampled-rows")) {
    options.sampled_rows = arguments.integer("sampled-rows");
    return options;
  }
  constexpr std::int64_t kRowsOfUnknown = 50, kWorthIt = 10;
  const std::int64_t drawn = kRowsOfUnknown * options.rank * options.rank;
  const std::int64_t fewest = sides[0] * sides[1] * sides[2] / *std::ranges::max_element(sides);
  if (fewest > kWorthIt * drawn) options.sampled_rows = drawn;
  return options;
}

/// Collective. U.npy, V.npy, W.npy, n x k x k.
void write_factors(const Communicator& communicator, const experiments::CycleRankFit& fit, Index k,
                   const ReportDirectory& directory) {
  if (!directory.is_used()) return;
  const InPhase writing(Phase::write);
  communicator.agree_on_root([&] {
    const char* const names[] = {"U.npy", "V.npy", "W.npy"};
    for (std::size_t mode = 0; mode < 3; ++mode) {
      const Eigen::MatrixXd& factor = fit.factors[mode];
      std::vector<double> rows;
      for (Index a = 0; a < factor.cols(); ++a)
        for (Index i = 0; i < k; ++i)
          for (Index j = 0; j < k; ++j) rows.push_back(factor(i + k * j, a));
      write_npy(directory.file(names[mode]), rows, {factor.cols(), k, k});
    }
  });
}

std::vector<experiments::Table> cycle_rank_tables(const Communicator& communicator, const Arguments& arguments,
                                                  const ReportDirectory& directory) {
  using namespace experiments;
  const std::uint64_t seed = arguments.seed();
  const bool is_read = !arguments.rest().empty();
  if (is_read) arguments.refuse({"size", "noise"}, "is for a tensor that is made, and a file is given");
  bool is_asked = is_read;
  for (const char* const name : {"rank", "sampled-rows", "starts", "sweeps", "tolerance", "residual", "size", "noise"})
    is_asked = is_asked || arguments.given(name);
  if (!is_asked) {
    const auto made = [&](double noise, std::int64_t sampled_rows) {
      Table table = cycle_rank(communicator, made_tensor(communicator, {.noise = noise, .seed = seed}),
                               {.sampled_rows = sampled_rows, .seed = seed})
                        .table;
      table.title += ", noise " + plain(noise, 3);
      return table;
    };
    return {made(0, 0), made(0.01, 0), made(0.01, 40)};
  }
  SlicedTensor tensor = [&] {
    const InPhase loading(Phase::load);
    if (is_read) return load_tensor(communicator, arguments.rest()[0]);
    return made_tensor(communicator, {.size = arguments.integer("size"),
                                      .rank = arguments.integer("rank"),
                                      .noise = arguments.number("noise"),
                                      .seed = seed});
  }();
  const CycleRank options = cycle_rank_options(arguments, tensor.sides);
  const CycleRankFit fit = cycle_rank(communicator, std::move(tensor), options);
  write_factors(communicator, fit, static_cast<Index>(options.rank), directory);
  return {fit.table};
}

}  // namespace

Experiment cycle_rank_experiment() {
  return {
      .name = "cycle-rank",
      .summary = "tensor ring by alternating, sampled least squares (arXiv 2304.06594)",
      .files = "T.npy",
      .most_files = 1,
      .options = {{"rank", 0, "K", Integer{1, 64}, "2", "entry (a, b, c) is the trace of three K x K matrices"},
                  {"sampled-rows", 0, "M", Integer{0, 1 << 30}, "",
                   "equations drawn for a step, 0: all; default: 50 K^2 where a step has ten times as many, else all"},
                  {"starts", 0, "N", Integer{1, 100000}, "6", "random ones"},
                  {"sweeps", 0, "N", Integer{1, 1000000}, "500", "at most, from each start"},
                  {"tolerance", 0, "T", Number{0, true, 0.999}, "0.001",
                   "a start ends where ten sweeps lower the residual by less than this share"},
                  {"residual", 0, "R", Number{0}, "", "to stop at; default: 1e-14; of exp-network 0.01"},
                  {"size", 0, "N", Integer{1, 4096}, "12", "without T.npy: sides of a tensor that has rank K"},
                  {"noise", 0, "E", Number{0}, "0", "of that tensor, relative"}},
      .run = cycle_rank_tables};
}

}  // namespace attnreg::app
