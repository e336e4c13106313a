#pragma once

#include "heads/gauss_newton.hpp"

namespace attnreg {

/// Collective. The X of any rank that fits log-odds best, by at most 60 conjugate gradients on the linear problem.
HeadFactors best_full(HeadPasses& passes, HeadFactors from, HeadLoss loss = HeadLoss::log_odds);

/// Standard normal factors in whitened coordinates. Replicated, a function of the seed.
HeadFactors random_factors(const HeadPasses& passes, Index rank, std::uint64_t seed);

/// What predicts held-out sequences best.
struct HeldOutChoice {
  HeadMatrices X;    ///< a start for all sequences
  Index rank = 0;    ///< 0: any X
  double error = 0;  ///< |F - B| / |B| on what was held out
  int steps = 0, products = 0, reads = 0;
};

/// Collective. The rank, or 0 for any X, with which the rest of the sequences predicts the last eighth of them best; of
/// a single sequence the last eighth of its queries is held out. Ranks 64, 48, 40, 32, 24, 16, 8, each from the best X
/// of that rank in the one above, which begins at a random one. More is not worth it: too high a rank is cheap.
HeldOutChoice rank_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                              const HeadTargets& head, HeadLoss loss, const HeadOptions& options);

/// Collective. Of any X: the weight W^2 of 1/2 W^2 |Z|^2 with which the log-odds predict what is held out best, 0 or
/// 1e-4, 1e-3, ...; larger ones are tried as long as they do better. 0 where nothing can be held out.
double ridge_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                        const HeadTargets& head);

}  // namespace attnreg
