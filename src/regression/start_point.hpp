#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "attnreg/regression.hpp"
#include "objective/regression_objective.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg {

/// Where a solve starts, and why there.
struct StartPoint {
  Eigen::VectorXd x;
  Start kind = Start::zero;
  std::string name;                   ///< "zero", "cross-entropy", "file", "random 2"
  int iterations = 0;                 ///< spent on it
  double most = 1;                    ///< L there that is taken, in units of L(0)
  std::vector<std::string> others{};  ///< names of starts that came to the same point on the way
};

/// Local. The standard deviation of the logits at the automatic start of a loss for which x = 0 is stationary: even
/// losses leave it along negative curvature, or have a minimum there; from where phi vanishes one must stay away. 0 for
/// the other losses, which need no such start.
double deviation_of_start(const Loss& loss);

/// Collective. Solves from `first` and then, if there are `others`, from other(1), other(2), ..., until there is none;
/// `solve` moves `point`, which is left at the end that is the result: the lowest, whatever ended its solve. It may
/// know more of its start afterwards. Fills in summary, start and minima of the result; values closer than `same` are
/// one minimum. Returns where the solve of the result started.
StartPoint solve_from_starts(Objective& objective, Point& point, StartPoint first, bool others, double same,
                             const std::function<NewtonSummary(StartPoint&)>& solve,
                             const std::function<std::optional<StartPoint>(int k)>& other, SolveResult& result);

/// Collective. Moves the point to the start; of one that was not given, in halves towards 0, where `zero` is the value,
/// until L is no larger than `most` times that, or to 0 itself. Not of losses that are bounded, or vanish at 0. Says so
/// in `notes`.
void start_at(Objective& objective, Point& point, const StartPoint& start, const Loss& loss, double zero,
              std::vector<std::string>& notes);

/// Local. How a note on what was left out begins: "stopped: ", else "time limit: ".
std::string over_text(bool stopped);
/// Local. Notes on what a time limit or a stop cut off: "the solve from zero", or the random starts from k on.
void note_cut_off(const std::string& what, const NewtonSummary& summary, std::vector<std::string>& notes);
void note_starts_left_out(bool stopped, int k, int random_starts, std::vector<std::string>& notes);
/// Local. The end of a solve that had converged, and that was stopped before the rest of what was asked for.
void note_stop(bool stopped, SolveResult& result);

/// Local. What is odd about where a solve ended; a success with L above `value_at_zero` is none (`diverged`). `x` is
/// the unknown's name, `at_zero`: the solve ended there.
void describe_end(const Loss& loss, const std::string& x, bool at_zero, double value_at_zero, SolveResult& result);

/// Which of the two methods that start anywhere is cheaper: reads of A, or their equivalent in arithmetic, per step.
/// Local, replicated.
Method cheaper_method(std::int64_t rows, Eigen::Index columns, const SamplingOptions& sampling);
/// Local, replicated. Whether the Gram matrix of the regulariser is worth a pass, for so many targets that share it.
bool gram_pays(Eigen::Index columns, int targets);
/// Likewise where the minimum is near x = 0, so that one exact step is enough, or one solve by conjugate gradients.
Method method_near_zero(Eigen::Index columns);

/// Collective. Minimises by `newton` or `newton_cg`.
NewtonSummary minimise(Method method, Objective& objective, Point& point, const NewtonOptions& options);

/// Collective. The start that the options ask for, by a test at x = 0, where `point` is, if they leave it open.
/// Says in `notes` what was decided and why. One read and a model for the test, and what the cross-entropy start takes.
StartPoint choose_start(RegressionObjective& objective, const Point& point, const RegressionOptions& options,
                        Method method, std::vector<std::string>& notes);

/// Local. The start that an end on a sample stands for, to go on from there.
StartPoint start_from(const SampledEnd& end);

/// Collective, one read. Start number `k` >= 1 of the random ones: Gaussian in the metric of the objective's
/// preconditioner, which is made at `point` if there is none, scaled so that the logits A x have standard deviation 2.
/// Empty if none can be made.
std::optional<StartPoint> random_start(RegressionObjective& objective, const Point& point, std::uint64_t seed, int k);

/// Local. Reports records with the name of their start, which must outlive the result; none of none.
std::function<void(const IterationRecord&)> with_start(const std::function<void(const IterationRecord&)>& report,
                                                       const std::string& name);

}  // namespace attnreg
