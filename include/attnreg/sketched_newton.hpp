#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "attnreg/newton.hpp"

namespace attnreg {

/// What a step of `sketched_newton` rested on. All values are replicated.
struct SketchedStep {
  int iteration = 0;       ///< 1: the step from x0; that of the `IterationRecord`
  std::int64_t draws = 0;  ///< rows drawn with replacement; 0: all rows were used
  std::int64_t rows = 0;   ///< distinct ones
  /// max |v^T H~ v / v^T H v - 1|, with exact products of H where the step starts, over the step itself and random v,
  /// normally distributed in the norm of H~. A lower estimate of the spectral error, a dropped low-rank part included:
  /// random v average over the directions. +inf where some v^T H v <= 0; NaN: not measured.
  double sampling_error = 0;
  double distance_bound = 0;  ///< certified, on |x - x*| after the step; +inf where H >= l I is not certified
};

/// Algorithm 1 of the thesis (Yin 2024, after Deng, Li, Song 2023, arXiv 2304.10411), with its errors corrected
/// (docs/errata.md).
struct SketchedNewtonOptions {
  double delta = 0.05;          ///< total failure probability of all samples, in (0, 1)
  double radius = 0;            ///< r0, a bound on |x0 - x*|; 0: |g(x0)| / l where H >= l I is certified, else unknown
  double sampling_error = 0.1;  ///< e0: (1 - e0) H <= H~ <= (1 + e0) H is asked of every sample, in (0, 1)
  bool keep_low_rank = true;    ///< add the exact rank-2 part of the Hessian; the papers drop it
  int probes = 4;               ///< random vectors to measure the sampling error on, one read a step; 0: not measured
  std::function<void(const SketchedStep&)> on_step = {};  ///< called on every rank, after the step's `IterationRecord`
};

/// What came of it. All values are replicated.
struct SketchedNewtonSummary {
  NewtonSummary newton;       ///< what the other methods return
  double convexity = 0;       ///< l > 0: H(y) >= l I for every y is certified; 0: it is not
  int step_limit = 0;         ///< T = ceil(ln(r0 / epsilon) / ln 2.5), at least 1; 0: no r0 or no epsilon
  double distance_bound = 0;  ///< certified, on |x - x*|; +inf where convexity = 0
  std::vector<SketchedStep> steps;
  std::vector<std::string> notes;  ///< what was decided and why, and why it stopped; plain sentences
};

}  // namespace attnreg
