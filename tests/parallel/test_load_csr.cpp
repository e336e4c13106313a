#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "attnreg/files.hpp"
#include "files/sparse_file.hpp"
#include "generated_files.hpp"
#include "numbers/random.hpp"
#include "support/npz_bytes.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_load_csr {

using test::CsrFileContents;
using test::NpzMembers;
using test::TemporaryDirectory;
using testing::HasSubstr;

struct Outcome {
  std::string message = "(accepted)";
  ExitCode code = ExitCode::converged;
};

/// Rows of very different lengths, some empty; values exact in float.
CsrFileContents random_matrix(std::int64_t rows, std::int64_t columns) {
  const RandomStream stream(3, Purpose::problem_rows);
  CsrFileContents A;
  A.rows = rows;
  A.columns = columns;
  for (std::int64_t i = 0; i < rows; ++i) {
    const double density = i % 7 < 3 ? 0 : std::pow(stream.uniform(i, 5000), 4);
    for (std::int64_t j = 0; j < columns; ++j) {
      if (stream.uniform(i, static_cast<std::uint32_t>(j)) > density) continue;
      A.indices.push_back(j);
      A.data.push_back(static_cast<double>(i) + 0.25 * static_cast<double>(j));
    }
    A.indptr.push_back(static_cast<std::int64_t>(A.data.size()));
  }
  return A;
}

class LoadCsr : public testing::Test {
 protected:
  ~LoadCsr() override { communicator_.barrier(); }

  /// Collective. Rank 0 writes the file; the path.
  std::string write(const NpzMembers& members, bool deflated = false) const {
    communicator_.barrier();
    if (communicator_.is_root()) test::write_npz(directory_.path("A.npz"), members, deflated);
    communicator_.barrier();
    return directory_.path("A.npz");
  }
  std::string write_bytes(const std::string& bytes) const {
    communicator_.barrier();
    if (communicator_.is_root()) directory_.write("A.npz", bytes);
    communicator_.barrier();
    return directory_.path("A.npz");
  }

  /// Collective. Whether the ranks together have this matrix, rows sorted.
  void expect_matrix(const SparseRows& found, const CsrFileContents& expected) const {
    const Index begin = static_cast<Index>(found.partition.begin(communicator_.rank()));
    EXPECT_EQ(found.partition.rows_global(), expected.rows);
    EXPECT_EQ(found.rows.rows(), found.partition.rows_local(communicator_.rank()));
    EXPECT_EQ(found.rows.columns, expected.columns);
    EXPECT_NO_THROW(check_rows(found.rows));
    for (Index i = 0; i < found.rows.rows(); ++i) {
      const auto local = static_cast<std::size_t>(i), global = static_cast<std::size_t>(begin + i);
      const std::int64_t count = found.rows.offsets[local + 1] - found.rows.offsets[local];
      ASSERT_EQ(count, expected.indptr[global + 1] - expected.indptr[global]);
      for (std::int64_t k = 0; k < count; ++k) {
        const auto here = static_cast<std::size_t>(found.rows.offsets[local] + k);
        const auto there = static_cast<std::size_t>(expected.indptr[global] + k);
        EXPECT_EQ(found.rows.indices[here], expected.indices[there]);
        EXPECT_EQ(found.rows.is_single ? static_cast<double>(found.rows.singles[here]) : found.rows.values[here],
                  expected.data[there]);
      }
    }
  }

  /// Collective. What loading ends with; the same on all ranks.
  Outcome outcome(const std::string& path, StorageChoice storage = StorageChoice::as_file) const {
    Outcome result;
    try {
      load_sparse(communicator_, path, storage);
    } catch (const Error& error) {
      result = {error.what(), error.code()};
      EXPECT_EQ(error.scope(), Error::Scope::all_ranks);
    }
    const std::string at_root = communicator_.broadcast(result.message);
    EXPECT_EQ(result.message, at_root);
    return result;
  }
  void expect_refused(const CsrFileContents& contents, const std::string& text) const {
    for (const bool deflated : {false, true}) {
      const Outcome found = outcome(write(contents.members(), deflated));
      EXPECT_THAT(found.message, testing::AllOf(HasSubstr("A.npz"), HasSubstr(text)));
      EXPECT_EQ(found.code, ExitCode::bad_input);
    }
  }

