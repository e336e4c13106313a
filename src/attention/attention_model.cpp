#include "attention/attention_model.hpp"

#include <algorithm>
#include <limits>
#include <memory>
#include <utility>
#include <vector>

#include "algebra/dense_factors.hpp"
#include "algebra/shared_factor.hpp"
#include "ranks/once_in_process.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr Index kKeysAtOnce = 256;  // whose k k^T are there together

Index packed_size(Index d) { return d * (d + 1) / 2; }
Index packed(Index a, Index b) { return a >= b ? a * (a + 1) / 2 + b : b * (b + 1) / 2 + a; }

/// Row j: the lower triangle of (l_j r_j^T + r_j l_j^T) / 2, by rows.
RowMajorMatrix packed_products(const RowMajorMatrix& left, const RowMajorMatrix& right) {
  const Index d = left.cols();
  RowMajorMatrix result(left.rows(), packed_size(d));
  for (Index j = 0; j < left.rows(); ++j)
    for (Index a = 0; a < d; ++a)
      result.row(j).segment(packed(a, 0), a + 1) =
          0.5 * (left(j, a) * right.row(j).head(a + 1) + right(j, a) * left.row(j).head(a + 1));
  return result;
}

/// C_j = A2^T diag(D_j) A2 - c_j g_j^T - g_j c_j^T + s_j c_j c_j^T for the rows of a block without values.
struct LogitCurvature {
  RowMajorMatrix D;     ///< rows x n2, with the regulariser
  RowMajorMatrix c, g;  ///< rows x d2: of the keys
  VectorXd s;
};

LogitCurvature logit_curvature(const QueryBlock& block, const Loss& loss, const RowMajorMatrix& X) {
  const RowMajorMatrix Z = block.logits(X);
  LogitCurvature result{RowMajorMatrix(Z.rows(), Z.cols()), {}, {}, VectorXd(Z.rows())};
  RowMajorMatrix c(Z.rows(), Z.cols()), g(Z.rows(), Z.cols());
  for_each_row(block, loss, Z, [&](Index j, LossRow& row) {
    row.differentiate();
    const LossRow::Model model = row.model();
    row.spread(model.delta, row_of(result.D, j));
    row.spread(model.c, row_of(c, j));
    row.spread(model.m, row_of(g, j));
    result.s[j] = model.self;
  });
  if (block.is_weighted()) result.D += block.weights_squared();
  result.c = product(c, block.keys());
  result.g = product(g, block.keys());
  return result;
}

/// W_j = A2^T J_j V, d2 x dv, J_j = diag(f_j) - f_j f_j^T, for the rows of a block with values: C_j = 2 W_j W_j^T.
/// Calls use(j, W_j).
template <class Use>
void for_each_value_jacobian(const QueryBlock& block, const RowMajorMatrix& F, const RowMajorMatrix& V, Use&& use) {
  const RowMajorMatrix O = product(F, V);
  for (Index j = 0; j < F.rows(); ++j) {
    const RowMajorMatrix weighted = F.row(j).transpose().asDiagonal() * (V.rowwise() - O.row(j));
    use(j, product(block.keys_transposed(), weighted));
  }
}

/// The packed C_j of a block, rows x p2, without values.
RowMajorMatrix packed_curvature(const QueryBlock& block, const LogitCurvature& curvature) {
  const RowMajorMatrix& keys = block.keys();
  RowMajorMatrix C = packed_products(curvature.c, curvature.s.asDiagonal() * curvature.c - 2 * curvature.g);
  for (Index first = 0; first < keys.rows(); first += kKeysAtOnce) {
    const Index count = std::min(kKeysAtOnce, keys.rows() - first);
    const RowMajorMatrix part = keys.middleRows(first, count);
    C += product(curvature.D.middleCols(first, count), packed_products(part, part));
  }
  return C;
}

/// What a dense model is made of, on rank 0.
struct DenseSums {
  RowMajorMatrix XX;  ///< p1 x p2: sum of packed a_j a_j^T times packed C_j
  RowMajorMatrix XY;  ///< d1 d3 x d2 dv: sum of (a_j (x) k_j) vec(W_j)^T, k_j = A3^T f_j
  RowMajorMatrix KK;  ///< d3 x d3: sum of k_j k_j^T
};

