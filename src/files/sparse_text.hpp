#pragma once

#include <string>

#include "files/input_file.hpp"
#include "files/sparse_rows.hpp"

namespace attnreg {

/// Local. Whether a file is a sparse matrix in a text: Matrix Market, coordinate.
bool is_sparse_text(const InputFile& file, const std::string& name);

/// Local. The header; throws `InvalidArgument` (this rank).
SparseHeader read_sparse_text_header(const std::string& path);

/// Collective. `load_sparse` of such a file: the ranks parse blocks of the text in turn, and hand all entries round, of
/// which each keeps those of its rows. Messages: 24 bytes for each entry. The result is the same on any number of
/// ranks.
SparseRows load_sparse_text(const Communicator& communicator, const std::string& path, StorageChoice storage,
                            Orientation orientation);

}  // namespace attnreg