  Communicator communicator_{MPI_COMM_WORLD};
  TemporaryDirectory directory_ = TemporaryDirectory::shared(communicator_);
};

TEST_F(LoadCsr, ReadsAllTypesStoredAndDeflated) {
  CsrFileContents A = random_matrix(211, 23);
  for (int k = 0; k < 16; ++k) {
    A.wide = k & 1;
    A.single = k & 2;
    A.big_endian = k & 4;
    const std::string path = write(A.members(), k & 8);
    const auto found = load_sparse(communicator_, path, StorageChoice::as_file);
    EXPECT_EQ(found.rows.is_single, A.single);
    expect_matrix(found, A);
    const SparseHeader header = read_sparse_header(path);
    EXPECT_EQ(header.nonzeros, static_cast<std::int64_t>(A.data.size()));
    EXPECT_EQ(header.deflated, (k & 8) != 0);
  }
  const auto single = load_sparse(communicator_, write(A.members()), StorageChoice::float32);
  EXPECT_TRUE(single.rows.is_single);
  expect_matrix(single, A);
}

TEST_F(LoadCsr, LongArraysInPieces) {
  const CsrFileContents A = random_matrix(40000, 31);  // more entries than a buffer has
  ASSERT_GT(A.data.size(), std::size_t{1} << 17);
  for (const bool deflated : {false, true})
    expect_matrix(load_sparse(communicator_, write(A.members(), deflated), StorageChoice::as_file), A);
}

TEST_F(LoadCsr, SharesTheEntriesEvenly) {
  const int ranks = communicator_.size();
  const CsrFileContents A = random_matrix(3000, 50);
  const auto entries = static_cast<double>(A.data.size());
  const auto found = load_sparse(communicator_, write(A.members()), StorageChoice::as_file);
  EXPECT_LE(std::abs(static_cast<double>(found.rows.entries()) - entries / ranks), 51);

  CsrFileContents heavy;  // nearly all entries in the first row
  heavy.rows = 6;
  heavy.columns = 1000;
  for (std::int64_t j = 0; j < 1000; ++j) heavy.indices.push_back(j);
  heavy.indptr = {0, 1000, 1000, 1001, 1002, 1002, 1003};
  heavy.indices.insert(heavy.indices.end(), {3, 4, 5});
  heavy.data.assign(1003, 1.5);
  const auto rows = load_sparse(communicator_, write(heavy.members()), StorageChoice::as_file);
  expect_matrix(rows, heavy);
  EXPECT_GE(rows.partition.end(0), 1);
}

TEST_F(LoadCsr, FewRowsAndNoEntries) {
  for (const std::int64_t rows : {1, 2, 3}) {
    CsrFileContents A;
    A.rows = rows;
    A.columns = 4;
    A.indptr.assign(static_cast<std::size_t>(rows) + 1, 0);
    expect_matrix(load_sparse(communicator_, write(A.members()), StorageChoice::as_file), A);
    A.indptr.back() = 2;
    A.indices = {1, 3};
    A.data = {-1, 2};
    expect_matrix(load_sparse(communicator_, write(A.members()), StorageChoice::as_file), A);
  }
}

TEST_F(LoadCsr, SortsRowsAndSumsDuplicates) {
  CsrFileContents A, sorted;
  A.rows = sorted.rows = 3;
  A.columns = sorted.columns = 5;
  A.indptr = {0, 3, 3, 6};
  A.indices = {4, 0, 4, 2, 1, 0};
  A.data = {1, 2, 3, 4, 5, 6};
  sorted.indptr = {0, 2, 2, 5};
  sorted.indices = {0, 4, 0, 1, 2};
  sorted.data = {2, 4, 6, 5, 4};
  expect_matrix(load_sparse(communicator_, write(A.members()), StorageChoice::as_file), sorted);
}

