#include "app/options/solver_options.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

constexpr std::array<std::string_view, 3> kStartNames{"auto", "zero", "cross-entropy"};
constexpr std::array kStarts{Start::automatic, Start::zero, Start::cross_entropy};
constexpr std::array kMethods{Method::automatic, Method::newton, Method::newton_cg, Method::sketched_newton,
                              Method::surrogate};
constexpr std::array kLinearSolvers{LinearSolver::automatic, LinearSolver::rank0, LinearSolver::scalapack};

/// A choice of the names of some values.
template <class Value, std::size_t size>
Choice choice_of(const std::array<Value, size>& values, std::string_view (*name)(Value)) {
  Choice choice;
  for (const Value value : values) choice.names.push_back(name(value));
  return choice;
}

}  // namespace

std::vector<Option> sketch_options(std::vector<Option> first, std::string_view jl_columns) {
  first.insert(
      first.end(),
      {{"sketch-rows", 0, "N", Integer{0, 100000000}, "0",
        "rows of the sketch from which the leverage scores are made; 0: 6 D", true},
       {"nonzeros", 0, "N", Integer{1, 64}, "4", "nonzeros in each column of the sketch", true},
       {"jl-columns", 0, "N", Integer{0, 100000}, jl_columns,
        "columns of the random projection that estimates row norms: 64 make scores right to a factor of 2, 0 makes "
        "row norms exact",
        true},
       {"seed", 0, "S", Integer{0}, "1", "of the random numbers; it draws the same rows on any number of ranks"}});
  return first;
}

OptionGroup linear_solver_group() {
  return {"Large D",
          {{"linear-solver", 0, "NAME", choice_of(kLinearSolvers, linear_solver_name), "auto",
            "who factors the D x D matrices. rank0: rank 0; scalapack: all ranks together, and none holds a whole one; "
            "auto: scalapack on 2 ranks or more if D >= 2000, or if D >= 512 and memory is short, else rank0"},
           {"block-size", 0, "N", Integer{1, 1 << 20}, "64", "rows and columns of a block of ScaLAPACK's layout", true},
           {"grid", 0, "RxC", Text{}, "",
            "R rows and C columns of processes for ScaLAPACK, R C at most the ranks; default: near-square", true}}};
}

LinearSolverOptions linear_solver_options(const Arguments& arguments, int ranks) {
  LinearSolverOptions options;
  options.kind = kLinearSolvers[arguments.choice("linear-solver")];
  options.block_size = arguments.integer("block-size");
  if (!arguments.has("grid")) return options;
  const std::string text = arguments.text("grid");
  const auto extents = numbers_in<int>(text, 'x');
  if (extents.size() != 2 || extents[0] < 1 || extents[1] < 1)
    throw UsageError("--grid is '" + printable(text) + "'; expected ROWSxCOLUMNS, such as 2x3");
  options.grid_rows = extents[0];
  options.grid_columns = extents[1];
  if (std::int64_t{options.grid_rows} * options.grid_columns > ranks)
    throw UsageError("--grid " + text + " takes more processes than the " + std::to_string(ranks) + " ranks there are");
  return options;
}

OptionGroup reproducible_group() {
  return {"Reproducibility",
          {{"reproducible", 0, "", Switch{}, "",
            "the same bits on any number of ranks with any number of threads, interrupted or not: the rows are divided "
            "into blocks, which are dealt out to the ranks, and every sum is made over the blocks in one order"},
           {"blocks", 0, "N", Integer{1, 65536}, "16",
            "of --reproducible: as many ranks get rows at most, and another number gives other bits. What a rank has "
            "once, D x D matrices for example, a block has once"}}};
}

int reproducible_blocks(const Arguments& arguments) {
  if (!arguments.knows("reproducible")) return 0;
  if (!arguments.on("reproducible")) {
    arguments.refuse({"blocks"}, "is for --reproducible");
    return 0;
  }
  if (arguments.knows("linear-solver") &&
      arguments.text("linear-solver") == linear_solver_name(LinearSolver::scalapack))
    throw UsageError("--linear-solver scalapack does not serve --reproducible: its sums depend on the number of ranks");
  return arguments.count("blocks");
}

