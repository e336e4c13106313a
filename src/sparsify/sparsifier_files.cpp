#include "sparsify/sparsifier_files.hpp"
#include "rows/row_passes.hpp"

#include <span>

#include "files/little_endian.hpp"
#include "files/npy_header.hpp"
#include "files/npz_writer.hpp"
#include "files/shared_file.hpp"

namespace attnreg {

namespace {

/// Collective. A vector, of which this rank has the values from `first` on.
template <class Scalar>
void write_vector(const Communicator& communicator, const std::string& path, std::string_view dtype,
                  const std::vector<Scalar>& values, std::int64_t first, std::int64_t size) {
  const std::string header = npy_header_bytes(dtype, {size});
  const auto start = static_cast<std::int64_t>(header.size()), item = static_cast<std::int64_t>(sizeof(Scalar));
  SharedFile file(communicator, path, start + size * item);
  if (communicator.is_root()) file.write(0, header);
  if (!values.empty()) file.write(start + first * item, little_endian(values));
  file.commit();
}

std::vector<double> row_of(const RowMatrix& Y, Index row) {
  std::vector<double> values;
  const Index rows[] = {row};
  Y.passes().visit_rows(rows,
                        [&](std::size_t, std::span<const double> found) { values.assign(found.begin(), found.end()); });
  return values;
}

/// Collective.
void write_dense(const RowMatrix& Y, const std::string& path) {
  const Communicator& communicator = Y.communicator();
  const std::string header = npy_header_bytes("<f8", {Y.columns(), Y.rows_global()}, true);
  const auto start = static_cast<std::int64_t>(header.size()), row_bytes = std::int64_t{8} * Y.columns();
  SharedFile file(communicator, path, start + row_bytes * Y.rows_global());
  if (communicator.is_root()) file.write(0, header);
  for (Index i = 0; i < Y.rows_local(); ++i)
    file.write(start + (Y.first_row() + i) * row_bytes, little_endian(row_of(Y, i)));
  file.commit();
}

/// Collective. The rows of Y are the columns of the matrix in the file.
void write_csc(const RowMatrix& Y, const std::string& path) {
  const Communicator& communicator = Y.communicator();
  std::vector<std::int64_t> positions;
  std::vector<std::int32_t> indices;
  std::vector<double> values;
  for (Index i = 0; i < Y.rows_local(); ++i) {
    positions.push_back(static_cast<std::int64_t>(values.size()));
    const std::vector<double> row = row_of(Y, i);
    for (std::size_t j = 0; j < row.size(); ++j) {
      if (row[j] == 0) continue;
      indices.push_back(static_cast<std::int32_t>(j));
      values.push_back(row[j]);
    }
  }
  const auto counts = communicator.all_gather(static_cast<std::int64_t>(values.size()));
  std::int64_t before = 0, entries = 0;
  for (int rank = 0; rank < communicator.size(); ++rank) {
    if (rank == communicator.rank()) before = entries;
    entries += counts[static_cast<std::size_t>(rank)];
  }
  for (std::int64_t& position : positions) position += before;
  if (communicator.rank() == communicator.size() - 1) positions.push_back(entries);

  NpzWriter archive(communicator, path,
                    {{"indices", "<i4", 4, {entries}},
                     {"indptr", "<i8", 8, {Y.rows_global() + 1}},
                     {"data", "<f8", 8, {entries}},
                     {"format", "|S3", 3, {}},
                     {"shape", "<i8", 8, {2}}});
  archive.write(0, 4 * before, little_endian(indices));
  archive.write(1, 8 * Y.first_row(), little_endian(positions));
  archive.write(2, 8 * before, little_endian(values));
  if (communicator.is_root()) {
    archive.write(3, 0, "csc");
    archive.write(4, 0, little_endian(std::vector<std::int64_t>{Y.columns(), Y.rows_global()}));
  }
  archive.commit();
}

}  // namespace

std::vector<std::string> write_sparsifier(const Sparsifier& result, ColumnMethod method, const std::string& directory) {
  const RowMatrix& Y = result.Y;
  const std::string name = directory + (Y.is_sparse() ? "/Y.npz" : "/Y.npy");
  if (Y.is_sparse())
    write_csc(Y, name);
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