TEST_F(LoadCsr, RefusesSumsAndNumbersThatAreLost) {
  CsrFileContents A;
  A.rows = 3;
  A.columns = 5;
  A.indptr = {0, 1, 1, 4};
  A.indices = {4, 2, 1, 2};
  A.data = {1, 1e308, 5, 1e308};
  expect_refused(A, "row 2, column 2 has several entries, whose sum is inf");
  A.data[3] = -1e308;
  EXPECT_EQ(outcome(write(A.members())).message, "(accepted)");
  A.data = {1, 2, 1e-50, 3};
  EXPECT_THAT(outcome(write(A.members()), StorageChoice::float32).message,
              HasSubstr("row 2, column 1 is 1e-50, which is too small for float"));
}

TEST_F(LoadCsr, RefusesWrongArrays) {
  const CsrFileContents good = random_matrix(100, 9);
  const auto changed = [&](auto&& change) {
    CsrFileContents A = good;
    change(A);
    return A;
  };
  const auto entries = std::to_string(good.data.size());
  expect_refused(changed([](auto& A) { A.format = "lil"; }), "format 'lil', expected csr, csc, coo, bsr or dia; save");
  expect_refused(changed([](auto& A) { A.format = "csc"; }), "indptr.npy: found shape (101,), expected (10,)");
  expect_refused(changed([](auto& A) { A.indptr[0] = 1; }), "indptr.npy: starts with 1, expected 0");
  expect_refused(changed([](auto& A) { A.indptr[50] = 0; }), "decreases at row 49");
  expect_refused(changed([](auto& A) { A.indptr[50] = 1 << 30; }), "decreases at row 50: 1073741824");
  expect_refused(changed([](auto& A) { ++A.indptr.back(); }), "expected " + entries + ", the number of entries");
  expect_refused(changed([](auto& A) { A.indptr.pop_back(); }), "found shape (100,), expected (101,)");
  expect_refused(changed([](auto& A) { A.indices.push_back(0); }), "indices.npy: found shape");
  expect_refused(changed([](auto& A) { A.indices[A.indices.size() / 2] = 9; }), "in column 9, expected 0 to 8");
  expect_refused(changed([](auto& A) { A.indices.back() = -1; }), "in column -1");
  expect_refused(changed([](auto& A) { A.rows = 0, A.indptr = {0}; }), "at least one row");
  expect_refused(changed([](auto& A) { A.columns = 0; }), "at least one row and one column");
  expect_refused(changed([](auto& A) { A.wide = true, A.columns = std::int64_t{1} << 31; }), "2^31 columns");
  expect_refused(changed([](auto& A) { A.wide = true, A.rows = std::int64_t{1} << 60; }), "2^60 rows");
}

TEST_F(LoadCsr, RefusesValuesThatAreNotFinite) {
  for (const double value : {std::numeric_limits<double>::quiet_NaN(), -std::numeric_limits<double>::infinity()}) {
    CsrFileContents A = random_matrix(100, 9);
    const auto row = static_cast<std::size_t>(
        std::ranges::find_if(A.indptr, [](std::int64_t begin) { return begin > 20; }) - A.indptr.begin());
    const auto entry = static_cast<std::size_t>(A.indptr[row]);
    std::size_t next = row;
    while (A.indptr[next + 1] == A.indptr[row]) ++next;
    A.data[entry] = A.data.back() = value;
    expect_refused(A, "row " + std::to_string(next) + ", column " + std::to_string(A.indices[entry]) + " is " +
                          (std::isnan(value) ? "nan" : "-inf") + "; 2 values are not finite");
  }
  CsrFileContents A = random_matrix(100, 9);
  A.data.back() = 1e300;
  const Outcome found = outcome(write(A.members()), StorageChoice::float32);
  EXPECT_THAT(found.message, HasSubstr("too large for float; 1 value cannot be held as float"));
}

TEST_F(LoadCsr, HoldsNoHalf) {
  const auto path = write(random_matrix(100, 9).members());
  EXPECT_THAT(outcome(path, StorageChoice::float16).message,
              HasSubstr("sparse rows are held in float or double, not in half; use --storage float"));
  EXPECT_THAT(outcome(path, StorageChoice::bfloat16).message, HasSubstr("not in bfloat16"));
}

