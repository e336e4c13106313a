#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "app/options/options.hpp"
#include "attnreg/attention_regression.hpp"
#include "attnreg/regression.hpp"

// The words of a result: why it ended, what it is worth, what to do next. All functions are local. Sparsifiers, whose
// results are of another kind, have theirs in sparsify_report.cpp.

namespace attnreg::app {

ExitCode exit_code(Termination termination);

/// Why an iteration stopped, as an inequality with its numbers. reference: what |g| is compared with, "|g(0)|".
std::string termination_text(const Arguments& arguments, const NewtonSummary& summary, const std::string& reference);

/// What a result means for the user, in one sentence; where it did not converge, what to do next.
std::string verdict_text(const Arguments& arguments, const RegressionResult& result);
std::string verdict_text(const Arguments& arguments, const AttentionResult& result);

/// Of several results (targets, weights of a path): a line for each reason for which some of them did not converge, how
/// many these are, and what to do next. noun: "target".
std::vector<std::string> failures_text(const Arguments& arguments, const std::vector<RegressionResult>& results,
                                       const std::string& noun);
/// What to do where a limit of time, or a signal, came before all of several solves were begun.
std::string cut_off_text(const Arguments& arguments, bool is_stopped);

/// On a head; predicts: none without held-out sequences.
std::string verdict_text(bool converged, std::optional<HeadVerdict> predicts);
/// On a layer.
std::string verdict_text(const Arguments& arguments, const LayerResult& layer);

/// How well f reproduces b, in words; rows: those of A.
std::string fit_reading(const FitQuality& fit, std::int64_t rows);
/// The same of |fitted - target| / |target|: "F reproduces B well: |F - B| is 3 % of |B|".
std::string residual_reading(double residual, const std::string& fitted = "f", const std::string& target = "b");

/// What kind of stationary point it is.
std::string kind_text(StationaryKind kind);

}  // namespace attnreg::app
