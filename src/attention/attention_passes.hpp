#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "attention/loss_row.hpp"
#include "attention/visible_keys.hpp"
#include "attnreg/attention_regression.hpp"
#include "ranks/root_clock.hpp"

namespace attnreg {

/// S P and sum += S^T P with the library's kernel, which the threads of a pass may call. Local.
RowMajorMatrix product(const Eigen::Ref<const RowMajorMatrix>& S, const RowMajorMatrix& P);
void add_transposed_product(const Eigen::Ref<const RowMajorMatrix>& S, const RowMajorMatrix& P,
                            Eigen::Ref<RowMajorMatrix> sum);

/// Row j as an array.
inline Eigen::Map<Eigen::ArrayXd> row_of(RowMajorMatrix& matrix, Index j) {
  return {matrix.data() + j * matrix.cols(), matrix.cols()};
}

/// A sequence as this rank works on it. Local.
struct SequenceView {
  /// `may_centre`: the loss does not see shifts of a row of logits, so keys far from 0 may be moved.
  SequenceView(const AttentionSequence& sequence, int rank, bool may_centre = false);

  const AttentionSequence* sequence;
  std::optional<VisibleKeys> visible;  ///< without: all
  /// d2; what was taken from each key that is seen: the mean of columns far from 0, which bring nothing but rounding
  /// errors to the differences of logits.
  VectorXd centre;
  /// A2 and A3 where they differ from the sequence's: keys minus the centre, and 0 for those that none of this rank's
  /// queries sees, so that padding of any size is harmless.
  std::optional<RowMajorMatrix> seen_keys, seen_values;
  RowMajorMatrix keys_transposed;

  const RowMajorMatrix& keys() const { return seen_keys ? *seen_keys : sequence->keys; }
  const RowMajorMatrix& values() const { return seen_values ? *seen_values : *sequence->values; }

 private:
  void centre_keys(const VectorXd& counts);
};

/// Rows of one sequence that are worked on together: some tens, so that their rows of Z fit into a core's cache.
struct QueryBlock {
  const SequenceView* view;
  std::size_t index;  ///< of the sequence
  Index first, rows;  ///< of this rank's rows

  const RowMajorMatrix& keys() const { return view->keys(); }
  const RowMajorMatrix& keys_transposed() const { return view->keys_transposed; }
  const RowMajorMatrix& values() const { return view->values(); }
  bool is_weighted() const { return view->sequence->weights.has_value(); }
  bool is_masked() const { return view->visible.has_value(); }
  /// Sets what belongs to hidden keys to 0; matrix: rows x keys.
  void hide(RowMajorMatrix& matrix) const {
    if (is_masked()) view->visible->fill_hidden(matrix, first, 0, 0);
  }
  /// The keys that row j sees; none: all.
  void list_visible(Index j, std::vector<Index>& keys) const {
    if (is_masked()) view->visible->list(first + j, keys);
  }
  /// How many of the rows see each key.
  VectorXd counts() const {
    return is_masked() ? view->visible->counts(first, rows)
                       : VectorXd::Constant(keys().rows(), static_cast<double>(rows));
  }
  Eigen::Map<const RowMajorMatrix> part(const RowMajorMatrix& matrix) const {
    return {matrix.data() + first * matrix.cols(), rows, matrix.cols()};
  }
  Eigen::Map<const RowMajorMatrix> queries() const { return part(view->sequence->queries); }
  Eigen::Map<const RowMajorMatrix> target() const { return part(view->sequence->target); }
  /// |B|^2 of these rows; of visible keys where columns of B are keys.
  double target_square() const;
  /// These rows of W o W; 0 for hidden keys, as all that follows.
  RowMajorMatrix weights_squared() const;
  /// These rows of Z = A1 X A2^T.
  RowMajorMatrix logits(const RowMajorMatrix& X) const;
  /// These rows of rowwise softmax(A1 X A2^T).
  RowMajorMatrix attention(const RowMajorMatrix& X) const;
};

/// Calls use(j, row) for each row j of the block, with `row` at row j of Z.
template <class Use>
void for_each_row(const QueryBlock& block, const Loss& loss, const RowMajorMatrix& Z, Use&& use) {
  LossRow row(loss, Z.cols());
  const auto B = block.target();
  const auto keys = static_cast<std::size_t>(Z.cols());
  std::vector<Index> visible;
  for (Index j = 0; j < Z.rows(); ++j) {
    block.list_visible(j, visible);
    row.move_to({Z.data() + j * Z.cols(), keys}, {B.data() + j * Z.cols(), keys}, visible);
    use(j, row);
  }
}

/// The matrices that a pass sums, one behind the other.
class MatrixSums {
 public:
  explicit MatrixSums(const std::vector<std::pair<Index, Index>>& shapes);
  Eigen::Map<RowMajorMatrix> operator[](std::size_t k) {
    return {numbers_.data() + first_[k], shapes_[k].first, shapes_[k].second};
  }
  Eigen::VectorXd& numbers() { return numbers_; }  ///< of all of them

