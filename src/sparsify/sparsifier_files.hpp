#pragma once

#include <string>
#include <vector>

#include "attnreg/sparsifier.hpp"

namespace attnreg {

/// Collective. Writes a sparsifier into a directory that is there; all ranks write at once, and the files are the same
/// for any number of ranks but for rounding:
/// - Y.npy, n x m in Fortran order, so that each rank's columns are one piece; for sparse X Y.npz in CSC, as
///   `scipy.sparse.save_npz` writes it;
/// - columns.npy and weights.npy, m values each, int64 and float64: the numbers j in X, from 0, and weight_j. Not for
///   jl.
/// The names are returned. Files of these names are replaced, one by one. Throws `OutputError` on all ranks.
std::vector<std::string> write_sparsifier(const Sparsifier& result, ColumnMethod method, const std::string& directory);

}  // namespace attnreg
