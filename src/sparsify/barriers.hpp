#pragma once

#include <Eigen/Core>

namespace attnreg {

/// The n x n side of the two-barrier method of Batson, Spielman and Srivastava: M = sum_j s_j v_j v_j^T, and barriers
/// l I < M < u I that move up by 1 and by `upper_step` with each step. Local; no columns, no messages.
///
/// With Phi^u = tr (u I - M)^{-1} and Phi_l = tr (M - l I)^{-1}, a step to l' and u' may take any v with L(v) >= U(v),
///
///     U(v) = v^T (u'I - M)^{-2} v / (Phi^u - Phi^{u'}) + v^T (u'I - M)^{-1} v,
///     L(v) = v^T (M - l'I)^{-2} v / (Phi_{l'} - Phi_l) - v^T (M - l'I)^{-1} v,
///
/// and then adds 2 / (L + U) v v^T. One exists among v_j with sum_j v_j v_j^T = I (arXiv 0808.0163, Lemma 3.5). All of
/// it is computed in the eigenbasis of M, made anew by `advance`, so that no error grows beyond the steps between two
/// decompositions, and the potentials' differences without cancellation.
///
/// Between two decompositions, with M = Q (Lambda + Y T Y^T) Q^T for the columns Y that were added since, T their
/// weights, a resolvent is D + s D Y S Y^T D, D that of Lambda, S = (T^{-1} - s Y^T D Y)^{-1}, s = 1 for the upper and
/// -1 for the lower barrier. So L and U are exact for any v, at 4 n flops for each of these columns.
class Barriers {
 public:
  /// degree: df > 1, steps per dimension. After df n steps u / l <= ((sqrt df + 1) / (sqrt df - 1))^2.
  Barriers(Eigen::Index n, double degree);

  /// Moves the barriers by a step. False if an eigenvalue of M does not lie between them, or is not finite: rounding. 9
  /// n^3 flops at most.
  bool advance();
  /// G with v^T G v = L(v) - U(v), for the barriers as they are. n x n, symmetric.
  Eigen::MatrixXd gain() const;
  /// Adds the column v to M and returns its weight t = 2 / (L + U), or returns 0 and changes nothing if L < U beyond
  /// rounding.
  double add(const Eigen::VectorXd& v);

  // Several steps with columns that are known to be good ones:
  /// After `advance`: the columns, n x c, among which the next steps choose. 2 n^2 c flops.
  void take_candidates(Eigen::MatrixXd columns);
  /// The candidate with the largest L - U, the first of several; -1 if none has L >= U but for rounding.
  Eigen::Index best_candidate() const;
  double add_candidate(Eigen::Index candidate);  ///< As `add`.
  /// Moves the barriers by a step without a decomposition: 8 n c k flops after k columns. False, and nothing has moved,
  /// where the lower barrier has come half of the way to the smallest eigenvalue at the decomposition, or by rounding:
  /// then it is time for `advance`.
  bool advance_between();
  void retreat();  ///< Takes that step back, if nothing was added since.

  /// The extreme eigenvalues of M, as they are and not as the barriers promise.
  struct Spectrum {
    double smallest = 0, largest = 0;
    /// (largest - smallest) / (largest + smallest): the spectral error of 2 M / (smallest + largest); 1 if M is
    /// singular.
    double epsilon() const { return smallest > 0 ? (largest - smallest) / (largest + smallest) : 1; }
  };
  Spectrum spectrum() const;  ///< 9 n^3 flops at most, none after `advance` without `add`

 private:
  /// v^T R v, v^T R^2 v of the candidates v, R being the resolvent for a barrier, and tr(R R') with that before it.
  struct Forms {
    Eigen::VectorXd first, second;
    double trace = 0;  ///< 0: R is not definite, which is rounding
  };

  void refresh() const;
  Forms forms(double sign, double before, double after) const;
  Eigen::MatrixXd inner_inverse(double sign, const Eigen::ArrayXd& D) const;

  Eigen::MatrixXd M_;
  double lower_, upper_, upper_step_;
  mutable Eigen::VectorXd eigenvalues_;
  mutable Eigen::MatrixXd eigenvectors_;
  mutable bool fresh_ = false;
  Eigen::VectorXd lower_weights_, upper_weights_;  ///< L(v) and U(v) are their products with the squares of Q^T v

  Eigen::MatrixXd candidates_, rotated_, squares_;  ///< v, Q^T v, and its squares
  Eigen::VectorXd lower_sums_, upper_sums_;         ///< L and U of the candidates
  Eigen::MatrixXd added_;                           ///< Y, the columns that were added since the decomposition
  Eigen::VectorXd added_weights_;
  double gap_ = 0;  ///< from the lower barrier to the smallest eigenvalue, at the decomposition
};

/// Local. The degree for which the barriers promise epsilon in (0, 1): ((1 + sqrt(1 - epsilon^2)) / epsilon)^2.
double barrier_degree(double epsilon);

}  // namespace attnreg