void add_values_curvature(const QueryBlock& block, const AttentionUnknowns& at, const RowMajorMatrix& V,
                          MatrixSums& sums) {
  const RowMajorMatrix F = block.attention(at.X), K = product(F, block.values());
  const RowMajorMatrix A = block.queries();
  const Index d1 = A.cols(), d2 = block.keys().cols(), d3 = K.cols(), dv = V.cols();
  RowMajorMatrix C(F.rows(), packed_size(d2)), W(F.rows(), d2 * dv), AK(F.rows(), d1 * d3);
  for_each_value_jacobian(block, F, V, [&](Index j, const RowMajorMatrix& Wj) {
    const RowMajorMatrix Cj = 2 * Wj * Wj.transpose();
    for (Index k = 0; k < d2; ++k) C.row(j).segment(packed(k, 0), k + 1) = Cj.row(k).head(k + 1);
    W.row(j) = Wj.reshaped<Eigen::RowMajor>().transpose();
    AK.row(j) = (A.row(j).transpose() * K.row(j)).reshaped<Eigen::RowMajor>().transpose();
  });
  add_transposed_product(packed_products(A, A), C, sums[0]);
  add_transposed_product(AK, W, sums[1]);
  add_transposed_product(K, K, sums[2]);
}

DenseSums dense_sums(AttentionPasses& passes, const AttentionUnknowns& at) {
  const auto [d1, d2, d3, dv] = passes.shape();
  const ValueRows V = passes.value_rows(at.Y);
  auto sums = passes.sum(
      {{packed_size(d1), packed_size(d2)}, {d1 * d3, d2 * dv}, {d3, d3}},
      [&](const QueryBlock& block, MatrixSums& part) {
        if (passes.with_values()) return add_values_curvature(block, at, (*V)[block.index], part);
        const RowMajorMatrix A = block.queries();
        add_transposed_product(packed_products(A, A),
                               packed_curvature(block, logit_curvature(block, passes.loss(), at.X)), part[0]);
      },
      AttentionPasses::Receiver::root, OnStop::leave);
  if (!passes.communicator().is_root()) return {};
  return {sums[0], sums[1], sums[2]};
}

/// The curvature in [vec X; vec Y] with X pulled back to its parameters.
MatrixXd unpacked(const DenseSums& sums, const AttentionShape& shape, const ModelPoint& point) {
  const auto [d1, d2, d3, dv] = shape;
  const auto& parameters = point.parameters;
  const Index X = d1 * d2, Y = d3 * dv, reduced = parameters.size();
  RowMajorMatrix pulled(X + Y, reduced), row(d1, d2);  // G J, J the derivative of X; then J^T G J
  for (Index a = 0; a < d1; ++a)
    for (Index k = 0; k < d2; ++k) {
      for (Index b = 0; b < d1; ++b)
        for (Index l = 0; l < d2; ++l) row(b, l) = sums.XX(packed(a, b), packed(k, l));
      pulled.row(a * d2 + k) = parameters.pull_back(point.u, row).transpose();
    }
  for (Index c = 0; c < d3; ++c)
    for (Index v = 0; v < dv; ++v) {
      for (Index a = 0; a < d1; ++a)
        for (Index k = 0; k < d2; ++k) row(a, k) = 2 * sums.XY(a * d3 + c, k * dv + v);
      pulled.row(X + c * dv + v) = parameters.pull_back(point.u, row).transpose();
    }
  MatrixXd G = MatrixXd::Zero(reduced + Y, reduced + Y);
  for (Index q = 0; q < reduced; ++q) {
    row = pulled.col(q).head(X).reshaped<Eigen::RowMajor>(d1, d2);
    G.col(q).head(reduced) = parameters.pull_back(point.u, row);
  }
  G.bottomLeftCorner(Y, reduced) = pulled.bottomRows(Y);
  for (Index c = 0; c < d3; ++c)
    for (Index e = 0; e < d3; ++e)
      for (Index v = 0; v < dv; ++v) G(reduced + c * dv + v, reduced + e * dv + v) = 2 * sums.KK(c, e);
  return G;
}

