// Random small problems, solved, and all that the solver says about them compared with 50 digits.
//
// hunt --first N --count M: problems N to N + M - 1, each a function of its number. With several ranks they solve each
// problem together; with --alone each rank solves some, by itself. --only KIND and --method NAME leave out all others.
// With --offsets the problems have offsets of the logits, and masked rows.
// Prints the violations; the exit code is 1 if there are any.

#include <mpi.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <exception>
#include <iostream>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "attnreg/error.hpp"
#include "statistical/exact.hpp"
#include "statistical/hunted_problem.hpp"
#include "statistical/verdict.hpp"
#include "support/reference.hpp"

namespace attnreg::hunt {

namespace {

struct HuntOptions {
  std::int64_t first = 0, count = 2000;
  std::string only;       ///< a kind of problem
  std::string method;     ///< the only one
  std::string directory;  ///< where the problems with a violation are written
  bool alone = false;
  bool offsets = false;
  bool verbose = false;
};

HuntOptions parse(const std::vector<std::string>& words) {
  HuntOptions options;
  for (std::size_t k = 0; k < words.size(); ++k) {
    const auto value = [&] {
      if (k + 1 == words.size()) throw std::invalid_argument(words[k] + " needs a value");
      return words[++k];
    };
    if (words[k] == "--first")
      options.first = std::stoll(value());
    else if (words[k] == "--count")
      options.count = std::stoll(value());
    else if (words[k] == "--only")
      options.only = value();
    else if (words[k] == "--method")
      options.method = value();
    else if (words[k] == "--write")
      options.directory = value();
    else if (words[k] == "--alone")
      options.alone = true;
    else if (words[k] == "--offsets")
      options.offsets = true;
    else if (words[k] == "--verbose")
      options.verbose = true;
    else
      throw std::invalid_argument(
          "unknown option " + words[k] +
          "; there are --first N, --count M, --only KIND, --method NAME, --write DIR, --alone, --offsets, --verbose");
  }
  const auto& kinds = problem_kinds();
  if (!options.only.empty() && std::ranges::find(kinds, options.only) == kinds.end()) {
    std::string message = "unknown kind " + options.only + "; there are";
    for (const auto kind : kinds) message += " " + std::string(kind);
    throw std::invalid_argument(message);
  }
  return options;
}

/// The formulas of the reference against differences, one problem of every loss.
void check_reference() {
  for (const auto loss : loss_names()) {
    const auto made = reference::random_problem(7, 3, 1, 0.1, 5);
    const Eigen::VectorXd offset = reference::random_vector(7, 6);
    const double error = ExactProblem({made.A, made.b, made.w, std::string(loss), offset})
                             .error_of_derivatives(Eigen::Vector3d(0.3, -0.2, 0.5));
    if (!(error < 1e-18))
      throw std::logic_error("the reference is wrong: " + std::string(loss) + ", " + std::to_string(error));
  }
}

class Hunt {
 public:
  Hunt(const HuntOptions& options, int rank, int ranks)
      : options_(options), communicator_(options.alone ? MPI_COMM_SELF : MPI_COMM_WORLD), rank_(rank), ranks_(ranks) {}

  void run() {
    for (std::int64_t number = options_.first; number < options_.first + options_.count; ++number) {
      if (!options_.only.empty() && kind_of(number) != options_.only) continue;
      if (!options_.method.empty() && method_name(method_of(number)) != options_.method) continue;
      const bool mine = number % ranks_ == rank_;
      if (!options_.alone || mine) solve(hunted_problem(number, options_.offsets), mine);
    }
  }

