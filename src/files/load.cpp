#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "errors/refuse.hpp"
#include "files/input_file.hpp"
#include "files/source.hpp"
#include "files/sparse_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {
namespace {

/// Collective. `check(header)` throws if the shape is not the expected one.
template <class Check>
Source load_header(const Communicator& communicator, const std::string& path, Check&& check) {
  Source header;
  communicator.agree([&] {
    header = open_source(path);
    check(header);
  });
  require_same_file(communicator, path, "shape ",
                    header.shape_text() + " of " + header.dtype_text() + (header.fortran_order ? " (F)" : "") +
                        (header.shards.empty() ? "" : " in " + std::to_string(header.shards.size()) + " files"));
  return header;
}

void require_vector(const Source& header, const std::string& role, std::int64_t size, const std::string& meaning) {
  const bool is_vector = header.shape.size() == 1 || (header.shape.size() == 2 && header.shape[1] == 1);
  if (is_vector && header.shape[0] == size) return;
  const std::string n = std::to_string(size);
  refuse_file(header.path, printable(role) + " has shape " + header.shape_text() + ", expected (" + n + ",) or (" + n +
                               ", 1): " + meaning);
}

/// Local. Throws: the value at a position of the matrix is not finite in the type in which it is to be held, and so
/// many are not.
[[noreturn]] void refuse_at(const Source& header, std::int64_t position, std::int64_t count,
                            Storage held = Storage::float64, Orientation orientation = Orientation::as_file) {
  std::int64_t row = position / header.columns(), column = position % header.columns();
  std::vector<double> values(static_cast<std::size_t>(header.columns()));
  read_rows(header, row, 1, std::span<double>(values));
  const double value = values[static_cast<std::size_t>(column)];
  if (orientation == Orientation::transposed) std::swap(row, column);
  const std::string place = header.shape.size() == 2 ? ", column " + std::to_string(column) : "";
  refuse_value(header.path, value, "row " + std::to_string(row) + place, count, "numpy.isfinite", held);
}

/// Local. The same of an array that cannot be read again: the value is the one that is held.
template <class Scalar>
[[noreturn]] void refuse_held(const Source& header, std::int64_t position, Scalar value, std::int64_t count,
                              Orientation orientation) {
  std::int64_t row = position / header.columns(), column = position % header.columns();
  if (orientation == Orientation::transposed) std::swap(row, column);
  const std::string place = header.shape.size() == 2 ? ", column " + std::to_string(column) : "";
  refuse_value(header.path, static_cast<double>(value), "row " + std::to_string(row) + place, count);
}

template <class Scalar>
constexpr Storage storage_of = std::is_same_v<Scalar, double>        ? Storage::float64
                               : std::is_same_v<Scalar, float>       ? Storage::float32
                               : std::is_same_v<Scalar, Eigen::half> ? Storage::float16
                                                                     : Storage::bfloat16;

template <class Scalar>
using Rows = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Collective. Throws where a column that is not 0 has no number of 2^-14 or more, below which half has fewer digits:
/// of smaller ones it keeps little or nothing. rows: this rank's, from row `first` on, rounded from the file.
void require_digits(const Communicator& communicator, const Source& header, std::int64_t first,
                    const Rows<Eigen::half>& rows, Orientation orientation) {
  constexpr double kLeast = 0x1p-14;
  Eigen::VectorXd largest = Eigen::VectorXd::Zero(rows.cols());
  const auto add = [&](const auto& row) { largest = largest.cwiseMax(row.cwiseAbs().transpose()); };
  for (Index i = 0; i < rows.rows(); ++i) add(rows.row(i).template cast<float>().template cast<double>());
  communicator.max(span_of(largest));
  if (largest.minCoeff() >= kLeast) return;
  communicator.agree([&] {  // are they 0 in the file? There are few such files
    Rows<double> row(1, rows.cols());
    RowReader reader(header);
    for (Index i = 0; i < rows.rows(); ++i) {
      reader.read(first + i, 1, span_of(row));
      add(row);
    }
  });
  communicator.max(span_of(largest));
  for (Index j = 0; j < largest.size(); ++j)
    if (largest[j] > 0 && largest[j] < kLeast)
      refuse(printable(header.path) + ": the largest value of " +
             (orientation == Orientation::as_file ? "column " : "row ") + std::to_string(j) + " is " +
             text_of(largest[j]) +
             ", and half has all its digits from 6.1e-5 on; multiply it, or use --storage bfloat16");
}

/// Collective. This rank's rows of an array that only rank 0 can read, once and in order: it hands all of it round, and
/// each rank keeps its part. Messages: the array.
template <class Scalar>
void deal_rows(const Communicator& communicator, const Source& header, const RowPartition& partition,
               Rows<Scalar>& rows) {
  constexpr std::int64_t block_bytes = std::int64_t{1} << 22;
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  const std::int64_t n = header.shape[0], d = header.columns();
  const bool by_columns = d > 1 && header.column_step > header.row_step;
  const std::int64_t width = by_columns ? 1 : d;
  const std::int64_t at_once =
      std::max<std::int64_t>(1, block_bytes / (width * static_cast<std::int64_t>(sizeof(Scalar))));
  Rows<Scalar> block;
  for (std::int64_t j = 0; j < d; j += width) {
    Source part = header;
    if (by_columns) {
      part.shape = {n};
      part.first += j * header.column_step;
    }
    std::optional<RowReader> reader;
    for (std::int64_t first = 0; first < n; first += at_once) {
      const std::int64_t count = std::min(at_once, n - first);
      communicator.agree([&] {
        block.resize(count, width);
        if (!communicator.is_root()) return;
        if (!reader) reader.emplace(part);
        reader->read(first, count, span_of(block));
      });
      const auto bytes = static_cast<std::size_t>(block.size()) * sizeof(Scalar);
      communicator.broadcast(std::span(reinterpret_cast<char*>(block.data()), bytes));
      const std::int64_t from = std::max(first, begin), to = std::min(first + count, end);
      if (from < to) rows.block(from - begin, j, to - from, width) = block.middleRows(from - first, to - from);
    }
  }
}

/// Local. Reads this rank's rows, from row `first` of the file on, and says which values are not finite. Where the file
/// allows it all threads read, blocks that are examined while they are in cache.
template <class Scalar>
NonFinite read_examined(const Source& header, std::int64_t first, Rows<Scalar>& rows) {
  constexpr std::int64_t block_bytes = std::int64_t{1} << 20;
  const std::span<Scalar> values = span_of(rows);
  const Index n = rows.rows(), d = rows.cols();
  const Index height = std::max<Index>(1, block_bytes / (d * static_cast<Index>(sizeof(Scalar))));
  if (n <= height || !reads_in_blocks(header)) {
    read_rows(header, first, n, values);
    return find_non_finite(values);
  }
  std::vector<NonFinite> found(static_cast<std::size_t>(RowPasses::parts()));
  RowPasses::share((n + height - 1) / height, [&](int part, Index from, Index to) {
    if (from == to) return;
    RowReader reader(header);
    for (Index row = from * height; row < std::min(to * height, n); row += height) {
      const Index count = std::min(height, n - row);
      const auto block = values.subspan(static_cast<std::size_t>(row * d), static_cast<std::size_t>(count * d));
      reader.read(first + row, count, block);
      found[static_cast<std::size_t>(part)].add(find_non_finite(block), row * d);
    }
  });
  NonFinite all;
  for (const auto& part : found) all.add(part, 0);
  return all;
}

/// Collective. This rank's rows of the matrix, all finite.
template <class Scalar>
Rows<Scalar> load_rows(const Communicator& communicator, const Source& header, const RowPartition& partition,
                       Orientation orientation = Orientation::as_file) {
  const Index rows_local = partition.rows_local(communicator.rank());
  const std::int64_t first = partition.begin(communicator.rank());
  Rows<Scalar> rows;
  NonFinite found;
  communicator.agree([&] {
    rows.resize(rows_local, header.columns());
    advise_huge_pages(rows.data(), sizeof(Scalar) * static_cast<std::size_t>(rows.size()));
    const InWork reading("reading", "bytes", bytes_of_rows(header, rows_local));
    if (!header.is_piped()) found = read_examined(header, first, rows);
  });
  if (header.is_piped()) {
    deal_rows(communicator, header, partition, rows);
    found = find_non_finite(span_of(rows));
  }
  require_finite(communicator, found, [&](std::int64_t position, std::int64_t count) {
    if (header.is_piped())
      refuse_held(header, first * header.columns() + position, rows.data()[position], count, orientation);
    refuse_at(header, first * header.columns() + position, count, storage_of<Scalar>, orientation);
  });
  if constexpr (std::is_same_v<Scalar, Eigen::half>)
    if (header.type != Storage::float16) require_digits(communicator, header, first, rows, orientation);
  return rows;
}

/// Collective. Rank 0 looks.
bool is_sparse_file(const Communicator& communicator, const std::string& path) {
  bool sparse = false;
  communicator.agree([&] { sparse = communicator.is_root() && is_sparse(path); });
  return communicator.max(std::int64_t{sparse}) != 0;
}

RowMatrix from_sparse(const Communicator& communicator, SparseRows loaded) {
  return RowMatrix(communicator, std::move(loaded.partition), std::move(loaded.rows));
}

/// Collective.
RowMatrix load_dense(const Communicator& communicator, const Source& header, StorageChoice storage,
                     Orientation orientation) {
  const Storage held = held_as(storage, header.type);
  const std::int64_t columns = header.columns();
  const auto partition = RowPartition::tiled(header.shape[0], columns, communicator.size());
  const auto n = static_cast<double>(partition.rows_local(communicator.rank()));
  const auto d = static_cast<double>(columns);
  // The rows, and what a solve holds besides: six vectors of a value per row and four matrices of d x d or, in the row
  // space of a wide matrix, of n x n.
  const double unknowns = std::min(d, static_cast<double>(header.shape[0]));
  const double bytes = n * d * static_cast<double>(item_bytes(held)) + 8 * (6 * n + 4 * unknowns * unknowns);
  require_memory(communicator, bytes,
                 printable(header.path) + ": shape " + header.shape_text() + " as " + std::string(option_name(held)));
  const auto load = [&]<class Scalar>(Scalar) {
    return RowMatrix(communicator, partition, load_rows<Scalar>(communicator, header, partition, orientation));
  };
  switch (held) {
    case Storage::float64: return load(double{});
    case Storage::float32: return load(float{});
    case Storage::float16: return load(Eigen::half{});
    case Storage::bfloat16: return load(Eigen::bfloat16{});
  }
  throw InternalError("unknown storage");
}

}  // namespace

