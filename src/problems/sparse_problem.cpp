#include "problems/sparse_problem.hpp"

#include <algorithm>
#include <array>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "files/little_endian.hpp"
#include "files/npy_header.hpp"
#include "files/npz_writer.hpp"
#include "files/shared_file.hpp"

namespace attnreg {

namespace {

std::string value_bytes(const std::vector<double>& values, Storage type) {
  if (type == Storage::float64) return little_endian(values);
  return little_endian(std::vector<float>(values.begin(), values.end()));
}

/// The arrays of A in the archive, of which the first three are also files.
enum ArrayOf : std::size_t { indices_array, indptr_array, data_array, format_array, shape_array };

std::vector<NpzArray> arrays_of(const ProblemOptions& options) {
  const std::int64_t entries = options.rows * options.nonzeros_per_row, item = npy_item_bytes(options.type);
  return {{"indices", "<i4", 4, {entries}},
          {"indptr", "<i8", 8, {options.rows + 1}},
          {"data", item == 4 ? "<f4" : "<f8", item, {entries}},
          {"format", "|S3", 3, {}},
          {"shape", "<i8", 8, {2}}};
}

/// Collective. One array in a file of its own.
class ArrayFile {
 public:
  ArrayFile(const ProblemWork& work, const NpzArray& array)
      : header_(npy_header_bytes(array.dtype, array.shape)),
        file_(work.communicator(), work.path(("A_" + array.name + ".npy").c_str()),
              static_cast<std::int64_t>(header_.size()) + array.data_bytes()) {
    if (work.communicator().is_root()) file_.write(0, header_);
  }

  void write(std::int64_t offset, std::string_view bytes) noexcept {
    file_.write(static_cast<std::int64_t>(header_.size()) + offset, bytes);
  }
  void commit() { file_.commit(); }

 private:
  std::string header_;
  SharedFile file_;
};

}  // namespace

Eigen::VectorXd write_sparse_matrix(const ProblemWork& work, const Eigen::VectorXd& x) {
  const ProblemOptions& options = work.options();
  const std::int64_t k = options.nonzeros_per_row, n = options.rows;
  const std::vector<NpzArray> arrays = arrays_of(options);
  NpzWriter archive(work.communicator(), work.path("A.npz"), arrays);
  ArrayFile indices_file(work, arrays[indices_array]), indptr_file(work, arrays[indptr_array]),
      data_file(work, arrays[data_array]);
  const std::array<ArrayFile*, 3> files{&indices_file, &indptr_file, &data_file};
  const auto write = [&](ArrayOf array, std::int64_t first, const std::string& bytes) {
    const std::int64_t offset = first * arrays[array].item_bytes;
    archive.write(array, offset, bytes);
    files[array]->write(offset, bytes);
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
  if (work.communicator().is_root()) {
    archive.write(format_array, 0, "csr");
    archive.write(shape_array, 0, little_endian(std::vector<std::int64_t>{n, options.columns}));
  }
  archive.commit();
  for (ArrayFile* const file : files) file->commit();
  return z;
}

}  // namespace attnreg