Option time_limit_option() {
  return {"time-limit", 0, "SECONDS", Number{0, true}, "", "stop after the iteration in which this time is over"};
}

std::vector<OptionGroup> solver_options() {
  return {
      {"Iteration",
       {{"method", 0, "NAME", choice_of(kMethods, method_name), "auto",
         "newton: the exact Hessian; newton-cg: products with it, preconditioned by sampled rows; sketched-newton: the "
         "papers' method, full steps with a sampled Hessian; surrogate: minimisers on sampled rows, corrected by exact "
         "gradients, for softmax and cross-entropy and very tall A; auto: the cheapest one but sketched-newton"},
        {"start", 0, "START", Text{}, "auto",
         "where the iteration starts. zero: x = 0; cross-entropy: a rough minimiser of that loss; auto: the best end "
         "on "
         "a sample, one of the two, or a random point for cosh, rescaled-cosh and rescaled-sinh, for which x = 0 is "
         "stationary; else the name "
         "of a .npy file with x"},
        {"starts", 0, "K", Integer{0, 100000}, "0",
         "solve from K random points, too; keep the lowest L and list the minima"},
        {"weights-path", 0, "FIRST:LAST:COUNT", Text{}, "",
         "solve for COUNT weights in equal ratios, each from the solution before; in place of --weight"},
        {"rtol", 0, "R", Number{0, true, 1}, "1e-10", "stop when |g| <= R times the reference gradient"},
        {"rtol-of", 0, "REFERENCE", Choice{{"zero", "max"}}, "zero",
         "the reference. zero: |g(0)|, or for losses other than softmax and cross-entropy the larger one of |g(0)| and "
         "|g(x0)|; max: the largest |g| met",
         true},
        {"max-iterations", 0, "N", Integer{0, 1000000000}, "200", "stop after N iterations"},
        time_limit_option()}},
      {"Certificate",
       {{"certificate", 0, "LEVEL", Choice{{"none", "gradient", "full"}}, "gradient",
         "what is found out about x after the solve. gradient: |g| from a fresh A x; full: also the extreme "
         "eigenvalues "
         "of the Hessian, a bound on |x - x*| and the papers' assumptions"},
        {"epsilon", 0, "E", Number{0, true}, "",
         "go on until |x - x*| <= E is certified; implies the full certificate"}}},
      {"Sampled rows",
       sketch_options({{"oversampling", 0, "C", Number{0, true, 1e6}, "",
                        "a preconditioner is made of about C D rows, or of all rows if C D >= N. Default: 30; for D > "
                        "256 perhaps 20, 15 or 10, if the Gram matrix of 30 D rows would cost more time than it "
                        "saves"}})},
      linear_solver_group(),
      {"sketched-newton",
       {{"delta", 0, "P", Number{0, true, 0.999999}, "0.05", "probability that any of the samples fails", true},
        {"radius", 0, "R", Number{0, true}, "", "bound on |x0 - x*|; default: |g(x0)| / l where H >= l I is certified",
         true},
        {"sampling-error", 0, "E0", Number{0, true, 0.999999}, "0.1",
         "the relative error that every sample is to have at most", true},
        {"no-low-rank", 0, "", Switch{}, "", "drop the rank-2 part of the Hessian, as the papers do", true}}}};
}

std::optional<std::string> start_file(const Arguments& arguments, std::string_view expected) {
  const std::string start = arguments.text("start");
  if (std::ranges::find(kStartNames, start) != kStartNames.end()) return std::nullopt;
  if (start.find_first_of("./") != std::string::npos) return start;
  throw UsageError("--start is '" + printable(start) + "'; expected auto, zero, cross-entropy or " +
                   std::string(expected) + suggestion(start, kStartNames));
}

Start start_option(const Arguments& arguments) {
  const auto found = std::ranges::find(kStartNames, arguments.text("start")) - kStartNames.begin();
  return found < std::ssize(kStarts) ? kStarts[static_cast<std::size_t>(found)] : Start::given;
}

