#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "kernels/row_kernels.hpp"

namespace attnreg::bench {

enum class RowType { f64, f32, f16, bf16, csr };
std::string type_name(RowType type);
RowType type_by_name(const std::string& name);  ///< Throws `InvalidArgument` (all ranks).

/// A in memory for which huge pages are advised, and the bytes that R is the time to read.
class BenchMatrix {
 public:
  /// Collective. n x d numbers of variance 1/d that are functions of row and column, uniform, rounded to those of the
  /// type `rounded`, for f64 to float.
  static BenchMatrix dense(const Communicator& communicator, RowType type, std::int64_t rows, Index columns,
                           RowType rounded);
  /// Collective. `nonzeros` numbers a row, of variance 1/nonzeros, one in each of as many groups of columns.
  static BenchMatrix sparse(const Communicator& communicator, std::int64_t rows, Index columns, Index nonzeros);
  /// Collective. A generated problem's A, from A.npy or A.npz in `directory`.
  static BenchMatrix load(const Communicator& communicator, const std::string& directory, RowType type);

  const RowMatrix& A() const { return A_; }
  RowType type() const { return type_; }

  /// The arrays that a pass reads, and the length of a piece of them that one thread takes at once.
  const std::vector<std::span<const std::uint64_t>>& arrays() const { return arrays_; }
  std::size_t chunk_words() const { return chunk_words_; }

  /// Local. Calls use(column, value) for the entries of a local row, one by one: for the naive formulas.
  template <class Use>
  void for_entries(Index row, Use&& use) const {
    if (type_ == RowType::csr) {
      for (auto k = offsets_[row]; k < offsets_[row + 1]; ++k) use(Index{indices_[k]}, doubles_[k]);
      return;
    }
    const Index d = A_.columns();
    std::visit(
        [&](const auto* values) {
          for (Index j = 0; j < d; ++j) use(j, static_cast<double>(values[row * d + j]));
        },
        dense_);
  }

 private:
  BenchMatrix(RowMatrix A, RowType type) : A_(std::move(A)), type_(type) {}
  template <class T>
  static BenchMatrix over(const Communicator& communicator, RowPartition partition, Index columns,
                          std::shared_ptr<T[]> rows);
  static BenchMatrix over(const Communicator& communicator, RowPartition partition, CsrRows rows);

  RowMatrix A_;
  RowType type_;
  std::shared_ptr<const void> memory_;
  kernels::DenseRows dense_;
  const double* doubles_ = nullptr;  // the values of CSR
  const std::int64_t* offsets_ = nullptr;
  const std::int32_t* indices_ = nullptr;
  std::vector<std::span<const std::uint64_t>> arrays_;
  std::size_t chunk_words_ = 0;
};

/// Local. Vectors and columns of normal numbers, replicated; a function of the size and of `which`.
Eigen::VectorXd normals(Index n, std::uint32_t which);
Eigen::MatrixXd normal_columns(Index n, Index k);

}  // namespace attnreg::bench
