#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "rows/gram.hpp"
#include "rows/joint_passes.hpp"
#include "rows/row_passes.hpp"
#include "support/reference.hpp"

namespace attnreg::test_row_matrix {

using Eigen::MatrixXd;
using Eigen::VectorXd;
using reference::Holding;
using reference::Layout;

/// All passes over one matrix, summed over the ranks; row vectors hold all rows.
struct Passes {
  VectorXd z, absolute, product, product_y, norms;
  double moment = 0;  ///< sum of curvature (y - centre)
  MatrixXd transposed, products, products_y;
  RowPasses::MapSums mapped;
  SignedGram gram;
  bool symmetric = true;  ///< this rank's part of it
};

/// The inputs of the passes.
struct Inputs {
  RowMajorMatrix A;
  VectorXd x, u, weights, centre;
  MatrixXd U, X;
  static constexpr double y_centre = 0.3;

  Inputs(Index rows, Index columns)
      : A(reference::random_matrix(rows, columns, 1)),
        x(reference::random_vector(columns, 2)),
        u(reference::random_vector(rows, 3).cwiseAbs()),
        weights(reference::random_vector(rows, 4)),
        centre(reference::random_vector(columns, 5)),
        U(reference::random_matrix(rows, 5, 6)),
        X(reference::random_matrix(columns, 9, 7)) {
    for (Index i = 0; i < rows; i += 3) weights[i] = 0;
    A = reference::rounded_for_all(A);  // the same matrix in every storage
    for (Index k = 0; k < A.size(); k += 3) A.data()[k] = 0;
  }
};

Passes run(const Inputs& in, const RowMatrix& A, bool with_gram) {
  const auto& comm = A.communicator();
  const Index first = A.first_row(), rows = A.rows_local();
  Passes out;
  out.z = reference::gather(comm, A.multiply(in.x));
  out.transposed = reference::summed(comm, A.passes().transpose_multiply(in.U.middleRows(first, rows)));
  out.absolute = reference::summed(comm, A.passes().absolute_transpose_multiply(in.u.segment(first, rows)));
  VectorXd y;
  const VectorXd weights = in.weights.segment(first, rows), ridge = in.u.segment(first, rows);
  const RowCurvature curvature{weights.data(), ridge.data(), Inputs::y_centre};
  const VectorXd product = reference::summed(comm, A.passes().normal_product(in.x, curvature, y));
  out.product = product.head(A.columns());
  out.moment = product[A.columns()];
  MatrixXd Y(rows, in.X.cols()), products(A.columns() + 1, in.X.cols());
  JointPasses passes(A);
  const RowMatrix joined(A.passes().joined(passes));
  std::vector<std::function<void()>> tasks;
  for (Index k = 0; k < in.X.cols(); ++k)
    tasks.emplace_back([&, k] {
      VectorXd own;
      products.col(k) = joined.passes().normal_product(in.X.col(k), curvature, own);
      Y.col(k) = own;
    });
  passes.run(tasks);
  out.products = reference::summed(comm, products);
  out.products_y.resize(in.A.rows(), in.X.cols());
  for (Index k = 0; k < in.X.cols(); ++k) out.products_y.col(k) = reference::gather(comm, Y.col(k));
  VectorXd z;
  const auto map = [&](Index row, Index count, double* U, double* scalars) {
    for (Index i = 0; i < count; ++i) scalars[0] += (U[i] = weights[row + i] * z[row + i]);
  };
  out.mapped = A.passes().map({.x = &in.x, .z = &z, .columns = 1, .scalars = 1, .map = map});
  out.mapped.columns = reference::summed(comm, out.mapped.columns);
  out.mapped.scalars = reference::summed(comm, out.mapped.scalars);
  out.product_y = reference::gather(comm, y);
  out.norms = reference::gather(comm, A.passes().row_norms());
  if (with_gram) {
    out.gram = signed_gram(A, {weights}, in.centre);
    out.symmetric =
        out.gram.positive == out.gram.positive.transpose() && out.gram.negative == out.gram.negative.transpose();
    out.gram.positive = reference::summed(comm, out.gram.positive);
    out.gram.negative = reference::summed(comm, out.gram.negative);
  }
  return out;
}

/// A sum of `terms` products with the sum of their absolute values: in whatever order it is made, its error is at most
/// terms eps scale, entry by entry (Higham 2002, section 3.1); twice that, because the expected sum has it too.
struct Sum {
  MatrixXd value, scale;
  Index terms = 0;