TEST_F(LoadCsr, RefusesOtherArchives) {
  const auto members = random_matrix(20, 5).members();
  for (std::size_t k = 0; k < members.size(); ++k) {
    auto part = members;
    part.erase(part.begin() + static_cast<std::ptrdiff_t>(k));
    const std::string name = members[k].first.substr(0, members[k].first.size() - 4);
    EXPECT_THAT(outcome(write(part)).message, HasSubstr("no array '" + name + "' in the archive, found "));
  }
  const auto with = [&](std::size_t k, const std::string& bytes) {
    auto other = members;
    other[k].second = bytes;
    return outcome(write(other)).message;
  };
  using test::npy_bytes, test::npy_dictionary;
  EXPECT_THAT(with(4, npy_bytes(npy_dictionary("<i8", false, "(1,)"), std::string(8, '\0'))),
              HasSubstr("found shape (6,), expected (1,)"));
  EXPECT_THAT(with(4, npy_bytes(npy_dictionary("<c16", false, "(1,)"), std::string(16, '\0'))),
              HasSubstr("dtype <c16"));
  EXPECT_THAT(with(0, npy_bytes(npy_dictionary("<f8", false, "(1,)"), std::string(8, '\0'))), HasSubstr("dtype <f8"));
  EXPECT_THAT(with(1, members[1].second.substr(0, 100)), HasSubstr("indptr.npy: found 100 bytes"));
  EXPECT_THAT(with(3, ""), HasSubstr("shape.npy"));
  EXPECT_THAT(with(2, npy_bytes(npy_dictionary("|S3", false, "(2,)"), "csrcsr")),
              HasSubstr("expected one short string"));
  EXPECT_THAT(outcome(write_bytes("not an archive")).message, HasSubstr("not a .npz archive"));
  EXPECT_THAT(outcome(directory_.path("absent.npz")).message, HasSubstr("absent.npz: cannot open the file"));
}

TEST_F(LoadCsr, RefusesTruncatedAndDamagedFiles) {
  const CsrFileContents A = random_matrix(60, 9);
  for (const bool deflated : {false, true}) {
    const std::string path = write(A.members(), deflated);
    const std::string whole = directory_.read("A.npz");
    for (std::size_t size = 0; size < whole.size(); size += 97) {
      const Outcome found = outcome(write_bytes(whole.substr(0, size)));
      EXPECT_EQ(found.code, ExitCode::bad_input) << size;
    }
    // Any damaged byte is an error or is not noticed, but never anything else.
    for (std::size_t place = 0; place < whole.size(); place += 61) {
      std::string damaged = whole;
      damaged[place] = static_cast<char>(damaged[place] ^ 0x55);
      const Outcome found = outcome(write_bytes(damaged));
      EXPECT_TRUE(found.code == ExitCode::bad_input || found.code == ExitCode::converged ||
                  found.code == ExitCode::memory)
          << place << " " << found.message;
    }
  }
}

TEST_F(LoadCsr, ReadsWhatGenerateWrites) {
  for (const auto type : {Storage::float64, Storage::float32}) {
    auto options = problem(Preset::sparse, 5000, 83);
    options.nonzeros_per_row = 7;
    options.type = type;
    const TestDirectory directory(communicator_);
    const auto facts = fact_values(generate(communicator_, options, directory));
    const auto found = load_sparse(communicator_, directory.path() + "/A.npz", StorageChoice::as_file);
    EXPECT_EQ(found.partition.rows_global(), 5000);
    EXPECT_EQ(found.rows.columns, 83);
    EXPECT_EQ(found.rows.is_single, type == Storage::float32);
    for (Index i = 0; i < found.rows.rows(); ++i) EXPECT_EQ(found.rows.offsets[static_cast<std::size_t>(i)], 7 * i);
    EXPECT_NO_THROW(check_rows(found.rows));
    if (communicator_.is_root()) {
      const Communicator self(MPI_COMM_SELF);
      const TestDirectory serial(self);
      EXPECT_EQ(facts, fact_values(generate(self, options, serial)));
      for (const std::string name :
           {"/A.npz", "/A_data.npy", "/A_indices.npy", "/A_indptr.npy", "/b.npy", "/w.npy", "/x_true.npy"}) {
        const auto bytes = file_bytes(directory.path() + name);
        EXPECT_FALSE(bytes.empty()) << name;
        EXPECT_TRUE(bytes == file_bytes(serial.path() + name)) << name;
      }
    }
  }
}