NewtonOptions newton_options(const Arguments& arguments) {
  NewtonOptions options;
  options.relative_tolerance = arguments.number("rtol");
  options.max_iterations = arguments.count("max-iterations");
  if (arguments.has("time-limit")) options.time_limit_seconds = arguments.number("time-limit");
  return options;
}

std::vector<double> weights_path(const Arguments& arguments) {
  if (!arguments.has("weights-path")) return {};
  const std::string given = arguments.text("weights-path");
  const auto parts = numbers_in<double>(given, ':');
  const auto is_weight = [](double value) { return value > 0 && std::isfinite(value); };
  if (parts.size() != 3 || !is_weight(parts[0]) || !is_weight(parts[1]) || !(parts[2] >= 1 && parts[2] <= 10000) ||
      parts[2] != std::floor(parts[2]))
    throw UsageError("--weights-path is '" + printable(given) +
                     "'; expected FIRST:LAST:COUNT with weights > 0 and 1 to 10000 of them, such as 1e-2:1e-7:10");
  std::vector<double> weights;
  const int steps = static_cast<int>(parts[2]) - 1;
  for (int k = 0; k <= steps; ++k)
    weights.push_back(k == 0       ? parts[0]
                      : k == steps ? parts[1]
                                   : parts[0] * std::pow(parts[1] / parts[0], double(k) / steps));
  return weights;
}

void check_solver_options(const Arguments& arguments, int ranks) {
  start_file(arguments);
  weights_path(arguments);
  const LinearSolver solver = linear_solver_options(arguments, ranks).kind;
  for (const std::string_view other : {"weight", "weights", "starts"}) arguments.exclude("weights-path", other);
  const bool sketched = arguments.text("method") == method_name(Method::sketched_newton);
  if ((sketched || arguments.text("method") == method_name(Method::surrogate)) && solver == LinearSolver::scalapack)
    throw UsageError("--linear-solver scalapack does not serve --method " + arguments.text("method"));
  if (!sketched)
    arguments.refuse({"delta", "radius", "sampling-error", "no-low-rank"}, "is for --method sketched-newton");
}

RegressionModel regression_model(const Arguments& arguments) {
  RegressionModel model(arguments.text("loss"));
  model.ridge_scaled = arguments.has("ridge-scaled");
  if (const char* const name = model.ridge_scaled ? "ridge-scaled" : "ridge"; arguments.has(name))
    model.ridge = arguments.number(name);
  return model;
}

RegressionOptions regression_options(const Arguments& arguments, int ranks) {
  RegressionOptions options;
  static_cast<RegressionModel&>(options) = regression_model(arguments);
  options.method = kMethods[arguments.choice("method")];
  options.start = start_option(arguments);
  options.random_starts = arguments.count("starts");
  options.certificate = static_cast<CertificateLevel>(arguments.choice("certificate"));
  if (arguments.has("epsilon")) options.epsilon = arguments.number("epsilon");
  options.newton = newton_options(arguments);
  if (arguments.text("rtol-of") == "max") options.newton.reference = GradientReference::largest;
  if (arguments.has("oversampling")) options.sampling.oversampling = arguments.number("oversampling");
  take_sketch_options(arguments, options.sampling);
  options.linear_solver = linear_solver_options(arguments, ranks);
  options.sketched_newton.delta = arguments.number("delta");
  if (arguments.has("radius")) options.sketched_newton.radius = arguments.number("radius");
  options.sketched_newton.sampling_error = arguments.number("sampling-error");
  options.sketched_newton.keep_low_rank = !arguments.on("no-low-rank");
  return options;
}

std::string weight_text(const Arguments& arguments) {
  std::string more;
  for (const std::string name : {"ridge", "ridge-scaled", "offset"})
    if (arguments.has(name)) more += ", " + name + " " + printable(arguments.text(name));
  if (arguments.given("weights")) return printable(arguments.text("weights")) + more;
  if (arguments.syntax().name == "solve" && arguments.has("weights-path"))
    return "path " + printable(arguments.text("weights-path")) + more;
  return arguments.text("weight") + (arguments.given("weight") ? "" : " (default)") + more;
}

}  // namespace attnreg::app
