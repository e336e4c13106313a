#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "objective/regression_objective.hpp"
#include "surrogate/row_sample.hpp"

namespace attnreg {

/// The surrogate of an objective near a point x: the loss on sampled rows + e . s + 1/2 s^T B s, s from x on, whose
/// gradient is exact at x and at points met that are near. Its work is done where the sample is; what comes of it is
/// replicated.
///
/// All members are collective, unless they are called Local; none reads A, but `use`. Where rank 0 has the sample each
/// takes one broadcast, else what `newton_cg` on the sample takes.
class SampledSurrogate {
 public:
  using Expected = RegressionObjective::Expected;

  struct TargetSums {  ///< of b, over all rows
    double all = 0, positive = 0;
  };
  SampledSurrogate(const RegressionObjective& all, std::uint64_t seed, TargetSums sums)
      : all_(all), seed_(seed), sums_(sums) {}

  /// Another sample, as `RowSample` makes it.
  void use(const Point& base, const Eigen::VectorXd& probabilities, const RowSample::Draw& draw,
           const RowSample::Place& place);
  const RowSample& sample() const { return *sample_; }  ///< Local.
  /// Local. A point of all rows, which may become a secant.
  void remember(const Point& point);

  struct CoarseOptions {
    bool cross_entropy = false;         ///< starts at minimisers of cross-entropies, which may lead lower
    bool cross_entropy_if_far = false;  ///< likewise, unless the first model step says that the point is near
    int random_starts = 0;              ///< more starts
    double accuracy = 1e-2;             ///< |g| at the end, relative to that at the point
    int max_iterations = 40;
    double seconds = std::numeric_limits<double>::infinity();  ///< no more random starts later than this
  };
  /// Where descents on the sample ended, and which of the starts led there, by their numbers: 0 is the point, 1 to 3
  /// are the cross-entropies, and 4 is the first of the random ones.
  struct End {
    Eigen::VectorXd x;
    double value = 0;
    std::vector<int> starts;
  };
  struct Coarse {
    std::vector<Expected> candidates;  ///< the lowest end first, others, a start; none: the sample makes no model
    double predicted = 0;              ///< change of L to the first of them
    double first_move = 0;             ///< of the logits, by the first model step
    bool is_near = false;              ///< that says that the point is near
    Eigen::MatrixXd projection;        ///< as of `Next`
    std::vector<End> ends;             ///< those that differ, the lowest first; L to 1e-3 tells
  };
  /// On a sample where nothing but the point is known: a minimiser from there, or from a cross-entropy's. Where that is
  /// far from where it started, as where there are several minima, also from that of b^2, and of b^1.5 if this led
  /// elsewhere.
  Coarse minimise_coarsely(const Point& point, const CoarseOptions& options, std::uint32_t round);

  struct Next {
    Expected expected;
    double predicted = 0;        ///< change of L
    double largest_u = 0;        ///< |u_i| of the sampled rows, from x
    double moved = 0;            ///< and from the sample's base
    Eigen::MatrixXd projection;  ///< d x 16, N: |a_i^T N|^2 is about a_i^T M^-1 a_i; empty: as before
  };
  /// Corrects at the point, and minimises to `accuracy` of |g|. The preconditioner and the projection are made with a
  /// new sample, or where they are asked for. round: keys the random numbers of a projection.
  Next next(const Point& point, double accuracy, bool needs_projection, std::uint32_t round);

  /// Whether |g|_M^-1 is less at the first point.
  bool is_nearer(const Point& first, const Point& second);
  double sample_reads() const { return sample_reads_; }  ///< Local. All work so far, in reads of A.
  bool is_singular() const { return is_singular_; }      ///< Local. The last model was: columns depend on others.

 private:
  int probes() const { return all_.replicated_ridge_gram() ? kSharedProbes : kProbes; }  // columns of a projection
  static constexpr int kProbes = 16, kSharedProbes = 8;

  /// A point met, and what the present sample says there.
  struct Met {
    Eigen::VectorXd x, gradient;
    Eigen::VectorXd sampled_gradient{}, logits{};  // empty: not known yet; logits: of the sampled rows here
    bool is_known = false;
  };

  struct Descent {
    End end;
    Expected expected;
  };

  RegressionObjective& sampled() { return problem_->objective; }
  Eigen::VectorXd ask(Eigen::Index size, const std::function<void(Eigen::VectorXd&)>& work);
  Eigen::MatrixXd projection(std::uint32_t round);
  Expected expected_at(const Point& there) const;
  void correct(const Point& point);
  void look_back(const Point& point);
  Point cross_entropy_start(const Eigen::VectorXd& x, double power, const Eigen::VectorXd& norms);
  Coarse ends_of_starts(const Point& point, bool from_entropies, const CoarseOptions& options, std::uint32_t round);
  bool add_end(std::vector<Descent>& descents, Point end, int start);
  void move_to_minimiser(const Point& point, double accuracy);

  const RegressionObjective& all_;
  std::uint64_t seed_;
  TargetSums sums_;
  std::unique_ptr<RowSample> sample_;
  bool is_new_ = true;   // the sample: `next` has not seen it
  std::deque<Met> met_;  // the last first
  double sample_reads_ = 0, earlier_reads_ = 0;
  bool is_singular_ = false;

  // Where the sample is.
  std::unique_ptr<SampledProblem> problem_;
  std::optional<Point> there_;   // of the sampled problem, at x or at the last `Next`
  double normaliser_error_ = 0;  // of the logarithm at x
  double other_models_ = 0;      // of the cross-entropy on this sample
};

}  // namespace attnreg
