#include "files/tensor_file.hpp"

#include <algorithm>

#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/source.hpp"
#include "ranks/activity.hpp"
#include "ranks/memory.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {
namespace {

/// Local. Throws (this rank) unless slices of a tensor can be read of it.
void require_tensor(const Source& header) {
  const std::string expected = "found shape " + header.shape_text() + ", expected a tensor (n1, n2, n3)";
  if (header.shape.size() != 3) refuse_file(header.path, expected + "; use numpy.reshape");
  if (std::ranges::min(header.shape) < 1) refuse_file(header.path, expected + " without a side of 0");
  if (header.is_piped()) refuse_file(header.path, "slices of a tensor are read from a file; write one");
  for (const Source& shard : header.shards)
    if (shard.fortran_order)
      refuse_file(shard.path, "a part of a tensor in Fortran order; use numpy.ascontiguousarray");
}

/// The tensor as a matrix with a slice in each row. Element (a, b, c) is in column b n3 + c, in Fortran order in column
/// b + n2 c.
Source as_matrix(Source tensor) {
  tensor.shape = {tensor.shape[0], tensor.shape[1] * tensor.shape[2]};
  if (!tensor.fortran_order) tensor.column_step = 1;
  for (Source& shard : tensor.shards) shard = as_matrix(shard);
  return tensor;
}

}  // namespace

SlicedTensor load_tensor(const Communicator& communicator, const std::string& path) {
  Source header;
  communicator.agree([&] {
    header = open_source(path);
    require_tensor(header);
  });
  require_same_file(communicator, path, "shape ",
                    header.shape_text() + " of " + header.dtype_text() + (header.fortran_order ? " (F)" : ""));
  const std::int64_t n2 = header.shape[1], n3 = header.shape[2];
  SlicedTensor tensor{
      {header.shape[0], n2, n3}, RowPartition::in_blocks(header.shape[0], 1, communicator.size()), RowMajorMatrix()};
  const std::int64_t first = tensor.slices.begin(communicator.rank());
  const Index count = tensor.slices.rows_local(communicator.rank());
  require_memory(communicator, 8 * static_cast<double>(count) * static_cast<double>(n2) * static_cast<double>(n3),
                 printable(path) + ": shape " + header.shape_text() + " as double");
  communicator.agree([&] {
    tensor.entries.resize(count, n2 * n3);
    advise_huge_pages(tensor.entries.data(), sizeof(double) * static_cast<std::size_t>(tensor.entries.size()));
    const Source matrix = as_matrix(header);
    const InWork reading("reading", "bytes", bytes_of_rows(matrix, count));
    read_rows(matrix, first, count, span_of(tensor.entries));
    for (Index a = 0; a < count && header.fortran_order; ++a) {
      double* const slice = tensor.entries.row(a).data();
      const MatrixXd by_columns = Eigen::Map<const MatrixXd>(slice, n2, n3);
      Eigen::Map<RowMajorMatrix>(slice, n2, n3) = by_columns;
    }
  });
  require_finite<double>(communicator, span_of(tensor.entries), [&](std::int64_t position, std::int64_t of_all) {
    const std::int64_t place = first * n2 * n3 + position;
    const std::string element = "element (" + std::to_string(place / (n2 * n3)) + ", " +
                                std::to_string(place / n3 % n2) + ", " + std::to_string(place % n3) + ")";
    refuse_value(path, tensor.entries.data()[position], element, of_all);
  });
  return tensor;
}

}  // namespace attnreg