RowMatrix load_matrix(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  if (is_sparse_file(communicator, path)) return from_sparse(communicator, load_sparse(communicator, path, storage));
  return load_dense(communicator, load_header(communicator, path, require_matrix), storage, Orientation::as_file);
}

RowMatrix load_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  if (is_sparse_file(communicator, path))
    return from_sparse(communicator, load_sparse(communicator, path, storage, Orientation::transposed));
  const Source header = load_header(communicator, path, [](const Source& found) {
    require_matrix(found);
    if (found.shape.size() == 1)
      refuse_file(found.path, "found shape " + found.shape_text() + ", expected a matrix (n, d); use numpy.reshape");
  });
  return load_dense(communicator, header.transposed(), storage, Orientation::transposed);
}

template <class Scalar>
Rows<Scalar> load_matrix_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                              const RowPartition& partition, std::int64_t columns) {
  const Source header = load_header(communicator, path, [&](const Source& found) {
    require_matrix(found);
    if (found.shape[0] != partition.rows_global() || found.columns() != columns)
      refuse_file(found.path, printable(role) + " has shape " + found.shape_text() + ", expected (" +
                                  std::to_string(partition.rows_global()) + ", " + std::to_string(columns) + ")");
  });
  return load_rows<Scalar>(communicator, header, partition);
}
template Rows<double> load_matrix_rows(const Communicator&, const std::string&, const std::string&, const RowPartition&,
                                       std::int64_t);
