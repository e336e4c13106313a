#include "sparsify/sparsifier_files.hpp"

#include "attnreg/files.hpp"
#include "files/byte_order.hpp"
#include "files/npz_writer.hpp"
#include "files/output_file.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

/// Collective.
void write_dense(const RowMatrix& Y, const std::string& path) {
  SharedArray file(Y.communicator(), path, {{}, "<f8", 8, {Y.columns(), Y.rows_global()}, true});
  for (Index i = 0; i < Y.rows_local(); ++i) {
    const RowMajorMatrix row = dense_rows(Y, i, 1);
    file.write(8 * Y.columns() * (Y.first_row() + i),
               little_endian(std::vector<double>(row.data(), row.data() + row.size())));
  }
  file.commit();
}

}  // namespace

std::vector<std::string> write_sparsifier(const Sparsifier& result, ColumnMethod method, const std::string& directory) {
  const RowMatrix& Y = result.Y;
  const std::string name = directory + (Y.is_sparse() ? "/Y.npz" : "/Y.npy");
  if (Y.is_sparse())
    write_sparse(Y.communicator(), name, "csc", Y.first_row(), Y.rows_global(),
                 sparse_rows(dense_rows(Y, 0, Y.rows_local())));  // the rows of Y are the columns in the file
  else
    write_dense(Y, name);
  if (method == ColumnMethod::jl) return {name};
  const std::int64_t first = result.columns.empty() ? 0 : Y.first_row();
  const Communicator& communicator = Y.communicator();
  write_integers(communicator, directory + "/columns.npy", result.columns, first, result.columns_global);
  write_npy(communicator, directory + "/weights.npy", {result.columns_global}, first, span_of(result.weights));
  return {name, directory + "/columns.npy", directory + "/weights.npy"};
}

}  // namespace attnreg
