#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/resource.h>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <csignal>
#include <filesystem>
#include <limits>

#include "attnreg/files.hpp"
#include "support/npy_bytes.hpp"
#include "support/temporary_directory.hpp"

namespace attnreg::test_load {

using test::column_major;
using test::npy_bytes;
using test::npy_dictionary;
using test::scalar_bytes;
using test::TemporaryDirectory;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr double nan = std::numeric_limits<double>::quiet_NaN();
constexpr double infinity = std::numeric_limits<double>::infinity();

/// Entries that tell their place, exact in float.
std::vector<double> numbered(std::int64_t rows, std::int64_t columns) {
  std::vector<double> values(static_cast<std::size_t>(rows * columns));
  for (std::size_t k = 0; k < values.size(); ++k) values[k] = static_cast<double>(k) - 7;
  return values;
}

struct Outcome {
  std::string message = "(accepted)";
  ExitCode code = ExitCode::converged;
  Error::Scope scope = Error::Scope::all_ranks;
};

class Load : public testing::Test {
 protected:
  ~Load() override { communicator_.barrier(); }

  /// Collective. Rank 0 writes the file; the path.
  std::string write(const std::string& name, const std::string& bytes) const {
    if (communicator_.is_root()) directory_.write(name, bytes);
    communicator_.barrier();
    return directory_.path(name);
  }

  std::string write_matrix(const std::vector<double>& values, std::int64_t rows, std::int64_t columns) const {
    const std::string shape = "(" + std::to_string(rows) + ", " + std::to_string(columns) + ")";
    return write("A.npy", npy_bytes(npy_dictionary("<f8", false, shape), scalar_bytes(values)));
  }

  /// Collective. What `call` throws; it must be the same on all ranks.
  template <class Call>
  Outcome outcome(Call&& call) const {
    Outcome result;
    try {
      call();
    } catch (const Error& error) {
      result = {error.what(), error.code(), error.scope()};
    }
    const std::string at_root = communicator_.broadcast(result.message);
    EXPECT_EQ(result.message, at_root);
    EXPECT_EQ(result.scope, Error::Scope::all_ranks);
    return result;
  }

  Outcome matrix_outcome(const std::string& path, StorageChoice storage = StorageChoice::as_file) const {
    return outcome([&] { load_matrix(communicator_, path, storage); });
  }

  /// Collective. The values of all ranks in rank order, seen through the passes of the matrix.
  std::vector<double> all_values(const RowMatrix& A) const {
    std::vector<double> local;
    Eigen::VectorXd unit = Eigen::VectorXd::Zero(A.columns());
    Eigen::MatrixXd rows(A.rows_local(), A.columns());
    for (Index j = 0; j < A.columns(); ++j) {
      unit.setZero();
      unit(j) = 1;
      rows.col(j) = A.multiply(unit);
    }
    for (Index i = 0; i < rows.rows(); ++i) {
      for (Index j = 0; j < rows.cols(); ++j) local.push_back(rows(i, j));
    }
    return communicator_.all_gather(std::span<const double>(local));
  }

