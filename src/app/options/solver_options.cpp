#include "app/options/solver_options.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "errors/printable.hpp"

namespace attnreg::app {

namespace {

constexpr std::array<std::string_view, 3> kStartNames{"auto", "zero", "cross-entropy"};
constexpr std::array kStarts{Start::automatic, Start::zero, Start::cross_entropy};
constexpr std::array kMethods{Method::automatic, Method::newton, Method::newton_cg, Method::sketched_newton};
constexpr std::array kLinearSolvers{LinearSolver::automatic, LinearSolver::rank0, LinearSolver::scalapack};
constexpr std::array kLevels{CertificateLevel::none, CertificateLevel::gradient, CertificateLevel::full};

std::vector<std::string_view> method_names() {
  std::vector<std::string_view> names;
  for (const Method method : kMethods) names.push_back(method_name(method));
  return names;
}

std::vector<std::string_view> linear_solver_names() {
  std::vector<std::string_view> names;
  for (const LinearSolver solver : kLinearSolvers) names.push_back(linear_solver_name(solver));
  return names;
}

/// The number that starts at `text`, which is moved behind it; nothing if there is none.
std::optional<double> take_number(std::string_view& text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || !std::isfinite(value)) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return value;
}

bool take_colon(std::string_view& text) {
  if (!text.starts_with(':')) return false;
  text.remove_prefix(1);
  return true;
}

}  // namespace

std::vector<Option> sketch_options() {
  return {{"sketch-rows", 0, "N", Integer{0, 100000000}, "0", "rows of the sketch behind the scores; 0: 6 D"},
          {"nonzeros", 0, "N", Integer{1, 64}, "4", "per column of the sketch"},
          {"jl-columns", 0, "N", Integer{0, 100000}, "16",
           "of the random projection of the scores; 64: factor 2, 0: exact row norms"},
          {"seed", 0, "S", Integer{0}, "1", "of the random numbers; the same rows on any number of ranks"}};
}

OptionGroup linear_solver_group() {
  return {"Large D",
          {{"linear-solver", 0, "NAME", Choice{linear_solver_names()}, "auto",
            "rank0: rank 0 factors the D x D matrices; scalapack: all ranks, and none holds one; auto: scalapack on 2 "
            "ranks or more if D >= 1000 or if memory is short"},
           {"block-size", 0, "N", Integer{1, 1 << 20}, "64", "of ScaLAPACK's blocks"},
           {"grid", 0, "RxC", Text{}, "", "of processes, R C at most the ranks; default: near-square"}}};
}

LinearSolverOptions linear_solver_options(const Arguments& arguments, int ranks) {
  LinearSolverOptions options;
  const auto names = linear_solver_names();
  options.kind = kLinearSolvers[static_cast<std::size_t>(std::ranges::find(names, arguments.text("linear-solver")) -
                                                         names.begin())];
  options.block_size = arguments.integer("block-size");
  if (!arguments.has("grid")) return options;
  const std::string text = arguments.text("grid");
  const char *const end = text.data() + text.size(), *const cross = std::find(text.data(), end, 'x');
  const auto rows = std::from_chars(text.data(), cross, options.grid_rows);
  const auto columns = std::from_chars(cross == end ? cross : cross + 1, end, options.grid_columns);
  if (rows.ec != std::errc() || rows.ptr != cross || columns.ec != std::errc() || columns.ptr != end ||
      options.grid_rows < 1 || options.grid_columns < 1)
    throw UsageError("--grid is '" + printable(text) + "'; expected ROWSxCOLUMNS, such as 2x3");
  if (std::int64_t{options.grid_rows} * options.grid_columns > ranks)
    throw UsageError("--grid " + text + " takes more processes than the " + std::to_string(ranks) + " ranks there are");
  return options;
}

std::vector<OptionGroup> solver_options() {
  std::vector<Option> sampling{{"oversampling", 0, "C", Number{0, true, 1e6}, "",
                                "about C D rows make a preconditioner, all rows if C D >= N; without, 30, or fewer "
                                "down to 10 where their Gram matrix would cost more than it saves"}};
  const auto sketch = sketch_options();
  sampling.insert(sampling.end(), sketch.begin(), sketch.end());
  return {
      {"Iteration",
       {{"method", 0, "NAME", Choice{method_names()}, "auto",
         "newton: exact Hessian; newton-cg: its products, preconditioned by sampled rows; sketched-newton: full steps "
         "with a sampled Hessian; auto: newton or newton-cg"},
        {"start", 0, "START", Text{}, "auto",
         "zero, cross-entropy (a rough minimiser of that loss), auto (one of them; a random point for the even losses "
         "and "
         "rescaled-sinh, where 0 is stationary) or a file with x, .npy"},
        {"starts", 0, "K", Integer{0, 100000}, "0", "solve from K random points as well; list the minima found"},
        {"weights-path", 0, "FIRST:LAST:COUNT", Text{}, "",
         "solve for so many weights in equal ratios, each from the solution before; in place of --weight"},
        {"rtol", 0, "R", Number{0, true, 1}, "1e-10", "stop when |g| <= R times the reference gradient"},
        {"rtol-of", 0, "REFERENCE", Choice{{"zero", "max"}}, "zero",
         "the reference: |g(0)| (losses that grow: also |g(x0)| if larger) or the largest |g| met"},
        {"max-iterations", 0, "N", Integer{0, 1000000000}, "200", "stop after N iterations"},
        {"time-limit", 0, "SECONDS", Number{0, true}, "", "stop after the iteration in which this time is over"}}},
      {"Certificate",
       {{"certificate", 0, "LEVEL", Choice{{"none", "gradient", "full"}}, "gradient",
         "full: eigenvalues of the Hessian, a bound on |x - x*|, the papers' assumptions"},
        {"epsilon", 0, "E", Number{0, true}, "",
         "go on until |x - x*| <= E is certified; implies the full certificate"}}},
      {"Sampled rows", sampling},
      linear_solver_group(),
      {"sketched-newton",
       {{"delta", 0, "P", Number{0, true, 0.999999}, "0.05", "total failure probability of all samples"},
        {"radius", 0, "R", Number{0, true}, "", "bound on |x0 - x*|; default: |g(x0)| / l where H >= l I is certified"},
        {"sampling-error", 0, "E0", Number{0, true, 0.999999}, "0.1", "relative error asked of every sample"},
        {"no-low-rank", 0, "", Switch{}, "", "drop the rank-2 part of the Hessian, as the papers do"}}}};
}

