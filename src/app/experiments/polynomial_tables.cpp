#include "app/experiments/all_experiments.hpp"
#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"

namespace attnreg::app {

namespace {

/// The parameters of the command line. Throws `UsageError`, or `InvalidArgument` where n is no multiple of d - 2.
experiments::PolynomialAttention polynomial_options(const Arguments& arguments) {
  experiments::PolynomialAttention options;
  const std::int64_t n = arguments.integer("n"), kinds = arguments.integer("d") - 2;
  require(n % kinds == 0, "n = " + std::to_string(n) + " tokens are no multiple of d - 2 = " + std::to_string(kinds));
  options.columns = kinds + 2;
  options.copies = n / kinds;
  options.a0 = arguments.number("a0");
  options.a1 = arguments.number("a1");
  options.b = arguments.number("b");
  options.c = arguments.number("c");
  options.theta = arguments.number("theta");
  options.draws = arguments.count("draws");
  options.seed = arguments.seed();
  options.degrees = numbers_in<std::int64_t>(arguments.text("degrees"), ',');
  for (const std::int64_t degree : options.degrees)
    if (degree < 1 || degree > 1 << 20) options.degrees.clear();
  if (options.degrees.empty())
    throw UsageError("--degrees is '" + printable(arguments.text("degrees")) +
                     "'; expected numbers from 1 to 1048576, such as 1,2,4");
  return options;
}

std::vector<experiments::Table> polynomial_tables(const Communicator& communicator, const Arguments& arguments,
                                                  const ReportDirectory& /*directory*/) {
  using namespace experiments;
  const auto& files = arguments.rest();
  if (!files.empty()) {
    if (files.size() != 2) throw UsageError("experiment polynomial takes two files, D0.npy and D1.npy, or none");
    arguments.refuse({"n", "d", "a0", "a1", "b"}, "is of data that are made, without files");
  }
  const PolynomialAttention options = polynomial_options(arguments);
  if (!files.empty()) {
    const RowMatrix D0 = load_matrix(communicator, files[0], StorageChoice::float64);
    return {polynomial_sets(D0, load_matrix(communicator, files[1], StorageChoice::float64), options)};
  }
  for (const std::string_view name : {"n", "d", "a0", "a1", "b", "c", "theta", "degrees", "draws"})
    if (arguments.given(name)) return {polynomial_attention(communicator, options)};
  const std::uint64_t seed = arguments.seed();
  return {polynomial_attention(communicator, options),
          polynomial_attention(communicator,
                               {.columns = 66, .copies = 64, .a1 = 0.7, .c = 0.05, .degrees = {1, 2}, .seed = seed}),
          polynomial_vector(communicator, {.seed = seed})};
}

}  // namespace

Experiment polynomial_experiment() {
  constexpr double kAny = -1e100;
  return {.name = "polynomial",
          .summary = "attention by powers separates two data sets (arXiv 2310.20051)",
          .files = "D0.npy D1.npy",
          .least_files = 0,
          .most_files = 2,
          .options = {{"n", 0, "N", Integer{1, 1 << 24}, "1024", "tokens, a multiple of D - 2"},
                      {"d", 0, "D", Integer{3, 1 << 20}, "34", "columns of the tokens"},
                      {"a0", 0, "A", Number{kAny, false, 1e100}, "0.05", "entry of the special token in D_0"},
                      {"a1", 0, "A", Number{kAny, false, 1e100}, "1", "the same in D_1"},
                      {"b", 0, "B", Number{kAny, false, 1e100}, "0.04", "entry that tells the kind of a token"},
                      {"c", 0, "C", Number{0, true, 1e100}, "0.5",
                       "entry that all tokens have; the threshold is C + THETA, also of files D_0 and D_1"},
                      {"theta", 0, "THETA", Number{kAny, false, 1e100}, "0.1", "of the threshold"},
                      {"degrees", 0, "LIST", Text{}, "1,2,3,4,5,6,8,16,32,64", "of the polynomials"},
                      {"draws", 0, "N", Integer{1, 100000}, "40", "of the random sign vectors"}},
          .run = polynomial_tables};
}

}  // namespace attnreg::app