 private:
  std::vector<std::pair<Index, Index>> shapes_;
  std::vector<Index> first_;
  Eigen::VectorXd numbers_;
};

/// A3 Y of each sequence; blocks of a process share them.
using ValueRows = std::shared_ptr<const std::vector<RowMajorMatrix>>;

/// Passes over the sequences: sums over all rows of Z of all sequences. Members are collective unless they are called
/// Local, one pass and one all-reduce each unless said otherwise; arguments and results are replicated.
class AttentionPasses {
 public:
  /// Local. `loss`: its name. The sequences must outlive the passes.
  AttentionPasses(const Communicator& communicator, const std::vector<AttentionSequence>& sequences,
                  const AttentionShape& shape, std::string_view loss);

  // Local.
  const Communicator& communicator() const { return communicator_; }
  const AttentionShape& shape() const { return shape_; }
  bool with_values() const { return shape_.dv > 0; }
  const Loss& loss() const { return *loss_; }
  double count() const { return count_; }           ///< of passes so far
  double seconds() const { return seconds_; }       ///< of rank 0 at the last sum for all ranks, since the start
  double logits_global() const { return logits_; }  ///< sum of n1 n2
  double rows_global() const { return rows_; }      ///< sum of n1

  struct Evaluation {
    double value = 0;
    AttentionUnknowns gradient;
    double misfit = 0, target = 0;  ///< sums of |F - B|^2, |F A3 Y - B|^2 with values, and of |B|^2
  };
  Evaluation evaluate(const AttentionUnknowns& at);
  AttentionUnknowns hessian_product(const AttentionUnknowns& at, const AttentionUnknowns& direction,
                                    OnStop on_stop = OnStop::finish);
  /// L(at + displacement) - L(at) for each displacement, in difference form; +inf where it overflows.
  std::vector<double> changes(const AttentionUnknowns& at, const std::vector<AttentionUnknowns>& displacements);
  /// K^T K and K^T B, K = F A3.
  std::pair<RowMajorMatrix, RowMajorMatrix> normal_equations(const RowMajorMatrix& X);
  /// The size of the gradient's rounding errors without eps, entry by entry: |A1|^T R |A2| with R = |Q| + D o (1 +
  /// |Z| + |A1 X| |A2|^T), D the diagonal curvature; likewise for Y. An estimate, as in docs/algorithms.md,
  /// section 8.
  AttentionUnknowns gradient_rounding(const AttentionUnknowns& at);

  using Add = std::function<void(const QueryBlock& block, MatrixSums& sums)>;
  enum class Receiver { all, root };
  /// The sum over all blocks of all ranks of what `add` adds; blocks in parallel over threads, static shares added in
  /// thread order. Counts one pass. A sum for all ranks tells whether one was asked to stop; one for the root does not.
  MatrixSums sum(const std::vector<std::pair<Index, Index>>& shapes, const Add& add, Receiver receiver = Receiver::all,
                 OnStop on_stop = OnStop::finish);
  /// A3 Y of each sequence. Without a message where all ranks have blocks, or there are none.
  ValueRows value_rows(const RowMajorMatrix& Y) const;
  /// How many queries see each key, for each sequence. Collective; no pass.
  std::vector<VectorXd> seen() const;

 private:
  const Communicator& communicator_;
  AttentionShape shape_;
  std::unique_ptr<Loss> loss_;
  std::vector<SequenceView> views_;
  std::vector<QueryBlock> blocks_;
  double rows_ = 0, logits_ = 0, count_ = 0, seconds_ = 0;
  double own_rows_ = 0, products_ = 0;  // of this rank: of logits and of what is made of them
  RootClock clock_;
};

}  // namespace attnreg
