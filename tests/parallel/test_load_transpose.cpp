#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attnreg/files.hpp"
#include "attnreg/sparsifier.hpp"
#include "sparsify/sparsifier_files.hpp"
#include "support/npz_bytes.hpp"
#include "support/reference.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_load_transpose {

using reference::gathered_rows;
using test::CsrFileContents;
using test::TemporaryDirectory;
using testing::HasSubstr;

/// Entries that tell their place and are exact in float, some of them 0.
RowMajorMatrix numbered(Index rows, Index columns) {
  return RowMajorMatrix::NullaryExpr(rows, columns, [&](Index i, Index j) {
    const Index k = i * columns + j;
    return k % 3 == 1 ? 0.0 : static_cast<double>(k) - 7;
  });
}

class LoadTranspose : public testing::Test {
 protected:
  ~LoadTranspose() override { communicator_.barrier(); }

  std::string write_npy_file(const RowMajorMatrix& X, bool fortran_order, bool single) const {
    const RowMajorMatrix stored = fortran_order ? RowMajorMatrix(X.transpose()) : X;
    const std::string shape = "(" + std::to_string(X.rows()) + ", " + std::to_string(X.cols()) + ")";
    const std::string dictionary = test::npy_dictionary(single ? "<f4" : "<f8", fortran_order, shape);
    const std::vector<double> values(stored.data(), stored.data() + stored.size());
    const std::string data =
        single ? test::scalar_bytes(std::vector<float>(values.begin(), values.end())) : test::scalar_bytes(values);
    return write([&] { directory_.write("X.npy", test::npy_bytes(dictionary, data)); }, "X.npy");
  }

  /// X as csr, or as csc: the csr form of its transpose with the extents the other way round.
  std::string write_npz_file(const RowMajorMatrix& X, bool by_columns, bool deflated) const {
    const RowMajorMatrix stored = by_columns ? RowMajorMatrix(X.transpose()) : X;
    CsrFileContents file;
    file.rows = X.rows();
    file.columns = X.cols();
    file.format = by_columns ? "csc" : "csr";
    for (Index i = 0; i < stored.rows(); ++i) {
      for (Index j = stored.cols() - 1; j >= 0; --j) {  // not sorted
        if (stored(i, j) == 0) continue;
        file.indices.push_back(j);
        file.data.push_back(stored(i, j));
      }
      file.indptr.push_back(static_cast<std::int64_t>(file.data.size()));
    }
    return write([&] { test::write_npz(directory_.path("X.npz"), file.members(), deflated); }, "X.npz");
  }

  /// Collective. The message of the error, which all ranks must see.
  std::string refusal(const std::string& path) const {
    std::string message = "(accepted)";
    try {
      load_transpose(communicator_, path, StorageChoice::as_file);
    } catch (const InvalidArgument& error) {
      message = error.what();
    }
    EXPECT_EQ(communicator_.broadcast(message), message);
    return message;
  }

  /// Collective. Rank 0 writes.
  template <class Write>
  std::string write(Write&& write_now, const std::string& name) const {
    communicator_.barrier();
    if (communicator_.is_root()) write_now();
    communicator_.barrier();
    return directory_.path(name);
  }

  const Communicator communicator_{MPI_COMM_WORLD};
  const TemporaryDirectory directory_ = TemporaryDirectory::shared(communicator_);
};

TEST_F(LoadTranspose, Dense) {
  for (const auto& [rows, columns] : {std::pair{3, 5000}, {1, 7}, {9, 1}, {40, 333}}) {
    const RowMajorMatrix X = numbered(rows, columns);
    for (const bool fortran_order : {false, true}) {
      for (const bool single : {false, true}) {
        const std::string path = write_npy_file(X, fortran_order, single);
        const RowMatrix A = load_transpose(communicator_, path, StorageChoice::as_file);
        EXPECT_EQ(A.storage(), single ? Storage::float32 : Storage::float64);
        EXPECT_EQ(gathered_rows(A), RowMajorMatrix(X.transpose()));
      }
    }
  }
}