  /// Collective. Prints the counts of all ranks; whether there was a violation.
  bool summarise(double seconds) {
    std::array<std::int64_t, 2> totals{problems_, 0};
    std::string endings, kinds;
    for (const auto& [name, count] : total(endings_, ending_names())) endings += "  " + name + " " + count;
    for (const auto& [name, count] : total(violations_, violation_names())) {
      kinds += "  " + name + " " + count;
      totals[1] += std::stoll(count);
    }
    MPI_Allreduce(MPI_IN_PLACE, totals.data(), 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
    if (rank_ == 0)
      std::cout << totals[0] << " problems from " << options_.first << " on, " << seconds << " s:" << endings << '\n'
                << totals[1] << " violations" << (totals[1] > 0 ? ":" + kinds : "") << std::endl;
    return totals[1] > 0;
  }

 private:
  using Counts = std::map<std::string, std::int64_t>;

  static std::vector<std::string> ending_names() {
    std::vector<std::string> names{"refused"};
    for (int k = 0; k <= static_cast<int>(Termination::diverged); ++k)
      names.emplace_back(termination_name(static_cast<Termination>(k)));
    return names;
  }

  static std::vector<std::string> violation_names() {
    std::vector<std::string> names;
    for (const auto& kind : violation_kinds()) names.emplace_back(kind.name);
    return names;
  }

  /// Collective. The counts above 0 of all ranks.
  static std::vector<std::pair<std::string, std::string>> total(Counts& counts, const std::vector<std::string>& names) {
    std::vector<std::pair<std::string, std::string>> totals;
    for (const auto& name : names) {
      std::int64_t count = counts[name];
      MPI_Allreduce(MPI_IN_PLACE, &count, 1, MPI_INT64_T, MPI_SUM, MPI_COMM_WORLD);
      if (count > 0) totals.emplace_back(name, std::to_string(count));
    }
    return totals;
  }

  /// Collective, unless alone. Every rank solves, the one whose turn it is judges.
  void solve(const HuntedProblem& hunted, bool mine) {
    if (options_.verbose && mine) std::cerr << hunted.number << ' ' << description(hunted) << std::endl;
    std::vector<Violation> found;
    std::string ending;
    try {
      const auto [A, b, w, loss, offset] = with_masked_rows(hunted);
      const auto holding = hunted.is_sparse ? reference::Holding::sparse64 : reference::Holding::float64;
      const auto data =
          reference::distribute(communicator_, {A, b, w, loss, offset}, reference::Layout::random, holding);
      RegressionOptions options = hunted.options;
      options.offset = data.offset;
      const RegressionResult result = solve_regression(data.A, data.b, data.w, options);
      ending = termination_name(result.summary.termination);
      if (mine) found = judge(hunted, result);
    } catch (const InvalidArgument& error) {
      ending = "refused";
      if (!may_be_refused(hunted)) found.push_back({"exception", error.what()});
    } catch (const std::exception& error) {
      found.push_back({"exception", error.what()});
    }
    if (!mine) return;
    if (options_.verbose) std::cerr << hunted.number << ' ' << ending << std::endl;
    ++problems_;
    if (!ending.empty()) ++endings_[ending];
    if (!found.empty()) print(hunted, found);
  }

  /// One write, so that the lines of several ranks do not mix.
  void print(const HuntedProblem& hunted, const std::vector<Violation>& found) {
    const std::string number = std::to_string(hunted.number);
    std::string text;
    for (const auto& [kind, what] : found) {
      ++violations_[kind];
      text += "violation of " + kind + ": problem " + number + " (" + description(hunted) + "): " + what + '\n';
    }
    if (!options_.directory.empty())
      text += "  " + number + ": " + write_files(hunted, options_.directory) + '\n';
    else
      text +=
          "  repeat: hunt --first " + number + " --count 1 --write DIR" + (options_.offsets ? " --offsets\n" : "\n");
    std::cout << text << std::flush;
  }

  const HuntOptions& options_;
  Communicator communicator_;
  int rank_, ranks_;
  std::int64_t problems_ = 0;
  Counts endings_, violations_;
};

int hunt(const std::vector<std::string>& words, int rank, int ranks) {
  try {
    const HuntOptions options = parse(words);
    check_reference();
    const auto begin = std::chrono::steady_clock::now();
    Hunt hunt(options, rank, ranks);
    hunt.run();
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
    return hunt.summarise(seconds.count()) ? 1 : 0;
  } catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 2;
  }
}

}  // namespace

}  // namespace attnreg::hunt

int main(int argc, char** argv) {
  int provided = MPI_THREAD_SINGLE, rank = 0, ranks = 1;
  MPI_Init_thread(&argc, &argv, MPI_THREAD_FUNNELED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  const int code = attnreg::hunt::hunt({argv + 1, argv + argc}, rank, ranks);
  MPI_Finalize();
  return code;
}
