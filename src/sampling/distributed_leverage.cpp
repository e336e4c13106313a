#include <algorithm>
#include <cmath>
#include <vector>

#include "algebra/pivoted_factor.hpp"
#include "algebra/scalapack.hpp"
#include "errors/refuse.hpp"
#include "ranks/span_of.hpp"
#include "rows/dense_rows.hpp"
#include "rows/row_passes.hpp"
#include "sampling/leverage_basis.hpp"

namespace attnreg {

namespace {

/// Collective. The sketch S diag(scale) A, or all rows where those are no more.
DistributedMatrix sketched_rows(const RowMatrix& A, const VectorXd& scale, const SketchOptions& options,
                                const std::shared_ptr<const ProcessGrid>& grid) {
  const bool is_sketch = options.rows < A.rows_global();
  const Index rows = is_sketch ? options.rows : static_cast<Index>(A.rows_global());
  const double reads_before = A.reads();
  DistributedMatrix M(grid, rows, A.columns());
  int panels = 0;
  for (Index first = 0; first < rows; first += kPanel, ++panels) {
    const Index count = std::min(kPanel, rows - first);
    const RowMajorMatrix panel =
        is_sketch ? sketch_panel(A, scale, options, first, count) : rows_in_place(A, first, count, scale);
    M.add_sum(A.communicator(), MatrixXd(panel), first, 0);
  }
  const int reads = is_sketch ? std::min(panels, options.nonzeros) : 1;
  A.passes().count_reads(reads_before + reads - A.reads());
  return M;
}

/// Collective. Scales the columns to norms in [1/2, 1) by powers of two, which are returned; none if not finite.
VectorXd scale_columns(DistributedMatrix& M) {
  const Index d = M.columns();
  VectorXd sums = VectorXd::Zero(2 * d);  // of squares, and of sizes, which serve where those under- or overflow
  M.for_each([&](Index, Index j, double& entry) {
    sums[j] += entry * entry;
    sums[d + j] += std::abs(entry);
  });
  M.grid().communicator().sum(span_of(sums));
  if (!sums.tail(d).allFinite()) return {};
  constexpr double kSmallest = 1e-280, kLargest = 1e300;
  VectorXd scale(d);
  for (Index j = 0; j < d; ++j)
    scale[j] = scale_for(sums[j] > kSmallest && sums[j] < kLargest ? std::sqrt(sums[j]) : sums[d + j]);
  M.for_each([&](Index, Index j, double& entry) { entry *= scale[j]; });
  return scale;
}

/// R11^-1 G of an R11 whose rows are given the signs that make its diagonal positive, and so unique.
MatrixXd solve_signed(const DistributedMatrix& R, const VectorXd& diagonal, MatrixXd G) {
  return scalapack::solve_upper(R, diagonal.head(G.rows()).cwiseSign().asDiagonal() * G);
}

/// Collective. With N / column_scale in place of N. From R without pivoting; an empty N if it is nearly singular.
LeverageBasis plain_basis(const DistributedMatrix& R, double tolerance, Index k, const LeverageOptions& options) {
  const Index d = R.columns();
  const VectorXd diagonal = R.diagonal(), sizes = diagonal.cwiseAbs();
  if (!(sizes.minCoeff() > tolerance * sizes.maxCoeff())) return {};
  MatrixXd N = solve_signed(R, diagonal, jl_projection(d, k, options));
  if (!(N.norm() * tolerance * sizes.maxCoeff() < 1)) return {};
  return {std::move(N), d};
}

/// Collective. The same from R, or M itself if it has no more rows than columns, factored with column pivoting.
LeverageBasis pivoted_basis(DistributedMatrix& R, double tolerance, Index k, const LeverageOptions& options) {
  const Index d = R.columns();
  const auto pivots = scalapack::factor_pivoted_qr(R, std::min(R.rows(), d));
  const VectorXd diagonal = R.diagonal();
  Index rank = 0;
  while (rank < diagonal.size() && std::abs(diagonal[rank]) > tolerance * std::abs(diagonal[0])) ++rank;
  LeverageBasis basis{MatrixXd::Zero(d, k), rank};
  if (rank == 0) return basis;
  const MatrixXd solution = solve_signed(R, diagonal, jl_projection(rank, k, options));
  for (Index j = 0; j < rank; ++j) basis.N.row(pivots[static_cast<std::size_t>(j)]) = solution.row(j);
  return basis;
}

}  // namespace

LeverageBasis distributed_basis(const RowMatrix& A, const VectorXd& weights, const LeverageOptions& options,
                                const std::shared_ptr<const ProcessGrid>& grid) {
  const Index d = A.columns(), k = std::min<Index>(options.jl_columns, d);
  const SketchOptions sketch = sketch_options(A, options);
  if (k < 1)
    refuse(
        "exact row norms need a d x d matrix on every rank: give at least 1 JL column, or the linear "
        "solver rank0");
  DistributedMatrix M = sketched_rows(A, row_scale(A, weights, options.row_weights), sketch, grid);
  const VectorXd column_scale = scale_columns(M);
  if (column_scale.size() == 0) explain_failure(A, weights);
  const double tolerance = rank_tolerance(A, M.rows());
  LeverageBasis basis;
  if (M.rows() >= d) {
    scalapack::factor_qr(M);
    basis = plain_basis(M, tolerance, k, options);
    if (basis.rank == 0)
      M.for_each([&](Index i, Index j, double& entry) { entry = i > j ? 0 : entry; });  // Q is not wanted
  }
  if (basis.rank == 0) basis = pivoted_basis(M, tolerance, k, options);
  if (!basis.N.allFinite()) explain_failure(A, weights);
  const double rows = static_cast<double>(sketch.rows), rank = static_cast<double>(basis.rank);
  if (sketch.rows < A.rows_global()) basis.N *= std::sqrt(1 - rank / rows);  // see `leverage_basis`
  return {column_scale.asDiagonal() * basis.N.leftCols(std::min(k, basis.rank)), basis.rank};
}

}  // namespace attnreg
