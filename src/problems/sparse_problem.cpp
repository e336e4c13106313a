#include "problems/sparse_problem.hpp"

#include <deque>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "files/byte_order.hpp"
#include "files/npz_writer.hpp"

namespace attnreg {

namespace {

std::string value_bytes(std::vector<double> values, Storage type) {
  if (type == Storage::float64) return little_endian(std::move(values));
  return little_endian(std::vector<float>(values.begin(), values.end()));
}

}  // namespace

Eigen::VectorXd write_sparse_matrix(const ProblemWork& work, const Eigen::VectorXd& x) {
  const ProblemOptions& options = work.options();
  const std::int64_t k = options.nonzeros_per_row, n = options.rows;
  const std::vector<ArrayFormat> arrays = sparse_arrays(n, n * k, options.type);
  NpzWriter archive(work.communicator(), work.path("A.npz"), arrays);
  std::deque<SharedArray> files;  // indices, indptr and data once more, each by itself
  for (const SparseArray array : {indices_array, indptr_array, data_array})
    files.emplace_back(work.communicator(), work.path("A_" + arrays[array].name + ".npy"), arrays[array]);
  const auto write = [&](SparseArray array, std::int64_t first, const std::string& bytes) {
    const std::int64_t offset = first * arrays[array].item_bytes;
    archive.write(array, offset, bytes);
    files[array].write(offset, bytes);
  };

  Eigen::VectorXd z(work.rows_local());
  std::mutex one_at_a_time;
  work.for_each_range([&](Index first_local, Index rows) {
    const std::int64_t first = work.first_row() + first_local;
    std::vector<std::int32_t> columns(static_cast<std::size_t>(rows * k));
    std::vector<double> values(columns.size());
    std::vector<std::int64_t> positions;
    for (Index i = 0; i < rows; ++i) {
      const auto begin = static_cast<std::size_t>(i * k), count = static_cast<std::size_t>(k);
      work.source().fill_sparse(first + i, std::span(columns).subspan(begin, count),
                                std::span(values).subspan(begin, count));
      double sum = 0;
      for (std::size_t e = begin; e < begin + count; ++e) sum += values[e] * x[columns[e]];
      z[first_local + i] = sum;
      positions.push_back((first + i) * k);
    }
    if (first + rows == n) positions.push_back(n * k);
    const std::string index_text = little_endian(columns), data_text = value_bytes(values, options.type);
    const std::string position_text = little_endian(positions);
    const std::lock_guard lock(one_at_a_time);
    write(indices_array, first * k, index_text);
    write(indptr_array, first, position_text);
    write(data_array, first * k, data_text);
  });
  commit_sparse(archive, work.communicator(), "csr", n, options.columns);
  for (SharedArray& file : files) file.commit();
  return z;
}

}  // namespace attnreg
