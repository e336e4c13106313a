#pragma once

#include <cstdint>
#include <fstream>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "machine.hpp"
#include "matrix.hpp"

namespace attnreg::bench {

/// Collective. Seconds of `run` between a barrier and the end of the slowest rank.
double timed(const Communicator& communicator, const std::function<void()>& run);

/// Local. Sum of the 64-bit words of A, each thread through its part from end to end: the definition of R.
std::uint64_t sum_in_one_stream(const BenchMatrix& matrix);
/// Local. The same sum, every chunk read as four pieces at once: what the dense kernels do with a tile.
std::uint64_t sum_in_four_streams(const BenchMatrix& matrix);

/// Seconds of one read of A: the best of several sums.
struct ReadTime {
  double one_stream, four_streams;
  double least() const { return std::min(one_stream, four_streams); }
};
/// Collective.
ReadTime read_time(const BenchMatrix& matrix, int sums);

/// A piece of work that is measured.
struct Kernel {
  std::string name;
  std::string goal = {};                  ///< "G1"; empty: none
  std::function<void()> run;              ///< the same work on every call
  std::function<void()> prepare = [] {};  ///< before every run, not timed
  std::function<double()> error = {};     ///< after a run: relative error against a naive formula; empty: not checked
  double tolerance = 0;
  int share = 1;            ///< times are divided by this: right-hand sides
  std::string versus = {};  ///< another kernel, alternated with this one
};

struct Quantiles {
  double median = 0, least = 0, largest = 0;
};

/// Times in seconds; ratios are those of times taken one after another.
struct Measurement {
  std::string name, goal;
  int repeats = 0;
  double seconds = 0;              ///< median
  ReadTime read{};                 ///< best of all sums taken between the repetitions
  double reads = 0;                ///< passes over A as the library counts them
  Quantiles over_read = {};        ///< time / R
  Quantiles over_least_read = {};  ///< time / min(R, R4)
  std::string versus = {};
  Quantiles over_versus = {};  ///< time / time of `versus`
  double error = -1;           ///< -1: not checked
  double tolerance = 0;
};

/// Collective. At least `repeat` sums in each of the two forms; as many runs, fewer if one takes more than 10 R.
Measurement measure(const BenchMatrix& matrix, const Kernel& kernel, const Kernel* versus, int repeat);

/// One line per measurement, on rank 0: to the terminal and as CSV.
class Report {
 public:
  /// `facts` begin every line of the CSV file; no file if `path` is empty. Appends to a file that is there.
  Report(const Communicator& communicator, const std::string& path, Facts facts);

  void add(const Measurement& measurement);
  /// Columns of their own, with the names "key" and "value": single figures.
  void add_figure(const std::string& name, const std::string& goal, double value, double limit = 0);
  void say(const std::string& line) const;

 private:
  void write(const Facts& fields);

  bool is_root_;
  std::ofstream file_;
  Facts facts_;
};

}  // namespace attnreg::bench
