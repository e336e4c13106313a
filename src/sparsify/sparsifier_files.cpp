#include "sparsify/sparsifier_files.hpp"

#include "files/byte_order.hpp"
#include "files/npz_writer.hpp"
#include "files/output_file.hpp"
#include "rows/dense_rows.hpp"

namespace attnreg {

namespace {

/// Collective. A vector, of which this rank has the values from `first` on.
template <class Scalar>
void write_vector(const Communicator& communicator, const std::string& path, const std::string& dtype,
                  std::vector<Scalar> values, std::int64_t first, std::int64_t size) {
  SharedArray file(communicator, path, {{}, dtype, sizeof(Scalar), {size}});
  if (!values.empty()) file.write(first * static_cast<std::int64_t>(sizeof(Scalar)), little_endian(std::move(values)));
  file.commit();
}

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
  const std::vector<double> weights(result.weights.begin(), result.weights.end());
  const std::int64_t first = weights.empty() ? 0 : Y.first_row();
  const Communicator& communicator = Y.communicator();
  write_vector(communicator, directory + "/columns.npy", "<i8", result.columns, first, result.columns_global);
  write_vector(communicator, directory + "/weights.npy", "<f8", weights, first, result.columns_global);
  return {name, directory + "/columns.npy", directory + "/weights.npy"};
}

}  // namespace attnreg
