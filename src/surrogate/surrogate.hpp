#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "attnreg/solver.hpp"
#include "objective/regression_objective.hpp"

namespace attnreg {

/// What goes on from where the coarse solve ends.
enum class AfterSample { surrogates, newton, newton_cg };

struct SurrogateOptions {
  std::uint64_t seed = 1;
  bool try_cross_entropy = true;  ///< a coarse solve of the cross-entropy comes first, unless x = 0 is near
  bool must_try_it = false;       ///< also then
  int random_starts = 0;          ///< more starts of coarse solves
  double few = -1;                ///< numbers of a sample that rank 0 works on alone, at most; < 0: by their work
  AfterSample then = AfterSample::surrogates, if_near = AfterSample::surrogates;  ///< if x = 0 is near
};

/// An end of a coarse solve, and the starts that led there: "cross-entropy of b^2", "random 3".
struct SampledEnd {
  Eigen::VectorXd x;
  std::vector<std::string> starts;
};

/// How a solve by surrogates ended.
struct SurrogateSummary {
  NewtonSummary newton;
  AfterSample then;         ///< what was done
  double sample_reads = 0;  ///< work on samples, in reads of A
  /// With more starts, all that differ; else the one that was taken, which is the first in any case. Empty: none.
  std::vector<SampledEnd> ends;
  std::vector<std::string> notes{};
};

/// Numbers of A, 4 MiB: rank 0 solves it before messages would have arrived.
constexpr double small_problem = 1 << 19;

/// Local, replicated. Whether there is a surrogate for the loss.
bool has_surrogate(std::string_view loss);
/// Local, replicated. Whether samples are small beside A.
bool sample_saves(std::int64_t rows, Eigen::Index columns);
inline bool sample_saves(const RowMatrix& A) { return sample_saves(A.rows_global(), A.columns()); }
/// Local. Rows of a sample in units of d, about: c by scores, and those by f; the first one, chosen without scores, has
/// 50 d.
double rows_by_scores(std::int64_t rows, Eigen::Index columns);
constexpr double rows_by_mass = 20, first_rows = 50;
/// Collective if A is sparse, one all-reduce of 8 bytes. Whether rank 0 may have all rows: then it solves where samples
/// do not save.
bool fits_on_root(const RowMatrix& A);
/// Local. Likewise of the numbers that the rows have: an entry of a sparse one has two, a row one more.
bool fits_on_root(double numbers);

/// Collective. Minimises a softmax or cross-entropy objective, from the point on, with about one read of A a step:
///
///     x  <-  a minimiser of the loss on sampled rows, solved coarsely                             (no read of A)
///     repeat
///       L(x), g(x)                                                            (one read, candidates together)
///       a new sample by |delta| + w^2, where this one is dear
///       surrogate  <-  the loss on the sampled rows + e . s + 1/2 s^T B s, whose gradient is exact at x and at the
///                      points met lately
///       x+  <-  a minimiser of the surrogate, by newton_cg
///       x   <-  x+ if L is lower there, else a part of the way                                    (no read)
///     until |g|_s is small, or that does not serve
///     newton_cg, which confirms, or goes on
///
/// Where other methods are to go on after the first step, it finds their start.
///
/// The surrogate with e is DANE (Shamir, Srebro, Zhang 2014), or SVRG (Johnson, Zhang 2013). All decisions rest on
/// exact L and g. The sampled rows are the same on any number of ranks. docs/algorithms.md, "Surrogates".
SurrogateSummary surrogate(RegressionObjective& objective, Point& point, const NewtonOptions& options,
                           const SurrogateOptions& surrogate_options);

}  // namespace attnreg