/// Gives curvature to the directions (P S, -Q S^T), S r x r, along which P Q^T does not change: without, M would be
/// singular there, and conjugate gradients led astray by rounding. Their curvature is the mean of M's.
void hold_gauge(const ModelPoint& point, MatrixXd& M) {
  const auto P = point.parameters.P(point.u), Q = point.parameters.Q(point.u);
  const Index r = point.parameters.rank(), d1 = P.rows(), d2 = Q.rows(), X = point.parameters.size();
  const double mean = M.diagonal().head(X).mean();
  for (Index i = 0; i < r; ++i)
    for (Index j = 0; j < r; ++j) {  // S = e_i e_j^T
      VectorXd direction = VectorXd::Zero(X);
      for (Index a = 0; a < d1; ++a) direction[a * r + j] = P(a, i);
      for (Index k = 0; k < d2; ++k) direction[d1 * r + k * r + i] = -Q(k, j);
      const double square = direction.squaredNorm();
      if (square > 0) M.topLeftCorner(X, X) += mean / square * direction * direction.transpose();
    }
}

/// Eliminates Y, whose block is the last: X - XY Y^-1 YX.
MatrixXd without_Y(const MatrixXd& G, Index X) {
  const Index Y = G.rows() - X;
  const MatrixXd block = G.bottomRightCorner(Y, Y);
  const DampedFactor factor = damped_factor(block, block.diagonal());
  if (factor.ridge == 0) return MatrixXd::Constant(X, X, std::numeric_limits<double>::quiet_NaN());
  const MatrixXd half = factor.L.triangularView<Eigen::Lower>().solve(G.bottomLeftCorner(Y, X));
  return G.topLeftCorner(X, X) - half.transpose() * half;
}

/// (L1 L1^T) (x) (L2 L2^T) for one matrix of unknowns after another.
class KroneckerFactor final : public CholeskyFactor {
 public:
  void append(MatrixXd L1, MatrixXd L2) { blocks_.emplace_back(std::move(L1), std::move(L2)); }

  VectorXd solve(const VectorXd& r) const override {
    return map(r, [](const MatrixXd& L1, const MatrixXd& L2, const RowMajorMatrix& V) {
      return solved_transpose(L2, solved_transpose(L1, V, true), true);
    });
  }
  VectorXd multiply(const VectorXd& v) const override {
    return map(v, [](const MatrixXd& L1, const MatrixXd& L2, const RowMajorMatrix& V) -> RowMajorMatrix {
      return L1 * V * L2.transpose();
    });
  }
  VectorXd multiply_transpose(const VectorXd& v) const override {
    return map(v, [](const MatrixXd& L1, const MatrixXd& L2, const RowMajorMatrix& V) -> RowMajorMatrix {
      return L1.transpose() * V * L2;
    });
  }
  VectorXd solve_transpose(const VectorXd& v) const override {
    return map(v, [](const MatrixXd& L1, const MatrixXd& L2, const RowMajorMatrix& V) {
      return solved_transpose(L2, solved_transpose(L1, V, false), false);
    });
  }

 private:
  /// (L^-T V)^T, or (L^-T L^-1 V)^T.
  static RowMajorMatrix solved_transpose(const MatrixXd& L, RowMajorMatrix V, bool by_both) {
    if (by_both) L.triangularView<Eigen::Lower>().solveInPlace(V);
    L.transpose().triangularView<Eigen::Upper>().solveInPlace(V);
    return V.transpose();
  }

  template <class Map>
  VectorXd map(const VectorXd& v, Map&& map_block) const {
    VectorXd result(v.size());
    Index first = 0;
    for (const auto& [L1, L2] : blocks_) {
      const Index size = L1.rows() * L2.rows();
      const Eigen::Map<const RowMajorMatrix> V(v.data() + first, L1.rows(), L2.rows());
      result.segment(first, size) = flat(map_block(L1, L2, V));
      first += size;
    }
    return result;
  }

  std::vector<std::pair<MatrixXd, MatrixXd>> blocks_;
};