  void compare(const MatrixXd& actual, const char* what) const {
    const double slack = 2 * static_cast<double>(terms) * reference::eps;
    EXPECT_LE(((actual - value).array().abs() - slack * scale.array()).maxCoeff(), 0) << what;
  }
};

/// The passes in plain algebra.
class Expected {
 public:
  Expected(const Inputs& in, bool with_gram) : with_gram_(with_gram) {
    const Index n = in.A.rows(), d = in.A.cols();
    const RowMajorMatrix absolute = in.A.cwiseAbs();
    const VectorXd z = in.A * in.x, z_scale = absolute * in.x.cwiseAbs(), norms = in.A.rowwise().norm();
    multiply_ = {z, z_scale, d};
    transposed_ = {in.A.transpose() * in.U, absolute.transpose() * in.U.cwiseAbs(), n};
    absolute_ = {absolute.transpose() * in.u, absolute.transpose() * in.u, n};
    const auto product = [&](const VectorXd& y, const VectorXd& y_scale) -> Sum {
      const VectorXd u = in.weights.array() * (y.array() - Inputs::y_centre) + in.u.array() * y.array();
      const VectorXd scale =
          in.weights.array().abs() * (y_scale.array() + Inputs::y_centre) + in.u.array() * y_scale.array();
      return {in.A.transpose() * u, absolute.transpose() * scale, n + d + 4};
    };
    product_ = product(z, z_scale);
    const auto moment = [&](const VectorXd& y, const VectorXd& y_scale) -> Sum {
      return {VectorXd::Constant(1, in.weights.dot((y.array() - Inputs::y_centre).matrix())),
              VectorXd::Constant(1, in.weights.cwiseAbs().dot((y_scale.array() + Inputs::y_centre).matrix())), n + d};
    };
    moment_ = moment(z, z_scale);
    const MatrixXd Z = in.A * in.X, Z_scale = absolute * in.X.cwiseAbs();
    columns_ = {Z, Z_scale, d};
    products_ = {MatrixXd(d + 1, Z.cols()), MatrixXd(d + 1, Z.cols()), n + d + 4};
    for (Index k = 0; k < Z.cols(); ++k) {
      const Sum one = product(Z.col(k), Z_scale.col(k)), last = moment(Z.col(k), Z_scale.col(k));
      products_.value.col(k) << one.value, last.value;
      products_.scale.col(k) << one.scale, last.scale;
    }
    mapped_ = {in.A.transpose() * in.weights.cwiseProduct(z),
               absolute.transpose() * in.weights.cwiseAbs().cwiseProduct(z_scale), n + d};
    mapped_scalar_ = {VectorXd::Constant(1, in.weights.dot(z)),
                      VectorXd::Constant(1, in.weights.cwiseAbs().dot(z_scale)), n + d};
    norms_ = {norms, norms, d};
    if (!with_gram) return;
    const MatrixXd rows = in.A.rowwise() - in.centre.transpose();
    const MatrixXd row_scale = absolute.rowwise() + in.centre.cwiseAbs().transpose();
    const MatrixXd scale = row_scale.transpose() * in.weights.cwiseAbs().asDiagonal() * row_scale;
    constexpr Index kMore = 4;  // roundings of a term: the square root, the centred row, their product, its square
    positive_ = {rows.transpose() * in.weights.cwiseMax(0).asDiagonal() * rows, scale, n + kMore};
    negative_ = {rows.transpose() * (-in.weights).cwiseMax(0).asDiagonal() * rows, scale, n + kMore};
  }