TEST_F(LoadTranspose, Sparse) {
  for (const auto& [rows, columns] : {std::pair{3, 5000}, {1, 7}, {9, 1}, {40, 333}}) {
    const RowMajorMatrix X = numbered(rows, columns);
    for (const bool by_columns : {false, true}) {
      for (const bool deflated : {false, true}) {
        const std::string path = write_npz_file(X, by_columns, deflated);
        const RowMatrix A = load_transpose(communicator_, path, StorageChoice::as_file);
        EXPECT_TRUE(A.is_sparse());
        EXPECT_EQ(gathered_rows(A), RowMajorMatrix(X.transpose()));
        EXPECT_EQ(load_transpose(communicator_, path, StorageChoice::float32).storage(), Storage::float32);
      }
    }
  }
}

TEST_F(LoadTranspose, MoreEntriesThanAreReadAtATime) {
  const RowMajorMatrix X = numbered(2, 120000);
  const RowMatrix A = load_transpose(communicator_, write_npz_file(X, false, false), StorageChoice::as_file);
  EXPECT_GT(communicator_.sum(A.entries_local()), 131072);
  EXPECT_EQ(gathered_rows(A), RowMajorMatrix(X.transpose()));
}

TEST_F(LoadTranspose, PlacesInMessagesAreThoseOfTheFile) {
  RowMajorMatrix X = numbered(4, 50);
  X(2, 31) = std::numeric_limits<double>::quiet_NaN();
  for (const bool other : {false, true}) {
    EXPECT_THAT(refusal(write_npy_file(X, other, false)), HasSubstr("row 2, column 31 is nan"));
    EXPECT_THAT(refusal(write_npz_file(X, other, false)), HasSubstr("row 2, column 31 is nan"));
  }
}

TEST_F(LoadTranspose, Refusals) {
  const auto write_vector = [&] {
    directory_.write("v.npy", test::npy_bytes(test::npy_dictionary("<f8", false, "(2,)"), std::string(16, '\0')));
  };
  EXPECT_THAT(refusal(write(write_vector, "v.npy")), HasSubstr("expected a matrix (n, d)"));
  EXPECT_THAT(refusal(directory_.path("none.npz")), HasSubstr("none.npz"));
  CsrFileContents file;
  file.rows = 2;
  file.columns = 3;
  file.indptr = {0, 2, 1};
  file.indices = {0};
  file.data = {1};
  const auto damaged = [&] { test::write_npz(directory_.path("X.npz"), file.members(), false); };
  EXPECT_THAT(refusal(write(damaged, "X.npz")), HasSubstr("decreasing"));
  file.indptr = {0, 1, 1};
  file.indices = {3};
  EXPECT_THAT(refusal(write(damaged, "X.npz")), HasSubstr("row 0 has an entry in column 3"));
  file.format = "coo";
  EXPECT_THAT(refusal(write(damaged, "X.npz")), HasSubstr("no array 'row' in the archive"));
}

TEST_F(LoadTranspose, ReadsTheSparsifiersFilesBack) {
  const RowMajorMatrix X = numbered(5, 600);
  for (const bool sparse : {false, true}) {
    const std::string path = sparse ? write_npz_file(X, true, false) : write_npy_file(X, false, false);
    const RowMatrix A = load_transpose(communicator_, path, StorageChoice::as_file);
    const Sparsifier result = sparsify(A, {.method = ColumnMethod::norm, .columns = 40});
    const auto names = write_sparsifier(result, ColumnMethod::norm, directory_.path("."));
    EXPECT_EQ(names.size(), 3u);
    const RowMatrix Y = load_transpose(communicator_, names[0], StorageChoice::as_file);
    EXPECT_EQ(gathered_rows(Y), gathered_rows(result.Y));
    const Eigen::VectorXd weights = load_vector(communicator_, names[2], "weights", result.columns_global);
    EXPECT_EQ(weights, reference::gather(communicator_, result.weights));
    communicator_.barrier();
  }
}

}  // namespace attnreg::test_load_transpose