/// Rows of L^-1 M^T as columns: row j has |L^-1 m_j|.
MatrixXd whitened(const MatrixXd& L, const Eigen::Ref<const RowMajorMatrix>& rows) {
  return L.triangularView<Eigen::Lower>().solve(rows.transpose());
}

/// sum_j s_j C_j / d1 with s_j = a_j^T K1^-1 a_j, L1 the factor of K1.
MatrixXd key_factor(AttentionPasses& passes, const AttentionUnknowns& at, const MatrixXd& L1) {
  const auto [d1, d2, d3, dv] = passes.shape();
  const ValueRows V = passes.value_rows(at.Y);
  const auto add = [&](const QueryBlock& block, MatrixSums& part) {
    const VectorXd s = whitened(L1, block.queries()).colwise().squaredNorm();
    if (passes.with_values()) {
      for_each_value_jacobian(block, block.attention(at.X), (*V)[block.index], [&](Index j, const RowMajorMatrix& W) {
        add_transposed_product(W.transpose(), 2 * s[j] * W.transpose(), part[0]);
      });
      return;
    }
    const auto curvature = logit_curvature(block, passes.loss(), at.X);
    const VectorXd D = curvature.D.transpose() * s;
    add_transposed_product(block.keys(), D.asDiagonal() * block.keys(), part[0]);
    const RowMajorMatrix sc = s.asDiagonal() * curvature.c, sg = s.asDiagonal() * curvature.g;
    add_transposed_product(sc, curvature.s.asDiagonal() * curvature.c - curvature.g, part[0]);
    add_transposed_product(sg, -curvature.c, part[0]);
  };
  return passes.sum({{d2, d2}}, add, AttentionPasses::Receiver::all, OnStop::leave)[0] / static_cast<double>(d1);
}

/// sum_j <C_j, K2^-1> / d2 a_j a_j^T, L2 the factor of K2.
MatrixXd query_factor(AttentionPasses& passes, const AttentionUnknowns& at, const MatrixXd& L2) {
  const auto [d1, d2, d3, dv] = passes.shape();
  const ValueRows V = passes.value_rows(at.Y);
  const auto add = [&](const QueryBlock& block, MatrixSums& part) {
    VectorXd trace(block.rows);
    if (passes.with_values()) {
      for_each_value_jacobian(block, block.attention(at.X), (*V)[block.index], [&](Index j, const RowMajorMatrix& W) {
        trace[j] = 2 * L2.triangularView<Eigen::Lower>().solve(MatrixXd(W)).squaredNorm();
      });
    } else {
      const auto curvature = logit_curvature(block, passes.loss(), at.X);
      const VectorXd h = whitened(L2, block.keys()).colwise().squaredNorm();
      const MatrixXd c = whitened(L2, curvature.c), g = whitened(L2, curvature.g);
      trace = curvature.D * h - 2 * c.cwiseProduct(g).colwise().sum().transpose() +
              curvature.s.cwiseProduct(c.colwise().squaredNorm().transpose());
    }
    const RowMajorMatrix A = block.queries();
    add_transposed_product(A, trace.cwiseMax(0).asDiagonal() * A, part[0]);
  };
  return passes.sum({{d1, d1}}, add, AttentionPasses::Receiver::all, OnStop::leave)[0] / static_cast<double>(d2);
}

MatrixXd factor_of(const MatrixXd& K) { return damped_factor(K, K.diagonal()).L; }

}  // namespace