TEST_F(LoadCsr, GeneratesTheProblemThatIsPromised) {
  auto options = problem(Preset::sparse, 20000, 100);
  const TestDirectory directory(communicator_);
  const auto facts = generate(communicator_, options, directory);
  const Communicator self(MPI_COMM_SELF);
  const CsrRows A = load_sparse(self, directory.path() + "/A.npz", StorageChoice::as_file).rows;
  std::vector<Storage> types;
  const RowMajorMatrix b = read_matrix(directory.path() + "/b.npy", types);
  const RowMajorMatrix x = read_matrix(directory.path() + "/x_true.npy", types);
  Eigen::VectorXd z = Eigen::VectorXd::Zero(A.rows());
  double squares = 0;
  std::vector<double> counts(100, 0.0);
  for (Index i = 0; i < A.rows(); ++i)
    for (Index k = 10 * i; k < 10 * i + 10; ++k) {
      const auto entry = static_cast<std::size_t>(k);
      EXPECT_EQ(A.indices[entry] / 10, k - 10 * i);  // one entry in each of the ten groups of columns
      z[i] += A.values[entry] * x(A.indices[entry], 0);
      squares += A.values[entry] * A.values[entry];
      ++counts[static_cast<std::size_t>(A.indices[entry])];
    }
  const Eigen::VectorXd f = (z.array() - z.maxCoeff()).exp();
  EXPECT_LE((f / f.sum() - b.col(0)).cwiseAbs().maxCoeff(), 1e-12 * facts.b_max);
  // 200000 squares with mean 1/10 and standard deviation sqrt(2)/10: eight standard deviations of the mean.
  EXPECT_NEAR(squares / 20000, 1, 8 * std::sqrt(2.0 / 200000));
  // A column is chosen 20000 times with probability 1/10: seven standard deviations.
  for (const double count : counts) EXPECT_NEAR(count, 2000, 7 * std::sqrt(1800.0));
  EXPECT_NEAR(facts.z_true_std, x.norm() / 10, 0.1 * x.norm() / 10);
}

TEST(CsrView, RowsOfTheCallerAreNotCopied) {
  const Communicator comm(MPI_COMM_WORLD);
  for (const bool is_single : {false, true}) {
    CsrRows rows;
    rows.columns = 3;
    rows.offsets = {0, 2, 2, 3};
    rows.indices = {0, 2, 1};
    rows.values = {1, 2, 3};
    if (is_single) {
      rows.singles = {1, 2, 3};
      rows.values.clear();
      rows.is_single = true;
    }
    const auto partition = RowPartition::from_local(comm, rows.rows());
    const RowMatrix view = RowMatrix::view(comm, partition, rows);
    EXPECT_EQ(is_single ? Storage::float32 : Storage::float64, view.storage());
    EXPECT_TRUE(view.is_sparse());
    EXPECT_EQ(3, view.entries_local());
    const Eigen::VectorXd x = Eigen::VectorXd::LinSpaced(3, 1, 3);
    EXPECT_EQ(Eigen::VectorXd({{7, 0, 6}}), view.multiply(x));
    if (is_single)
      rows.singles[2] = 5;  // there is no copy
    else
      rows.values[2] = 5;
    EXPECT_EQ(Eigen::VectorXd({{7, 0, 10}}), view.multiply(x));
    EXPECT_EQ(view.multiply(x), RowMatrix(comm, partition, rows).multiply(x));
    CsrView more = rows;
    more.offsets = more.offsets.first(3);
    EXPECT_THROW(RowMatrix::view(comm, partition, more), InvalidArgument);
  }
}

}  // namespace attnreg::test_load_csr