template Rows<float> load_matrix_rows(const Communicator&, const std::string&, const std::string&, const RowPartition&,
                                      std::int64_t);

RowMajorMatrix load_replicated_matrix(const Communicator& communicator, const std::string& path) {
  const Source header = load_header(communicator, path, require_matrix);
  const auto one_block = RowPartition::in_blocks(header.shape[0], header.shape[0], communicator.size());
  RowMajorMatrix matrix = load_rows<double>(communicator, header, one_block);  // rank 0 reads
  communicator.agree([&] { matrix.conservativeResize(header.shape[0], header.columns()); });
  communicator.broadcast(span_of(matrix));
  return matrix;
}

Eigen::VectorXd load_rows_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                                 const RowPartition& partition) {
  const Source header = load_header(communicator, path, [&](const Source& found) {
    require_vector(found, role, partition.rows_global(), "one value per row of A");
  });
  return load_rows<double>(communicator, header, partition).col(0);
}

Eigen::VectorXd load_offset(const Communicator& communicator, const std::string& path, const RowPartition& partition) {
  const Source header = load_header(communicator, path, [&](const Source& found) {
    require_vector(found, "offset", partition.rows_global(), "one value per row of A");
  });
  const std::int64_t first = partition.begin(communicator.rank());
  Eigen::VectorXd offset;
  std::int64_t count = 0;  // of what is neither a number nor -infinity
  Index refused = 0;
  communicator.agree([&] {
    offset.resize(partition.rows_local(communicator.rank()));
    read_rows(header, first, offset.size(), span_of(offset));
    for (Index i = offset.size(); i-- > 0;)
      if (!(offset[i] < std::numeric_limits<double>::infinity())) ++count, refused = i;
  });
  const std::int64_t of_all = communicator.sum(count);
  communicator.agree([&] {
    if (count > 0) refuse_at(header, first + refused, of_all);
  });
  return offset;
}

Eigen::VectorXd load_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                            std::int64_t size) {
  Eigen::VectorXd vector;
  communicator.agree([&] {
    vector.resize(size);
    if (!communicator.is_root()) return;
    const Source header = open_source(path);
    require_vector(header, role, size, "one value per column of A");
    read_rows(header, 0, size, span_of(vector));
    const NonFinite found = find_non_finite(span_of(vector));
    if (found.count > 0) refuse_at(header, found.first, found.count);
  });
  communicator.broadcast(span_of(vector));
  return vector;
}

}  // namespace attnreg