std::optional<std::string> start_file(const Arguments& arguments, std::string_view expected) {
  const std::string start = arguments.text("start");
  if (std::ranges::find(kStartNames, start) != kStartNames.end()) return std::nullopt;
  if (start.find_first_of("./") != std::string::npos) return start;
  const auto near = nearest(start, kStartNames);
  throw UsageError("--start is '" + printable(start) + "'; expected auto, zero, cross-entropy or " +
                   std::string(expected) + (near ? "; did you mean '" + std::string(*near) + "'?" : ""));
}

Start start_option(const Arguments& arguments) {
  const auto found = std::ranges::find(kStartNames, arguments.text("start")) - kStartNames.begin();
  return found < std::ssize(kStarts) ? kStarts[static_cast<std::size_t>(found)] : Start::given;
}

NewtonOptions newton_options(const Arguments& arguments) {
  NewtonOptions options;
  options.relative_tolerance = arguments.number("rtol");
  options.max_iterations = static_cast<int>(arguments.integer("max-iterations"));
  if (arguments.has("time-limit")) options.time_limit_seconds = arguments.number("time-limit");
  return options;
}

std::vector<double> weights_path(const Arguments& arguments) {
  if (!arguments.has("weights-path")) return {};
  const std::string given = arguments.text("weights-path");
  std::string_view text = given;
  const auto first = take_number(text);
  const bool first_colon = take_colon(text);
  const auto last = take_number(text);
  const bool second_colon = take_colon(text);
  const auto count = take_number(text);
  const bool complete = first && first_colon && last && second_colon && count && text.empty();
  if (!complete || !(*first > 0) || !(*last > 0) || !(*count >= 1) || *count > 10000 || *count != std::floor(*count))
    throw UsageError("--weights-path is '" + printable(given) +
                     "'; expected FIRST:LAST:COUNT with weights > 0 and 1 to 10000 of them, such as 1e-2:1e-7:10");
  std::vector<double> weights;
  const int steps = static_cast<int>(*count) - 1;
  for (int k = 0; k <= steps; ++k)
    weights.push_back(k == 0 ? *first : k == steps ? *last : *first * std::pow(*last / *first, double(k) / steps));
  return weights;
}

void check_solver_options(const Arguments& arguments, int ranks) {
  start_file(arguments);
  weights_path(arguments);
  const LinearSolver solver = linear_solver_options(arguments, ranks).kind;
  for (const std::string_view other : {"weight", "weights", "starts"}) arguments.exclude("weights-path", other);
  const bool sketched = arguments.text("method") == method_name(Method::sketched_newton);
  if (sketched && solver == LinearSolver::scalapack)
    throw UsageError("--linear-solver scalapack does not serve --method sketched-newton");
  for (const std::string_view name : {"delta", "radius", "sampling-error", "no-low-rank"})
    if (arguments.given(name) && !sketched)
      throw UsageError("--" + std::string(name) + " is for --method sketched-newton");
}

RegressionOptions regression_options(const Arguments& arguments, int ranks) {
  const auto value_of = [&](std::string_view name, const auto& names, const auto& values) {
    const auto found = std::ranges::find(names, arguments.text(name));
    return values[static_cast<std::size_t>(found - names.begin())];
  };
  RegressionOptions options;
  options.loss = arguments.text("loss");
  options.method = value_of("method", method_names(), kMethods);
  options.start = start_option(arguments);
  options.random_starts = static_cast<int>(arguments.integer("starts"));
  options.certificate = value_of("certificate", std::array<std::string_view, 3>{"none", "gradient", "full"}, kLevels);
  if (arguments.has("epsilon")) options.epsilon = arguments.number("epsilon");
  options.newton = newton_options(arguments);
  if (arguments.text("rtol-of") == "max") options.newton.reference = GradientReference::largest;
  if (arguments.has("oversampling")) options.sampling.oversampling = arguments.number("oversampling");
  options.sampling.sketch_rows = arguments.integer("sketch-rows");
  options.sampling.nonzeros = static_cast<int>(arguments.integer("nonzeros"));
  options.sampling.jl_columns = static_cast<int>(arguments.integer("jl-columns"));
  options.sampling.seed = static_cast<std::uint64_t>(arguments.integer("seed"));
  options.linear_solver = linear_solver_options(arguments, ranks);
  options.sketched_newton.delta = arguments.number("delta");
  if (arguments.has("radius")) options.sketched_newton.radius = arguments.number("radius");
  options.sketched_newton.sampling_error = arguments.number("sampling-error");
  options.sketched_newton.keep_low_rank = !arguments.on("no-low-rank");
  return options;
}

std::string weight_text(const Arguments& arguments) {
  if (arguments.given("weights")) return printable(arguments.text("weights"));
  if (arguments.syntax().name == "solve" && arguments.has("weights-path"))
    return "path " + printable(arguments.text("weights-path"));
  return arguments.text("weight") + (arguments.given("weight") ? "" : " (default)");
}

}  // namespace attnreg::app
