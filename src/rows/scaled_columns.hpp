#pragma once

#include <Eigen/Core>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/row_matrix.hpp"
#include "rows/logit_offsets.hpp"
#include "rows/row_passes.hpp"

namespace attnreg {

/// The columns of A, over all rows, in units of a power of two each; d numbers, replicated.
struct ColumnStatistics {
  std::vector<int> exponent;  ///< the unit of column j is 2^exponent_j
  Eigen::VectorXd mean;
  Eigen::VectorXd spread;  ///< sqrt(sum_i (a_ij - mean_j)^2)
  std::vector<bool> full;  ///< every row stores an entry; true of dense rows
};

/// Collective. One read, which belongs to the loading of A and is not counted; another one where squares under- or
/// overflow. Two all-reduces, one more with masked rows, which are left out.
ColumnStatistics column_statistics(const RowMatrix& A, const LogitOffsets& offsets = {});

/// A as a solver sees it. Columns far from 0, of which a loss that does not see the sum of the logits' shifts has
/// nothing but rounding errors, are centred, and columns of very different sizes are scaled by powers of two:
///
///     ahat_ij = (a_ij - centre_j) factor_j,    x_j = factor_j xhat_j,    A x = Ahat xhat + (offset . xhat) 1.
///
/// Most matrices need neither: then ahat is A itself, and no entry is touched. The sizes `scale` make norms of
/// gradients that do not depend on the units of the columns: |g|_s = |g / scale|.
class ScaledColumns {
 public:
  /// Local. As they are, all of scale 1.
  explicit ScaledColumns(RowMatrix A);
  /// Local. Columns of a caller who has centred and scaled them: of scale 1 and mean 0.
  ScaledColumns(RowMatrix A, Eigen::VectorXd offset) : ScaledColumns(std::move(A)) { offset_ = std::move(offset); }
  /// Collective. `may_centre`: the caller takes care of the offset. logit_offsets: masked rows have no part in it.
  ScaledColumns(const RowMatrix& A, bool may_centre, LogitOffsets logit_offsets = {});

  /// Local. The same columns of A() as another task sees its rows.
  ScaledColumns(const ScaledColumns& columns, RowMatrix A) : ScaledColumns(columns) { A_ = std::move(A); }

  /// Local. The same columns of some rows of A(), with what is added to their logits.
  ScaledColumns of_rows(RowMatrix rows, LogitOffsets logit_offsets) const {
    ScaledColumns columns(*this, std::move(rows));
    columns.logit_offsets_ = std::move(logit_offsets);
    columns.row_norms_ = std::make_shared<Eigen::VectorXd>();
    return columns;
  }

  /// Local. Adds a ridge to what is asked of x: 1/2 strength |x|^2, or, `scaled`, 1/2 strength sum_j (scale_j
  /// xhat_j)^2, which does not depend on the units of the columns.
  void add_ridge(double strength, bool scaled) { add_ridge(strength * (scaled ? scale_ : factor_).cwiseAbs2()); }
  void add_ridge(Eigen::VectorXd of_columns) { ridge_ = std::move(of_columns); }  ///< 1/2 sum_j of_columns_j xhat_j^2

  /// Local. What is added to A x, and is no business of the regulariser and the ridge.
  void add_to_logits(LogitOffsets logit_offsets) { logit_offsets_ = std::move(logit_offsets); }
  const LogitOffsets& logit_offsets() const { return logit_offsets_; }

  const RowMatrix& A() const { return A_; }                  ///< ahat
  const Eigen::VectorXd& factor() const { return factor_; }  ///< d; powers of two
  const Eigen::VectorXd& offset() const { return offset_; }  ///< d; centre_j factor_j
  const Eigen::VectorXd& scale() const { return scale_; }    ///< d, > 0; norms of the columns of ahat, or spreads
  const Eigen::VectorXd& mean() const { return mean_; }      ///< d; of the columns of ahat; 0: never looked at
  /// d; r_j of 1/2 sum_j r_j xhat_j^2. Empty: no ridge.
  const Eigen::VectorXd& ridge() const { return ridge_; }
  bool is_centred() const { return !offset_.isZero(0); }
  bool is_scaled() const { return (factor_.array() != 1).any(); }
  /// Local. |ahat_i / scale|, this rank's rows; made by the first call with a read that is not counted, unless a pass
  /// was asked to fill `missing_row_norms`.
  const Eigen::VectorXd& row_norms() const;
  RowPasses::RowNorms missing_row_norms() const;                          ///< Local. Empty if they are there.
  const std::vector<std::string>& notes() const { return notes_; }        ///< on what was done
  const std::vector<std::string>& warnings() const { return warnings_; }  ///< on columns that lose digits

 private:
  RowMatrix A_;
  LogitOffsets logit_offsets_;
  Eigen::VectorXd factor_, offset_, mean_, scale_, inverse_scale_, ridge_;
  std::shared_ptr<Eigen::VectorXd> row_norms_ = std::make_shared<Eigen::VectorXd>();  // shared by copies
  std::vector<std::string> notes_, warnings_;
};

}  // namespace attnreg
