#pragma once

#include "heads/gauss_newton.hpp"

namespace attnreg {

/// Collective. The X of any rank that fits log-odds best, with or without weights b: the U that minimises
/// 1/2 |log-odds - Z|^2 + ridge / 2 |U|^2, for each of the ridges, of which the first is the smallest. |U|^2 is |Z|^2
/// of all queries with the keys of all sequences. At most 120 conjugate gradients; all ridges take the same products,
/// as their Krylov spaces are the same. Source: Jegerlehner, hep-lat/9612014.
std::vector<HeadFactors> fit_full(HeadPasses& passes, HeadLoss loss, const std::vector<double>& ridges);
/// The same for one ridge, from another U.
HeadFactors fit_full_from(HeadPasses& passes, HeadLoss loss, double ridge, HeadFactors from);

/// Collective: rank 0 factors, one broadcast. The nearest U of rank r, as a full one.
HeadFactors truncated_full(const HeadPasses& passes, const HeadFactors& u, Index rank);

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
                              const HeadTargets& head, HeadLoss loss, const HeadOptions& options,
                              const std::shared_ptr<Journal>& journal);

/// How any X predicts what is held out best.
struct FullChoice {
  HeadMatrices X;    ///< a start for all sequences, not truncated; empty: X = 0
  double ridge = 0;  ///< of `fit_full`: 0, or 1e-5, 1e-4, ...
  Index rank = 0;    ///< to which that X is truncated; 0: it is not
  double error = 0;  ///< |F - B| / |B| on what was held out
  int products = 0, reads = 0;
};

/// Collective. Nothing is chosen where nothing can be held out.
FullChoice full_by_holdout(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                           const HeadTargets& head);

}  // namespace attnreg
