#pragma once

#include <Eigen/Core>
#include <cstdint>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "attnreg/solver.hpp"
#include "losses/loss.hpp"
#include "newton/objective.hpp"
#include "rows/row_passes.hpp"
#include "rows/scaled_columns.hpp"

namespace attnreg {

/// Of z = A x - shift from a compensated product; of A s from a plain one; of z + t A s at x = (before) + t s. Local.
ProductRounding fresh_rounding(const Eigen::VectorXd& x, double shift);
ProductRounding product_rounding(const Eigen::VectorXd& s);
ProductRounding moved_rounding(const ProductRounding& z, const ProductRounding& As, double t, const Eigen::VectorXd& s,
                               const Eigen::VectorXd& x, double shift);

/// What a read is to have found about a point, so that another rank can make it again. Replicated, but for z.
struct AuditClaim {
  Eigen::VectorXd x;
  LossPoint point;                         ///< of the loss, or what is expected of it
  double shift = 0;                        ///< z = A x - shift
  double level = 0;                        ///< what the regulariser adds to z; where values are summed
  ProductRounding rounding;                ///< of z
  bool is_expected = false;                ///< sums of `Loss::fill_columns` and of a value, at an expected reference
  const Eigen::VectorXd* z = nullptr;      ///< this rank's rows, once the read is made
  const Eigen::VectorXd* added = nullptr;  ///< and what has still to be added to them, or none
};

/// A block of rows on its way to the rank that makes it again: a tile of a read, with the rows of A, or a block of the
/// sums of a value, without.
struct AuditedRows {
  std::int64_t first = 0;  ///< global
  Index rows = 0;
  Eigen::VectorXd z, b, w2, offsets;  ///< rows; no offsets: empty
  Eigen::VectorXd scalars;            ///< sums over the rows
  // Of a tile:
  std::uint64_t hash = 0;        ///< of the rows of A, b, w^2 and the offsets, as they were before
  std::span<const char> packed;  ///< in the message
  RowMajorMatrix U;
  Eigen::VectorXd before;
  Eigen::MatrixXd sums;
};

/// What differs in a block.
enum class Corruption { none, rows, logits, outputs, values, gradient, replicated };

/// Local. A tile of a read; the sums of a value at the reference and the level. `like`: a matrix of the same kind.
/// Bounds: docs/experiments.md, "Audit".
Corruption examined(const AuditedRows& tile, const AuditClaim& claim, const Loss& loss, const ScaledColumns& like);
Corruption examined_value(const AuditedRows& block, double reference, double level, const Loss& loss,
                          const LogitOffsets& offsets);

/// Looks for silent corruption of data in the evaluations of an objective: in each of them every block of rows is drawn
/// with a probability and made again by the next rank, from the rows that it is sent, in another order of summation.
/// What differs by more than rounding is made a third time, by another rank where there are three, and two that agree
/// are believed. What is compared is what went into the sums: the logits z, the outputs of the rows, their sums for L
/// and g, and x itself; the rows of A, b, w and the offsets are compared with their hash from before the first
/// evaluation.
///
/// Blocks are tiles of A, and for sums of values alone 1024 rows of a rank. The same tiles are drawn on any number of
/// ranks.
class Audit {
 public:
  /// Local. One read of A, which is counted, unless a pass has made `RowPasses::tile_hashes`. All must outlive it.
  /// rate: 0 to 1.
  Audit(const ScaledColumns& columns, const Eigen::VectorXd& b, const RidgeWeights& w2, const Loss& loss, double rate,
        std::uint64_t seed);

  /// Local. Of a sum of values over this rank's rows: its number, and a block's part as it goes into the sum, from any
  /// thread.
  std::size_t begin_value(double reference, double level);
  void keep_value(std::size_t number, Index first_local, std::span<const double> z, std::span<const double> sums);

  /// Local. The tiles that the requests of the next pass are to keep.
  void draw(std::span<RowPasses::MapRequest> requests);
  /// Collective, one shift. Sends what was kept, a claim for each request, and examines what comes.
  void exchange(std::span<const AuditClaim> claims);
  /// Collective, one all-reduce of 16 bytes where no block differs: not with that of the pass, whose order of summation
  /// may depend on its length. Whether the sums of the pass are right; else a rank was wrong, and what the pass was for
  /// has to be made again. `Error`, code `internal`, on all ranks: nobody knows what is right, or rows have changed, or
  /// it happens again and again.
  bool settle();

  const AuditReport& report() const { return report_; }                   ///< Local.
  const std::vector<std::string>& warnings() const { return warnings_; }  ///< Local. What was wrong.

 private:
  /// A block that is not as it should be, to the rank that has made it again.
  struct Finding {
    int owner = 0;
    std::int64_t first = 0;
    Index rows = 0;
    Corruption what = Corruption::none;
  };
  struct Value {
    double reference = 0, level = 0;
  };
  struct KeptValue {
    std::size_t number = 0;
    AuditedRows rows;
  };

  bool is_drawn(std::int64_t index, std::int64_t first, std::uint32_t draw) const;
  AuditedRows rows_at(Index first_local, Index count) const;
  std::vector<Finding> findings(std::span<const char> message, int owner, double* rows) const;
  void judge(const std::vector<Finding>& first, const std::vector<Finding>& second, int by);
  void warn(const std::string& text);

  const ScaledColumns& columns_;
  const RowMatrix& A_;
  const Eigen::VectorXd& b_;
  const RidgeWeights& w2_;
  const Loss& loss_;
  double rate_;
  std::uint64_t seed_;
  std::vector<RowPasses::TileRows> tiles_;
  std::vector<std::uint64_t> hashes_;  // of the tiles

  std::uint32_t pass_ = 0;
  std::set<std::int64_t> suspected_;  // first rows of blocks that were wrong: they are drawn
  std::vector<RowPasses::TileRows> drawn_;
  std::vector<std::uint64_t> drawn_hashes_;
  std::vector<std::vector<RowPasses::KeptTile>> kept_;  // for each request
  std::mutex values_in_turn_;
  std::vector<Value> values_;
  std::vector<KeptValue> kept_values_;
  // Of the last exchange:
  std::vector<AuditClaim> claims_;
  std::vector<char> sent_;
  std::vector<Finding> found_;
  double rows_ = 0;

  int wrong_in_a_row_ = 0;
  AuditReport report_;
  std::vector<std::string> warnings_;
};

}  // namespace attnreg
