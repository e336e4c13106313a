#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>

#include "attnreg/files.hpp"
#include "errors/printable.hpp"
#include "files/csr_file.hpp"
#include "files/input_file.hpp"
#include "files/npy_header.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {
namespace {

std::int64_t columns_of(const NpyHeader& header) { return header.shape.size() == 2 ? header.shape[1] : 1; }

/// Collective. Every rank reads the header itself, since nodes may have copies of the file; they must agree.
/// `check(header)` throws if the shape is not the expected one.
template <class Check>
NpyHeader load_header(const Communicator& communicator, const std::string& path, Check&& check) {
  NpyHeader header;
  communicator.agree([&] {
    header = read_npy_header(path);
    check(header);
  });
  const std::string found = header.shape_text() + " of " + header.dtype_text() + (header.fortran_order ? " (F)" : "");
  const std::string at_root = communicator.broadcast(found);
  communicator.agree([&] {
    if (found != at_root) {
      refuse_file(path, "rank " + std::to_string(communicator.rank()) + " found shape " + found + ", rank 0 " +
                            at_root + "; all nodes must see the same file");
    }
  });
  return header;
}

void require_matrix(const NpyHeader& header) {
  const std::string found = "found shape " + header.shape_text() + ", expected ";
  if (header.shape.empty() || header.shape.size() > 2) {
    refuse_file(header.path, found + "a matrix (n, d) or a vector (n,); use numpy.reshape");
  }
  if (header.shape[0] < 1 || columns_of(header) < 1)
    refuse_file(header.path, found + "at least one row and one column");
}

void require_vector(const NpyHeader& header, const std::string& role, std::int64_t size, const std::string& meaning) {
  const bool is_vector = header.shape.size() == 1 || (header.shape.size() == 2 && header.shape[1] == 1);
  if (is_vector && header.shape[0] == size) return;
  const std::string n = std::to_string(size);
  refuse_file(header.path, printable(role) + " has shape " + header.shape_text() + ", expected (" + n + ",) or (" + n +
                               ", 1): " + meaning);
}

struct NonFinite {
  std::int64_t count = 0;
  std::int64_t first = std::numeric_limits<std::int64_t>::max();  ///< position in `values`
};

/// By exponents, so that no compiler option that assumes finite values can remove it.
template <class Scalar>
NonFinite find_non_finite(std::span<const Scalar> values) {
  using Bits = std::conditional_t<sizeof(Scalar) == 4, std::uint32_t, std::uint64_t>;
  constexpr Bits exponent = std::bit_cast<Bits>(std::numeric_limits<Scalar>::infinity());
  const auto is_non_finite = [](Scalar value) { return (std::bit_cast<Bits>(value) & exponent) == exponent; };
  Bits count = 0;  // of the width of the values: the loop is then a vector loop; fewer than 2^30 values at a time
  NonFinite result;
  constexpr std::size_t block = std::size_t{1} << 20;
  for (std::size_t start = 0; start < values.size(); start += block, count = 0) {
    const auto part = values.subspan(start, std::min(block, values.size() - start));
    for (const Scalar value : part) count += static_cast<Bits>(is_non_finite(value));
    if (count != 0 && result.count == 0) {
      result.first = static_cast<std::int64_t>(start) + (std::ranges::find_if(part, is_non_finite) - part.begin());
    }
    result.count += static_cast<std::int64_t>(count);
  }
  return result;
}

/// What the rows that are read are in the file.
enum class Orientation { as_file, transposed };

std::string non_finite_message(const NpyHeader& header, std::int64_t position, std::int64_t count, bool as_float,
                               Orientation orientation = Orientation::as_file) {
  const std::int64_t row = position / columns_of(header), column = position % columns_of(header);
  std::vector<double> values(static_cast<std::size_t>(columns_of(header)));
  read_npy_rows(header, row, 1, std::span<double>(values));
  const double value = values[static_cast<std::size_t>(column)];
  const bool is_transposed = orientation == Orientation::transposed;
  std::string place = "row " + std::to_string(is_transposed ? column : row);
  if (header.shape.size() == 2) place += ", column " + std::to_string(is_transposed ? row : column);
  const std::string counted = std::to_string(count) + (count == 1 ? " value is" : " values are");
  if (as_float && std::isfinite(value)) {
    return place + " is too large for float; " + counted + " not finite as float (rows and columns counted from 0); " +
           "use --storage double";
  }
  return place + " is " +
         (std::isnan(value) ? "nan"
          : value > 0       ? "inf"
                            : "-inf") +
         "; " + counted +
         " not finite (rows and columns counted from 0); find them with numpy.isfinite and drop or replace them";
}

/// Collective. `values` are the elements of this rank's rows, the first of which is global row `first_row`.
template <class Scalar>
void require_finite(const Communicator& communicator, const NpyHeader& header, std::int64_t first_row,
                    std::span<const Scalar> values, Orientation orientation = Orientation::as_file) {
  const NonFinite found = find_non_finite(values);
  const std::int64_t count = communicator.sum(found.count);
  if (count == 0) return;
  constexpr std::int64_t none = std::numeric_limits<std::int64_t>::max();
  const std::int64_t position = found.count == 0 ? none : first_row * columns_of(header) + found.first;
  const std::int64_t first = communicator.min(position);
  communicator.agree([&] {
    const bool as_float = std::is_same_v<Scalar, float> && header.type == Storage::float64;
    if (position == first) refuse_file(header.path, non_finite_message(header, position, count, as_float, orientation));
  });
}

template <class Scalar>
using Rows = Eigen::Matrix<Scalar, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Collective. This rank's rows of the matrix, all finite.
template <class Scalar>
Rows<Scalar> load_rows(const Communicator& communicator, const NpyHeader& header, const RowPartition& partition,
                       Orientation orientation = Orientation::as_file) {
  const Index rows_local = partition.rows_local(communicator.rank());
  const std::int64_t first = partition.begin(communicator.rank());
  Rows<Scalar> rows;
  const auto values = [&] { return span_of(rows); };
  communicator.agree([&] {
    rows.resize(rows_local, columns_of(header));
    advise_huge_pages(rows.data(), sizeof(Scalar) * static_cast<std::size_t>(rows.size()));
    read_npy_rows(header, first, rows_local, values());
  });
  require_finite<Scalar>(communicator, header, first, values(), orientation);
  return rows;
}

/// Collective. Rank 0 looks.
bool is_sparse_file(const Communicator& communicator, const std::string& path) {
  bool sparse = false;
  communicator.agree([&] { sparse = communicator.is_root() && is_npz(path); });
  return communicator.max(std::int64_t{sparse}) != 0;
}

RowMatrix from_sparse(const Communicator& communicator, SparseRows loaded) {
  return RowMatrix(communicator, std::move(loaded.partition), std::move(loaded.rows));
}

/// Collective.
RowMatrix load_dense(const Communicator& communicator, const NpyHeader& header, StorageChoice storage,
                     Orientation orientation) {
  const bool single =
      storage == StorageChoice::float32 || (storage == StorageChoice::as_file && header.type == Storage::float32);
  const std::int64_t columns = columns_of(header);
  const auto partition = RowPartition::tiled(header.shape[0], columns, communicator.size());
  const auto n = static_cast<double>(partition.rows_local(communicator.rank()));
  const auto d = static_cast<double>(columns);
  // The rows, and what a solve holds besides: six vectors of a value per row and four d x d matrices.
  const double bytes = n * d * (single ? 4 : 8) + 8 * (6 * n + 4 * d * d);
  require_memory(communicator, bytes,
                 printable(header.path) + ": shape " + header.shape_text() + " as " + (single ? "float" : "double"));
  return single ? RowMatrix(communicator, partition, load_rows<float>(communicator, header, partition, orientation))
                : RowMatrix(communicator, partition, load_rows<double>(communicator, header, partition, orientation));
}

}  // namespace