  Communicator communicator_{MPI_COMM_WORLD};
  TemporaryDirectory directory_ = TemporaryDirectory::shared(communicator_);
};

TEST_F(Load, SpreadsTheRowsOfTheFile) {
  for (const std::int64_t rows : {1, 2, 3, 5, 1500, 5000}) {
    for (const std::int64_t columns : {1, 3}) {
      const auto values = numbered(rows, columns);
      const RowMatrix A = load_matrix(communicator_, write_matrix(values, rows, columns), StorageChoice::as_file);
      const double reads = A.reads();
      const auto found = all_values(A);
      EXPECT_EQ(A.rows_global(), rows);
      EXPECT_EQ(A.columns(), columns);
      EXPECT_EQ(reads, 0);
      EXPECT_EQ(found, values);
    }
  }
}

TEST_F(Load, ReadsEveryOrderAndType) {
  const auto values = numbered(3000, 5);
  const std::vector<float> floats(values.begin(), values.end());
  for (const bool fortran_order : {false, true}) {
    for (const bool big_endian : {false, true}) {
      for (const bool single : {false, true}) {
        const std::string descr = std::string(big_endian ? ">" : "<") + (single ? "f4" : "f8");
        const std::string data = single ? scalar_bytes(fortran_order ? column_major(floats, 5) : floats, big_endian)
                                        : scalar_bytes(fortran_order ? column_major(values, 5) : values, big_endian);
        const auto path = write("A.npy", npy_bytes(npy_dictionary(descr, fortran_order, "(3000, 5)"), data));
        const auto as_file = load_matrix(communicator_, path, StorageChoice::as_file);
        const auto as_float = load_matrix(communicator_, path, StorageChoice::float32);
        const auto as_double = load_matrix(communicator_, path, StorageChoice::float64);
        EXPECT_EQ(as_file.storage(), single ? Storage::float32 : Storage::float64);
        EXPECT_EQ(as_float.storage(), Storage::float32);
        EXPECT_EQ(as_double.storage(), Storage::float64);
        for (const RowMatrix* A : {&as_file, &as_float, &as_double}) {
          const auto found = all_values(*A);
          EXPECT_EQ(found, values) << descr << fortran_order;
        }
      }
    }
  }
}

TEST_F(Load, TakesAVectorAsOneColumn) {
  const auto path = write("A.npy", npy_bytes(npy_dictionary("<f8", false, "(4,)"), scalar_bytes(numbered(4, 1))));
  const RowMatrix A = load_matrix(communicator_, path, StorageChoice::as_file);
  const auto found = all_values(A);
  EXPECT_EQ(A.columns(), 1);
  EXPECT_EQ(found, numbered(4, 1));
}

TEST_F(Load, FindsNonFiniteValuesOnAnyRank) {
  constexpr std::int64_t rows = 4100, columns = 3;  // tiles of 1024 rows: every rank has some
  for (const double bad : {nan, infinity, -infinity}) {
    for (const std::int64_t row : {std::int64_t{0}, rows / 2, rows - 1}) {
      auto values = numbered(rows, columns);
      values[static_cast<std::size_t>(row * columns + 1)] = bad;
      values[static_cast<std::size_t>(rows * columns - 1)] = bad;
      const Outcome found = matrix_outcome(write_matrix(values, rows, columns));
      EXPECT_EQ(found.code, ExitCode::bad_input);
      EXPECT_THAT(found.message, AllOf(HasSubstr("A.npy: row " + std::to_string(row) + ", column 1 is " +
                                                 (std::isnan(bad) ? "nan"
                                                  : bad > 0       ? "inf"
                                                                  : "-inf")),
                                       HasSubstr("2 values are not finite")));
    }
  }
}

TEST_F(Load, AcceptsExtremesAndRefusesThemAsFloat) {
  auto values = numbered(2100, 2);
  values[4199] = std::numeric_limits<double>::max();
  values[1] = 5e-324;
  const auto path = write_matrix(values, 2100, 2);
  const Outcome as_double = matrix_outcome(path);
  const Outcome as_float = matrix_outcome(path, StorageChoice::float32);
  EXPECT_EQ(as_double.message, "(accepted)");
  EXPECT_THAT(as_float.message, AllOf(HasSubstr("row 0, column 1 is 4.94066e-324, which is too small for float"),
                                      HasSubstr("2 values cannot be held as float"), HasSubstr("--storage double")));
}

// In either order, and from every type: what is between two numbers goes to the nearer one, once.
TEST_F(Load, RoundsToTheNearestNumberOfFewerBits) {
  struct Case {
    double value, half, bfloat16;
  };
  const std::vector<Case> cases{
      {1, 1, 1},
      {-65504, -65504, -65536},
      {65519.9, 65504, 65536},
      {1 + 0x1p-11, 1, 1},                      // in the middle: the even one
      {1 + 0x1p-11 + 0x1p-40, 1 + 0x1p-10, 1},  // above the middle, which float would hide
      {-1 - 0x1p-8 - 0x1p-40, -1 - 0x1p-8, -1 - 0x1p-7},
      {1 + 0x3p-8 - 0x1p-40, 1 + 0x3p-8, 1 + 0x1p-7},
      {1 + 0x3p-11 - 0x1p-40, 1 + 0x1p-10, 1},
      {0x1p-25 + 0x1p-60, 0x1p-24, 0x1p-25},  // half's least number
      {0x1p-25, 0, 0x1p-25},
      {-0.1, -0x1.998p-4, -0x1.9ap-4},
      {0, 0, 0},
  };
  const auto rows = std::ssize(cases) * 400;
  std::vector<double> values, halves, shorts;
  for (std::int64_t k = 0; k < rows; ++k) {
    const Case& one = cases[static_cast<std::size_t>(k) % cases.size()];
    for (const double sign : {1.0, -1.0})
      values.push_back(sign * one.value), halves.push_back(sign * one.half), shorts.push_back(sign * one.bfloat16);
  }
  const std::string shape = "(" + std::to_string(rows) + ", 2)";
  for (const bool fortran_order : {false, true}) {
    const auto data = scalar_bytes(fortran_order ? column_major(values, 2) : values);
    const auto path = write("A.npy", npy_bytes(npy_dictionary("<f8", fortran_order, shape), data));
    const RowMatrix half = load_matrix(communicator_, path, StorageChoice::float16);
    const RowMatrix brief = load_matrix(communicator_, path, StorageChoice::bfloat16);
    const auto of_half = all_values(half), of_bfloat16 = all_values(brief);
    EXPECT_EQ(of_half, halves) << fortran_order;
    EXPECT_EQ(of_bfloat16, shorts) << fortran_order;
  }
}

TEST_F(Load, HoldsHalfAsItIsInTheFile) {
  constexpr std::int64_t rows = 3000;
  std::vector<std::uint16_t> bits;  // all that are finite, some twice
  for (std::uint32_t k = 0; bits.size() < 5 * rows * 4; ++k)
    if ((k & 0x7c00) != 0x7c00) bits.push_back(static_cast<std::uint16_t>(k));
  for (const bool big_endian : {false, true}) {
    std::string data;
    for (const std::uint16_t one : bits)
      for (const int byte : big_endian ? std::array{1, 0} : std::array{0, 1})
        data += static_cast<char>(one >> (8 * byte) & 0xff);
    const auto path = write("A.npy", npy_bytes(npy_dictionary(big_endian ? ">f2" : "<f2", false, "(12000, 5)"), data));
    const RowMatrix A = load_matrix(communicator_, path, StorageChoice::as_file);
    const RowMatrix wide = load_matrix(communicator_, path, StorageChoice::float64);
    EXPECT_EQ(A.storage(), Storage::float16);
    const auto found = all_values(A), expected = all_values(wide);
    EXPECT_EQ(found, expected);
    std::vector<double> meant;
    for (const std::uint16_t one : bits) meant.push_back(static_cast<double>(std::bit_cast<Eigen::half>(one)));
    EXPECT_EQ(expected, meant);
  }
  const std::string bad("\x00\x3c\x00\xfc\x01\x7e\x00\x3c", 8);  // 1, -inf, nan, 1
  const Outcome found = matrix_outcome(write("A.npy", npy_bytes(npy_dictionary("<f2", false, "(2, 2)"), bad)));
  EXPECT_THAT(found.message, AllOf(HasSubstr("A.npy: row 0, column 1 is -inf"), HasSubstr("2 values are not finite")));
}

TEST_F(Load, RefusesWhatHalfAndBfloat16CannotHold) {
  auto values = numbered(2100, 2);
  values[4198] = -65520;
  const Outcome as_half = matrix_outcome(write_matrix(values, 2100, 2), StorageChoice::float16);
  EXPECT_EQ(as_half.code, ExitCode::bad_input);
  EXPECT_THAT(as_half.message, AllOf(HasSubstr("A.npy: row 2099, column 0 is -65520, which is too large for half"),
                                     HasSubstr("1 value cannot be held as half"), HasSubstr("--storage double")));
  EXPECT_EQ(matrix_outcome(directory_.path("A.npy"), StorageChoice::bfloat16).message, "(accepted)");
  values[3] = 1e-40;
  values[4] = 3.4e38;
  const Outcome as_bfloat16 = matrix_outcome(write_matrix(values, 2100, 2), StorageChoice::bfloat16);
  EXPECT_THAT(as_bfloat16.message, AllOf(HasSubstr("row 1, column 1 is 1e-40, which is too small for bfloat16"),
                                         HasSubstr("2 values cannot be held as bfloat16")));
}

// A column of small numbers would lose its digits in half, or be 0; one that is 0 is so in the file.
TEST_F(Load, RefusesColumnsThatHalfCannotHold) {
  constexpr std::int64_t rows = 2100;
  auto values = numbered(rows, 3);
  for (std::int64_t i = 0; i < rows; ++i) {
    values[static_cast<std::size_t>(3 * i)] = 0;
    values[static_cast<std::size_t>(3 * i + 1)] *= 1e-9;
  }
  values[23] = 1e-9;
  const auto path = write_matrix(values, rows, 3);
  EXPECT_THAT(matrix_outcome(path, StorageChoice::float16).message,
              AllOf(HasSubstr("the largest value of column 1 is "), HasSubstr("6.1e-5"), HasSubstr("bfloat16")));
  EXPECT_EQ(matrix_outcome(path, StorageChoice::bfloat16).message, "(accepted)");
  EXPECT_THAT(outcome([&] { load_transpose(communicator_, path, StorageChoice::float16); }).message,
              HasSubstr("the largest value of row 7 is 1.5e-08"));
  values[1] = 1;
  EXPECT_EQ(matrix_outcome(write_matrix(values, rows, 3), StorageChoice::float16).message, "(accepted)");
}

TEST_F(Load, RefusesOtherShapes) {
  const auto attempt = [&](const std::string& shape, std::size_t values) {
    return matrix_outcome(write("A.npy", npy_bytes(npy_dictionary("<f8", false, shape), std::string(8 * values, '\0'))))
        .message;
  };
  const std::vector<std::string> messages{attempt("()", 1), attempt("(2, 2, 2)", 8), attempt("(0, 3)", 0),
                                          attempt("(3, 0)", 0), attempt("(0,)", 0)};
  EXPECT_THAT(messages[0], AllOf(HasSubstr("found shape ()"), HasSubstr("expected a matrix (n, d)")));
  EXPECT_THAT(messages[1], HasSubstr("found shape (2, 2, 2)"));
  EXPECT_THAT(messages[2], AllOf(HasSubstr("found shape (0, 3)"), HasSubstr("at least one row and one column")));
  EXPECT_THAT(messages[3], HasSubstr("at least one row and one column"));
  EXPECT_THAT(messages[4], HasSubstr("at least one row and one column"));
}

TEST_F(Load, RefusesMissingAndTruncatedFiles) {
  const Outcome missing = matrix_outcome(directory_.path("none.npy"));
  const std::string whole = npy_bytes(npy_dictionary("<f8", false, "(2, 2)"), std::string(32, '\0'));
  const Outcome truncated = matrix_outcome(write("A.npy", whole.substr(0, whole.size() - 1)));
  EXPECT_EQ(missing.code, ExitCode::bad_input);
  EXPECT_THAT(missing.message, HasSubstr("none.npy: cannot open the file: No such file"));
  EXPECT_THAT(truncated.message, HasSubstr("truncated"));
}

TEST_F(Load, RefusesWhatDoesNotFitInMemoryAtOnce) {
  const std::string header = npy_bytes(npy_dictionary("<f8", false, "(1000000000, 100)"), "");
  const auto path = write("A.npy", header);
  std::error_code error;
  if (communicator_.is_root()) std::filesystem::resize_file(path, header.size() + 800'000'000'000, error);
  const double errors = communicator_.sum(static_cast<double>(error.value()));
  EXPECT_EQ(errors, 0) << "the directory for temporary files must take sparse files";
  if (errors != 0) return;
  const auto start = std::chrono::steady_clock::now();
  const Outcome found = matrix_outcome(path);
  const auto elapsed = std::chrono::steady_clock::now() - start;
  EXPECT_EQ(found.code, ExitCode::memory);
  EXPECT_THAT(found.message, AllOf(HasSubstr("shape (1000000000, 100) as double"), HasSubstr("GB needed"),
                                   HasSubstr("GB available"), HasSubstr("more nodes")));
  EXPECT_LT(elapsed, std::chrono::seconds(5));
}

TEST_F(Load, SpreadsAVectorLikeTheRows) {
  constexpr std::int64_t n = 3000;
  const auto values = numbered(n, 1);
  const auto partition = RowPartition::tiled(n, 4, communicator_.size());
  for (const char* const shape : {"(3000,)", "(3000, 1)"}) {
    const auto path = write("b.npy", npy_bytes(npy_dictionary("<f8", false, shape), scalar_bytes(values)));
    const Eigen::VectorXd b = load_rows_vector(communicator_, path, "b", partition);
    const auto all = communicator_.all_gather(std::span<const double>(b.data(), static_cast<std::size_t>(b.size())));
    EXPECT_EQ(all, values);
  }
  const auto path = directory_.path("b.npy");
  const auto other = RowPartition::tiled(n + 1, 4, communicator_.size());
  const Outcome found = outcome([&] { load_rows_vector(communicator_, path, "b", other); });
  EXPECT_THAT(found.message, AllOf(HasSubstr("b.npy: b has shape (3000, 1)"), HasSubstr("expected (3001,)")));
}

TEST_F(Load, FindsNonFiniteValuesOfAVector) {
  auto values = numbered(3000, 1);
  values[2999] = nan;
  const auto path = write("b.npy", npy_bytes(npy_dictionary("<f8", false, "(3000,)"), scalar_bytes(values)));
  const auto partition = RowPartition::tiled(3000, 4, communicator_.size());
  const Outcome found = outcome([&] { load_rows_vector(communicator_, path, "b", partition); });
  const Outcome replicated = outcome([&] { load_vector(communicator_, path, "x", 3000); });
  EXPECT_THAT(found.message, AllOf(HasSubstr("row 2999 is nan"), HasSubstr("1 value is not finite")));
  EXPECT_EQ(replicated.message, found.message);
}

TEST_F(Load, ReplicatesAVector) {
  const auto values = numbered(9, 1);
  const auto path = write("x.npy", npy_bytes(npy_dictionary(">f8", false, "(9,)"), scalar_bytes(values, true)));
  const Eigen::VectorXd x = load_vector(communicator_, path, "x", 9);
  const Outcome wrong = outcome([&] { load_vector(communicator_, path, "x", 8); });
  const Outcome missing = outcome([&] { load_vector(communicator_, directory_.path("none"), "x", 8); });
  EXPECT_EQ(std::vector(x.begin(), x.end()), values);
  EXPECT_THAT(wrong.message, AllOf(HasSubstr("x has shape (9,)"), HasSubstr("expected (8,)")));
  EXPECT_THAT(missing.message, HasSubstr("No such file"));
}

/// Writes `values` by rows with the writer: every rank its own, in two calls.
void write_together(const Communicator& communicator, const std::string& path, Storage type,
                    const std::vector<double>& values, const std::vector<std::int64_t>& shape) {
  const std::int64_t columns = shape.size() == 2 ? shape[1] : 1;
  const auto partition = RowPartition::tiled(shape[0], columns, communicator.size());
  const std::int64_t begin = partition.begin(communicator.rank()), end = partition.end(communicator.rank());
  const std::int64_t middle = (begin + end) / 2;
  const auto rows = [&](std::int64_t first, std::int64_t last) {
    return std::span(values).subspan(static_cast<std::size_t>(first * columns),
                                     static_cast<std::size_t>((last - first) * columns));
  };
  NpyWriter writer(communicator, path, type, shape);
  writer.write_rows(middle, rows(middle, end));
  writer.write_rows(begin, rows(begin, middle));
  writer.commit();
}

TEST_F(Load, WritesTheSameBytesOnAnyNumberOfRanks) {
  for (const std::int64_t rows : {1, 2, 5000}) {
    const auto values = numbered(rows, 3);
    if (communicator_.is_root()) write_npy(directory_.path("serial.npy"), values, {rows, 3});
    write_together(communicator_, directory_.path("together.npy"), Storage::float64, values, {rows, 3});
    write_together(communicator_, directory_.path("vector.npy"), Storage::float32, values, {rows * 3});
    const auto path = directory_.path("vector.npy");
    const Eigen::VectorXd vector = load_vector(communicator_, path, "x", rows * 3);
    EXPECT_EQ(directory_.read("together.npy"), directory_.read("serial.npy"));
    EXPECT_EQ(directory_.read("vector.npy").size(), static_cast<std::size_t>(128 + 12 * rows));
    EXPECT_EQ(std::vector(vector.begin(), vector.end()), values);
    communicator_.barrier();
  }
  EXPECT_THAT(directory_.names(), ElementsAre("serial.npy", "together.npy", "vector.npy"));
}

TEST_F(Load, WriterRefusesBadTargets) {
  const auto folder = directory_.path("folder");
  if (communicator_.is_root()) std::filesystem::create_directory(folder);
  const auto attempt = [&](const std::string& path) {
    return outcome([&] { write_together(communicator_, path, Storage::float64, numbered(4, 1), {4}); });
  };
  const Outcome directory = attempt(folder);
  const Outcome missing = attempt(directory_.path("none/a.npy"));
  const Outcome shape = outcome([&] { NpyWriter(communicator_, directory_.path("a.npy"), Storage::float64, {-1, 3}); });
  communicator_.barrier();
  EXPECT_EQ(directory.code, ExitCode::output);
  EXPECT_THAT(directory.message, HasSubstr("is a directory"));
  EXPECT_THAT(missing.message, HasSubstr("create the directory first"));
  EXPECT_EQ(shape.code, ExitCode::output);
  EXPECT_THAT(directory_.names(), ElementsAre("folder"));
}

TEST_F(Load, WriterKeepsTheOldFileWhenOneRankFails) {
  const auto path = write("a.npy", "old");
  const int last = communicator_.size() - 1;
  const Outcome outside = outcome([&] {
    NpyWriter writer(communicator_, path, Storage::float64, {4, 2});
    const std::vector<double> row{1, 2};
    if (communicator_.rank() == last) writer.write_rows(4, row);
    writer.commit();
  });
  const Outcome incomplete = outcome([&] {
    NpyWriter writer(communicator_, path, Storage::float64, {4, 2});
    const std::vector<double> row{1, 2};
    if (communicator_.rank() == last) writer.write_rows(3, row);
    writer.commit();
  });
  const Outcome abandoned = outcome([&] { NpyWriter(communicator_, path, Storage::float64, {4, 2}); });
  communicator_.barrier();
  EXPECT_EQ(outside.code, ExitCode::output);
  EXPECT_THAT(outside.message, HasSubstr("from row 4 of shape (4, 2)"));
  EXPECT_THAT(incomplete.message, HasSubstr("144 bytes were written, the file has 192"));
  EXPECT_EQ(abandoned.message, "(accepted)");
  EXPECT_EQ(directory_.read("a.npy"), "old");
  EXPECT_THAT(directory_.names(), ElementsAre("a.npy"));
}

TEST_F(Load, WriterReportsAFullDiskOfOneRank) {
  const auto path = write("a.npy", "old");
  rlimit before{};
  ::getrlimit(RLIMIT_FSIZE, &before);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const Outcome found = outcome([&] {
    NpyWriter writer(communicator_, path, Storage::float64, {1000});
    // Only now: the space is reserved when the writer is made.
    const rlimit limit{1024, before.rlim_max};
    if (communicator_.rank() == communicator_.size() - 1) ::setrlimit(RLIMIT_FSIZE, &limit);
    const std::vector<double> values(1000);
    if (communicator_.rank() == communicator_.size() - 1) writer.write_rows(0, values);
    ::setrlimit(RLIMIT_FSIZE, &before);
    writer.commit();
  });
  std::signal(SIGXFSZ, handler);
  communicator_.barrier();
  EXPECT_EQ(found.code, ExitCode::output);
  EXPECT_THAT(found.message, AllOf(HasSubstr("a.npy"), HasSubstr("File too large")));
  EXPECT_EQ(directory_.read("a.npy"), "old");
  EXPECT_THAT(directory_.names(), ElementsAre("a.npy"));
}

}  // namespace attnreg::test_load