  void compare(const Passes& out) const {
    multiply_.compare(out.z, "A x");
    multiply_.compare(out.product_y, "y of the normal product");
    transposed_.compare(out.transposed, "A^T U");
    absolute_.compare(out.absolute, "|A|^T u");
    product_.compare(out.product, "A^T (weights A p)");
    moment_.compare(VectorXd::Constant(1, out.moment), "sum of the curvature times A p - centre");
    columns_.compare(out.products_y, "Y of the normal products");
    products_.compare(out.products, "A^T (weights A P)");
    mapped_.compare(out.mapped.columns, "A^T U, U made of A x");
    mapped_scalar_.compare(out.mapped.scalars, "sums over rows of A x");
    norms_.compare(out.norms, "row norms");
    if (!with_gram_) return;
    positive_.compare(out.gram.positive, "positive Gram matrix");
    negative_.compare(out.gram.negative, "negative Gram matrix");
    EXPECT_TRUE(out.symmetric);
  }

 private:
  bool with_gram_;
  Sum multiply_, transposed_, absolute_, product_, moment_, columns_, products_, mapped_, mapped_scalar_, norms_,
      positive_, negative_;
};

constexpr double kGramFlops = 2e7;  // larger Gram matrices would only make the test slow

class RowMatrixPasses : public testing::TestWithParam<Index> {};

TEST_P(RowMatrixPasses, AgreeWithDenseAlgebra) {
  const Communicator comm(MPI_COMM_WORLD);
  const Index d = GetParam(), ranks = comm.size();
  for (const Index n : {Index{1}, ranks - 1, ranks, ranks + 1, Index{300}, Index{3000}}) {
    if (n == 0) continue;
    const Inputs in(n, d);
    const bool with_gram = static_cast<double>(n * d * d) <= kGramFlops;
    const Expected expected(in, with_gram);
    for (const Layout layout : reference::layouts)
      for (const Holding holding : reference::holdings) {
        SCOPED_TRACE("n = " + std::to_string(n) + ", layout " + std::to_string(static_cast<int>(layout)) +
                     ", holding " + std::to_string(static_cast<int>(holding)));
        expected.compare(run(in, reference::distribute(comm, in.A, layout, holding), with_gram));
      }
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, RowMatrixPasses, testing::Values(1, 3, 100, 257));

TEST(RowMatrix, SaysInWhatItIsHeld) {
  const Communicator comm(MPI_COMM_WORLD);
  const RowMajorMatrix rows = reference::random_matrix(40, 3, 1);
  const std::vector types{Storage::float64, Storage::float32, Storage::float16, Storage::bfloat16};
  for (std::size_t k = 0; k < types.size(); ++k) {
    const auto A = reference::distribute(comm, rows, Layout::random, reference::dense_holdings[k]);
    EXPECT_EQ(A.storage(), types[k]);
    const std::array bytes{8, 4, 2, 2};
    EXPECT_EQ(A.bytes_local(), static_cast<double>(bytes[k] * A.rows_local() * 3));
  }
}

TEST(RowMatrix, ThreadsShareTilesAndGiveTheSameBitsEveryTime) {
  const Communicator comm(MPI_COMM_WORLD);
  const Inputs in(2000, 33);
  const auto A = reference::distribute(comm, in.A, Layout::random);
  const int threads = omp_get_max_threads();
  const Expected expected(in, true);
  for (const int count : {1, 2, 3}) {
    omp_set_num_threads(count);
    const Passes once = run(in, A, true), again = run(in, A, true);
    expected.compare(once);
    EXPECT_TRUE(once.z == again.z);
    EXPECT_TRUE(once.transposed == again.transposed);
    EXPECT_TRUE(once.product == again.product);
    EXPECT_TRUE(once.absolute == again.absolute);
    EXPECT_TRUE(once.gram.positive == again.gram.positive);
    EXPECT_TRUE(once.gram.negative == again.gram.negative);
  }
  omp_set_num_threads(threads);
}

/// Coupled terms, some with k alone, and a ridge.
WeightedRows coupled_rows(Index n) {
  WeightedRows rows{reference::random_vector(n, 11).cwiseMax(0), reference::random_vector(n, 12).cwiseAbs()};
  rows.coupling = rows.curvature.cwiseProduct(reference::random_vector(n, 13));
  rows.self = rows.coupling.cwiseProduct(reference::random_vector(n, 13)).array() + 0.5;
  rows.ridge.head(n / 2).setZero();
  return rows;
}

MatrixXd dense_gram(const RowMajorMatrix& A, const WeightedRows& rows, const VectorXd& c) {
  const VectorXd &m = rows.coupling.size() == 0 ? rows.curvature : rows.coupling, crossed = A.transpose() * m;
  const VectorXd& k = rows.self.size() == 0 ? rows.curvature : rows.self;
  return A.transpose() * VectorXd(rows.curvature + rows.ridge).asDiagonal() * A - crossed * c.transpose() -
         c * crossed.transpose() + k.sum() * c * c.transpose();
}

TEST(Gram, CompletesTheSquaresOfAllRowsAndOfSome) {
  const Communicator comm(MPI_COMM_WORLD);
  constexpr Index n = 300;
  for (const Index d : {1, 30, 257}) {
    const Inputs in(n, d);
    WeightedRows coupled = coupled_rows(n), ridged{coupled.curvature, coupled.ridge};
    for (const Holding holding : reference::holdings)
      for (const WeightedRows& rows : {coupled, ridged}) {
        const RowMatrix A = reference::distribute(comm, in.A, Layout::random, holding);
        const auto local = [&](const VectorXd& v) { return v.size() == 0 ? v : reference::local_part(A, v); };
        const WeightedRows mine{local(rows.curvature), local(rows.ridge), local(rows.coupling), local(rows.self)};
        const MatrixXd part = signed_gram(A, mine, in.centre).positive, all = reference::summed(comm, part);
        std::vector<Index> chosen;
        for (Index i = 0; i < A.rows_local(); ++i)
          if ((A.first_row() + i) % 3 == 0) chosen.push_back(i);
        const VectorXd factors = VectorXd::Constant(static_cast<Index>(chosen.size()), 2);
        const SignedGram some = signed_gram(A, mine.choose(chosen, factors), in.centre);
        const MatrixXd twice_a_third = reference::summed(comm, some.positive);
        VectorXd kept = VectorXd::Zero(n);
        for (Index i = 0; i < n; i += 3) kept[i] = 2;
        const auto weighted = [&](const VectorXd& v) { return v.size() == 0 ? v : VectorXd(v.cwiseProduct(kept)); };
        const WeightedRows third{weighted(rows.curvature), weighted(rows.ridge), weighted(rows.coupling),
                                 weighted(rows.self)};
        const MatrixXd expected = dense_gram(in.A, rows, in.centre);
        const double slack = 100 * n * reference::eps * expected.diagonal().maxCoeff();
        EXPECT_LE((all - expected).cwiseAbs().maxCoeff(), slack) << d << ' ' << static_cast<int>(holding);
        EXPECT_LE((twice_a_third - dense_gram(in.A, third, in.centre)).cwiseAbs().maxCoeff(), slack);
        EXPECT_TRUE(some.negative.isZero(0));
        EXPECT_EQ(part, part.transpose());
        EXPECT_EQ(A.reads(), 1);  // the chosen rows are not counted
      }
  }
}

TEST(RowMatrix, CountsReadsAlikeOnAllRanksRowNormsApart) {
  const Communicator comm(MPI_COMM_WORLD);
  const Inputs in(50, 3);
  const auto A = reference::distribute(comm, in.A, Layout::all_on_last);
  const auto copy = A;
  const double before = A.reads();
  run(in, copy, true);
  A.passes().row_norms();
  EXPECT_EQ(before, 0);
  EXPECT_EQ(A.reads(), 7);  // one each: A x, A^T U, |A|^T u, normal product and products, the map, the Gram matrices
}

TEST(RowMatrix, NormsOfRowsWhoseSquaresAreNoNumbers) {
  const Communicator comm(MPI_COMM_WORLD);
  RowMajorMatrix rows = reference::random_matrix(40, 5, 3);
  rows.row(7).setZero();
  const VectorXd norms = rows.rowwise().norm();
  for (const double scale : {0x1p-900, 0x1p900}) {
    const auto A = reference::distribute(comm, RowMajorMatrix(scale * rows), Layout::random);
    const auto sparse = reference::distribute(comm, RowMajorMatrix(scale * rows), Layout::random, Holding::sparse64);
    for (const RowMatrix* matrix : {&A, &sparse}) {
      const VectorXd expected = scale * reference::local_part(*matrix, norms);
      EXPECT_LE((matrix->passes().row_norms() - expected).lpNorm<Eigen::Infinity>(), scale * 1e-14);
    }
  }
}

TEST(RowMatrix, PassVisitsEveryRowOnceInAlignedTiles) {
  const Communicator comm(MPI_COMM_WORLD);
  const RowMajorMatrix rows = reference::random_matrix(700, 257, 1);
  const auto A = reference::distribute(comm, rows, Layout::random);
  const Index tile = tile_rows(257);
  struct Count {
    VectorXd visits;
    int crossing = 0;
    Count& operator+=(const Count& other) {
      visits += other.visits;
      crossing += other.crossing;
      return *this;
    }
  };
  const auto count = A.passes().pass(Count{VectorXd::Zero(A.rows_local())}, [&](const Tile& t, Count& sum) {
    const Index first = static_cast<Index>(A.first_row()) + t.first_local(), last = first + t.rows() - 1;
    sum.visits.segment(t.first_local(), t.rows()).array() += 1;
    sum.crossing += first / tile == last / tile && t.dense() == rows.middleRows(first, t.rows()) ? 0 : 1;
  });
  EXPECT_TRUE(count.visits == VectorXd::Ones(A.rows_local()));
  EXPECT_EQ(count.crossing, 0);
}

__extension__ typedef __float128 Quad;  // twice the digits of double, and some

// Rows that cancel to about 1e-12 of their terms: error <= eps |z| + (d eps)^2 sum |a x| (Ogita, Rump, Oishi 2005,
// corollary 4.7, in place of d eps sum |a x|).
TEST(RowMatrix, CompensatedProductsAreRoundedOnce) {
  const Communicator comm(MPI_COMM_WORLD);
  const std::vector long_holdings{Holding::float64, Holding::float32, Holding::sparse64, Holding::sparse32};
  for (const Index d : {2, 7, 8, 33, 100}) {
    constexpr Index n = 500;
    RowMajorMatrix dense = reference::random_matrix(n, d, 1).cast<float>().cast<double>();
    const VectorXd x = reference::random_vector(d, 2);
    const auto last = [&](Index i) { return -dense.row(i).head(d - 1).dot(x.head(d - 1)) / x[d - 1]; };
    for (Index i = 0; i < n; ++i) dense(i, d - 1) = static_cast<double>(static_cast<float>(last(i)));
    for (const auto& [is_short, shift] : {std::pair{false, 0.0}, std::pair{false, 1e-7}, std::pair{true, 1e-7}}) {
      if (is_short) dense = reference::rounded_for_all(dense);
      VectorXd exact(n), bound(n);
      for (Index i = 0; i < n; ++i) {
        Quad sum = -shift, size = shift;
        for (Index j = 0; j < d; ++j) {
          const Quad term = static_cast<Quad>(dense(i, j)) * x[j];
          sum += term, size += term < 0 ? -term : term;
        }
        exact[i] = static_cast<double>(sum);
        const double terms = static_cast<double>(d + 1) * reference::eps;
        bound[i] = reference::eps * std::abs(exact[i]) + terms * terms * static_cast<double>(size);
      }
      for (const auto holding : is_short ? std::vector{Holding::float16, Holding::bfloat16} : long_holdings) {
        const auto A = reference::distribute(comm, dense, Layout::random, holding);
        const VectorXd z = reference::gather(comm, A.passes().multiply(x, Compensated{shift}));
        EXPECT_LE(((z - exact).cwiseAbs() - bound).maxCoeff(), 0) << d << " columns, shift " << shift;
        VectorXd mapped;
        A.passes().map({.x = &x, .compensated = Compensated{shift}, .z = &mapped});
        EXPECT_EQ(reference::gather(comm, mapped), z);
        EXPECT_EQ(A.reads(), 2);
      }
    }
  }
}

// A plain sum of equal numbers loses up to half an ulp with each: thousands of eps here. 32 terms lose at most 8 eps,
// half of it in the last ones.
TEST(RowMatrix, SumsOverManyRowsKeepTheirDigits) {
  const Communicator comm(MPI_COMM_WORLD);
  constexpr Index n = 60000, d = 3;
  constexpr float kEntry = 0x1.9ap-4F;  // 0.1, nearly; every type has it
  const RowMajorMatrix dense = RowMajorMatrix::Constant(n, d, static_cast<double>(kEntry));
  const VectorXd u = VectorXd::Constant(n, 0.3);
  const double exact = static_cast<double>(static_cast<Quad>(kEntry) * 0.3 * n);
  for (const auto holding : reference::holdings) {
    const auto A = reference::distribute(comm, dense, Layout::random, holding);
    auto sums = A.passes().map({.columns = 1, .scalars = 1, .map = [&](Index, Index rows, double* U, double* scalar) {
                                  std::fill_n(U, rows, u[0]);
                                  for (Index i = 0; i < rows; ++i) *scalar += kEntry * u[0];
                                }});
    VectorXd all(d + 1);
    all << sums.columns, sums.scalars;
    comm.sum(std::span(all.data(), static_cast<std::size_t>(all.size())));
    EXPECT_LE((all.head(d).array() - exact).abs().maxCoeff(), 8 * reference::eps * exact);
    EXPECT_LE(std::abs(all[d] - exact), 512 * reference::eps * exact);  // a tile's part is the test's own plain sum
  }
}

TEST(RowMatrix, AnExceptionOfAThreadComesThrough) {
  const Communicator comm(MPI_COMM_WORLD);
  const auto A = reference::distribute(comm, RowMajorMatrix::Ones(3000, 3), Layout::even);
  EXPECT_THROW(A.passes().pass(0, [](const Tile&, int&) { throw OutOfMemory("in a tile"); }), OutOfMemory);
}

TEST(RowMatrix, RejectsWrongSizes) {
  const Communicator comm(MPI_COMM_WORLD);
  const auto partition = RowPartition::tiled(10, 3, comm.size());
  const Index rows = partition.rows_local(comm.rank());
  const auto wrong_ranks = RowPartition(std::vector<std::int64_t>(static_cast<std::size_t>(comm.size()) + 2, 0));
  EXPECT_THROW(RowMatrix(comm, partition, RowMajorMatrix(rows + 1, 3)), InvalidArgument);
  EXPECT_THROW(RowMatrix(comm, partition, RowMajorMatrix(rows, 0)), InvalidArgument);
  EXPECT_THROW(RowMatrix(comm, wrong_ranks, RowMajorMatrix(0, 3)), InvalidArgument);
  EXPECT_THROW(RowMatrix::view(comm, RowPartition::tiled(0, 3, comm.size()), static_cast<double*>(nullptr), 3),
               InvalidArgument);
}

}  // namespace attnreg::test_row_matrix