RowMatrix load_matrix(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  if (is_sparse_file(communicator, path)) return from_sparse(communicator, load_csr(communicator, path, storage));
  return load_dense(communicator, load_header(communicator, path, require_matrix), storage, Orientation::as_file);
}

RowMatrix load_transpose(const Communicator& communicator, const std::string& path, StorageChoice storage) {
  if (is_sparse_file(communicator, path))
    return from_sparse(communicator, load_csr_transpose(communicator, path, storage));
  NpyHeader header = load_header(communicator, path, [](const NpyHeader& found) {
    require_matrix(found);
    if (found.shape.size() == 1)
      refuse_file(found.path, "found shape " + found.shape_text() + ", expected a matrix (n, d); use numpy.reshape");
  });
  // The bytes of X in one order are those of its transpose in the other.
  std::swap(header.shape[0], header.shape[1]);
  header.fortran_order = !header.fortran_order;
  return load_dense(communicator, header, storage, Orientation::transposed);
}

RowMajorMatrix load_matrix_rows(const Communicator& communicator, const std::string& path, const std::string& role,
                                const RowPartition& partition, std::int64_t columns) {
  const NpyHeader header = load_header(communicator, path, [&](const NpyHeader& found) {
    require_matrix(found);
    if (found.shape[0] != partition.rows_global() || columns_of(found) != columns)
      refuse_file(found.path, printable(role) + " has shape " + found.shape_text() + ", expected (" +
                                  std::to_string(partition.rows_global()) + ", " + std::to_string(columns) + ")");
  });
  return load_rows<double>(communicator, header, partition);
}

RowMajorMatrix load_replicated_matrix(const Communicator& communicator, const std::string& path) {
  const NpyHeader header = load_header(communicator, path, require_matrix);
  std::vector<std::int64_t> first_rows(static_cast<std::size_t>(communicator.size()) + 1, header.shape[0]);
  first_rows[0] = 0;  // rank 0 reads
  RowMajorMatrix matrix = load_rows<double>(communicator, header, RowPartition(first_rows));
  communicator.agree([&] { matrix.conservativeResize(header.shape[0], columns_of(header)); });
  communicator.broadcast(span_of(matrix));
  return matrix;
}

Eigen::VectorXd load_rows_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                                 const RowPartition& partition) {
  const NpyHeader header = load_header(communicator, path, [&](const NpyHeader& found) {
    require_vector(found, role, partition.rows_global(), "one value per row of A");
  });
  return load_rows<double>(communicator, header, partition).col(0);
}

Eigen::VectorXd load_vector(const Communicator& communicator, const std::string& path, const std::string& role,
                            std::int64_t size) {
  Eigen::VectorXd vector;
  communicator.agree([&] {
    vector.resize(size);
    if (!communicator.is_root()) return;
    const NpyHeader header = read_npy_header(path);
    require_vector(header, role, size, "one value per column of A");
    const std::span<double> values(vector.data(), static_cast<std::size_t>(size));
    read_npy_rows(header, 0, size, values);
    const NonFinite found = find_non_finite<double>(values);
    if (found.count != 0) refuse_file(path, non_finite_message(header, found.first, found.count, false));
  });
  communicator.broadcast(std::span<double>(vector.data(), static_cast<std::size_t>(size)));
  return vector;
}

}  // namespace attnreg