std::optional<Preconditioner> dense_model(AttentionPasses& passes, const ModelPoint& point) {
  const auto& communicator = passes.communicator();
  const DenseSums sums = dense_sums(passes, point.at);
  RootClock(communicator).sum(communicator);  // tells of a stop, as a sum for rank 0 does not
  if (communicator.is_stopped()) return std::nullopt;
  const auto& shape = passes.shape();
  const Index X = point.parameters.size(), D = point.with_Y ? X + shape.d3 * shape.dv : X;
  const auto shared =
      once_in_process(communicator, [&] { return std::make_shared<VectorXd>(VectorXd::Zero(D * D + 1)); });
  VectorXd& message = *shared;  // the factor, and whether there is one
  if (communicator.is_root()) {
    MatrixXd G = unpacked(sums, shape, point);
    if (point.parameters.is_low_rank()) hold_gauge(point, G);
    const VectorXd scale = G.diagonal().head(D);
    if (!point.with_Y && passes.with_values()) G = without_Y(G, X);
    const DampedFactor factor = damped_factor(std::move(G), scale);
    if (factor.ridge > 0) message.head(D * D) = factor.L.reshaped();
    message[D * D] = factor.ridge;
  }
  communicator.broadcast(span_of(message));
  if (message[D * D] == 0) return std::nullopt;
  Preconditioner own;
  if (communicator.leads_process()) own = Preconditioner(MatrixXd(message.head(D * D).reshaped(D, D)));
  return shared_preconditioner(communicator, std::move(own));
}

std::optional<Preconditioner> kronecker_model(AttentionPasses& passes, const ModelPoint& point) {
  const auto [d1, d2, d3, dv] = passes.shape();
  const Communicator& communicator = passes.communicator();
  const auto shared_factor_of = [&](const MatrixXd& K) {
    return once_in_process(communicator, [&] { return std::make_shared<const MatrixXd>(factor_of(K)); });
  };
  MatrixXd K1 = passes.sum({{d1, d1}}, [](const QueryBlock& block, MatrixSums& part) {
    const RowMajorMatrix A = block.queries();
    add_transposed_product(A, A, part[0]);
  })[0];
  auto L1 = shared_factor_of(K1), L2 = L1;
  MatrixXd K2;
  for (int turn = 0; turn < 2; ++turn) {
    if (L1->size() == 0 || communicator.is_stopped()) return std::nullopt;
    K2 = key_factor(passes, point.at, *L1);
    if (communicator.is_stopped()) return std::nullopt;
    L2 = shared_factor_of(K2);
    if (L2->size() == 0) return std::nullopt;
    if (turn == 1) break;
    K1 = query_factor(passes, point.at, *L2);
    L1 = shared_factor_of(K1);
  }
  auto factor = std::make_shared<KroneckerFactor>();
  if (point.parameters.is_low_rank()) {
    const auto P = point.parameters.P(point.u), Q = point.parameters.Q(point.u);
    const auto QKQ = shared_factor_of(Q.transpose() * K2 * Q), PKP = shared_factor_of(P.transpose() * K1 * P);
    if (QKQ->size() == 0 || PKP->size() == 0) return std::nullopt;
    factor->append(*L1, *QKQ);
    factor->append(*L2, *PKP);
  } else {
    factor->append(*L1, *L2);
  }
  if (point.with_Y) {
    const auto LK = shared_factor_of(2 * passes.normal_equations(point.at.X).first);
    if (LK->size() == 0) return std::nullopt;
    factor->append(*LK, MatrixXd::Identity(dv, dv));
  }
  return shared_preconditioner(communicator, Preconditioner(factor));
}

double dense_model_flops(const AttentionPasses& passes) {
  const auto& shape = passes.shape();
  const auto p1 = static_cast<double>(packed_size(shape.d1)), p2 = static_cast<double>(packed_size(shape.d2));
  const auto D = static_cast<double>(shape.unknowns()), dv = static_cast<double>(shape.dv);
  const double row = passes.with_values() ? 2 * static_cast<double>(shape.d2) * dv : 2 * p2;
  const double XY = 2 * static_cast<double>(shape.d1 * shape.d3 * shape.d2) * dv;
  const double rows = passes.logits_global() * row + passes.rows_global() * (2 * p1 * p2 + XY);
  return rows / passes.communicator().size() + D * D * D / 3;
}

double product_flops(const AttentionPasses& passes) {
  const auto& shape = passes.shape();
  const auto d2 = static_cast<double>(shape.d2), dv = static_cast<double>(shape.dv), d3 = static_cast<double>(shape.d3);
  constexpr double kExponential = 30;  // and what else is done with a logit, in flops at the speed of a product
  return passes.logits_global() * (6 * d2 + 10 * dv + 4 * d3 + kExponential) / passes.communicator().size();
}

}  // namespace attnreg
