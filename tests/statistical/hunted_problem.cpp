#include "statistical/hunted_problem.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <limits>
#include <random>
#include <sstream>

#include "attnreg/files.hpp"
#include "ranks/span_of.hpp"
#include "surrogate/surrogate.hpp"

namespace attnreg::hunt {

using Eigen::VectorXd;

namespace {

constexpr double kLargestLogit = 300;  // of losses that grow: exp(2 z) stays a number
constexpr Index kMostRows = 60;        // but of problems for surrogates

/// The random numbers of one problem, in the order in which they are asked for.
class Draw {
 public:
  explicit Draw(std::int64_t number) : engine_(static_cast<std::uint64_t>(number)) {}

  double uniform(double from, double to) { return std::uniform_real_distribution<double>(from, to)(engine_); }
  double power(double from, double to) { return std::pow(10, uniform(from, to)); }
  bool chance(double probability) { return uniform(0, 1) < probability; }
  Index integer(Index from, Index to) { return std::uniform_int_distribution<Index>(from, to)(engine_); }
  double sign() { return chance(0.5) ? 1 : -1; }
  RowMajorMatrix normals(Index rows, Index columns) {
    return RowMajorMatrix::NullaryExpr(rows, columns, [&] { return normal_(engine_); });
  }

 private:
  std::mt19937_64 engine_;
  std::normal_distribution<double> normal_;
};

/// A problem in the making. Its columns are those of a `base` with entries of size 1, in units of `unit`, plus
/// `offset`; the target and x0 are made from the base.
struct Making {
  Draw& draw;
  std::string_view kind;
  std::string loss;
  RowMajorMatrix base{};
  VectorXd unit{}, offset{}, x{}, b{}, w{};
  double spread = 1, noise = 0;

  bool normalised() const { return loss == "softmax" || loss == "cross-entropy"; }
  Index rows() const { return base.rows(); }
  Index columns() const { return base.cols(); }
};

bool one_of(std::string_view kind, std::initializer_list<std::string_view> kinds) {
  return std::ranges::find(kinds, kind) != kinds.end();
}

/// Nearly dependent columns, or hardly more rows than columns.
void make_degenerate(Making& made) {
  Draw& draw = made.draw;
  if (made.columns() > 1 && draw.chance(0.6)) {
    const double gap = draw.chance(0.3) ? 0 : draw.power(-14, -3);
    made.base.col(made.columns() - 1) = made.base.col(0) + gap * draw.normals(made.rows(), 1);
  } else {
    made.base = draw.normals(draw.integer(1, made.columns() + 1), made.columns());
  }
  if (made.rows() > 1 && draw.chance(0.3)) made.base.row(made.rows() - 1) = made.base.row(0);
}

/// Rows in pairs a and -a, in all columns or all but the last; now and then about a point that is not 0.
void make_mirrored(Making& made) {
  const Index half = made.rows() > kMostRows ? made.rows() / 2 : made.draw.integer(1, 8);
  const Index kept = made.columns() > 1 && made.draw.chance(0.3) ? 1 : 0;
  const RowMajorMatrix upper = made.draw.normals(half, made.columns());
  made.base = RowMajorMatrix(2 * half, made.columns());
  made.base << upper, -upper;
  made.base.bottomRightCorner(half, kept) = upper.rightCols(kept);
  if (made.draw.chance(0.3)) made.base.rowwise() += made.draw.normals(1, made.columns()).row(0);
}

void shape_rows(Making& made) {
  Draw& draw = made.draw;
  if (made.kind == "degenerate") make_degenerate(made);
  if (made.kind == "mirrored") make_mirrored(made);
  made.unit = VectorXd::Ones(made.columns());
  made.offset = VectorXd::Zero(made.columns());
  for (Index j = 0; j < made.columns(); ++j) {
    if (made.kind == "scaled") made.unit[j] = draw.power(-8, 8);
    if (made.kind == "uncentred") made.offset[j] = draw.sign() * draw.power(0, 7);
  }
  if (made.kind == "extreme") made.unit.setConstant(draw.chance(0.7) ? draw.power(-165, -10) : draw.power(5, 140));
  if (made.kind == "constant") {
    const Index j = draw.integer(0, made.columns() - 1);
    made.base.col(j).setZero();
    made.offset[j] = draw.chance(0.2) ? 0 : draw.sign() * draw.power(-3, 8);
  }
}

/// What the loss compares with b, at the logits z.
VectorXd fitted_target(const std::string& loss, const VectorXd& z) {
  const bool normalised = loss == "softmax" || loss == "cross-entropy" || loss == "rescaled-exp";
  const auto exponents = normalised ? VectorXd(z.array() - z.maxCoeff()) : z;
  VectorXd u = exponents.array().exp();
  if (loss.ends_with("cosh")) u = z.array().cosh();
  if (loss.ends_with("sinh")) u = z.array().sinh();
  if ((normalised || loss.starts_with("rescaled-")) && u.sum() != 0) u /= u.sum();
  return u;
}

VectorXd sparse_target(Making& made) {
  VectorXd b = VectorXd::Zero(made.rows());
  const double first = made.kind == "one-hot" ? 1 : made.draw.chance(0.5) ? 0.5 : made.draw.uniform(0, 1);
  b[made.draw.integer(0, made.rows() - 1)] += first;
  b[made.draw.integer(0, made.rows() - 1)] += 1 - first;
  return b;
}

void shape_target(Making& made) {
  Draw& draw = made.draw;
  made.spread = draw.power(-1, made.normalised() ? 0.7 : 0.3);
  constexpr std::array<double, 4> noises{0, 0.1, 1, 3};
  made.noise = noises.at(static_cast<std::size_t>(draw.integer(0, 3)));
  if (made.kind == "huge-logits") made.spread = made.normalised() ? draw.power(1, 3) : draw.power(0.5, 1.5);
  if (made.kind == "exact") made.noise = 0;
  made.x = made.spread * draw.normals(made.columns(), 1);
  const VectorXd z = made.base * made.x;
  if (!made.normalised() && z.cwiseAbs().maxCoeff() > kLargestLogit) made.x *= kLargestLogit / z.cwiseAbs().maxCoeff();
  made.b = fitted_target(made.loss, made.base * made.x);
  made.b.array() *= (made.noise * draw.normals(made.rows(), 1)).array().exp();
  const bool whole = made.normalised() || made.loss.starts_with("rescaled-");
  if (one_of(made.kind, {"two-row", "one-hot"})) made.b = sparse_target(made);
  if (made.kind == "mirrored") made.b.tail(made.rows() / 2) = made.b.head(made.rows() / 2);
  if (whole && made.b.sum() != 0) made.b /= made.b.sum();
  if (made.kind == "target") {
    made.b *= draw.power(-3, 6);
    const Index i = draw.integer(0, made.rows() - 1);
    if (draw.chance(0.5)) made.b[i] *= -1;
    if (made.loss == "cross-entropy" && !(made.b.sum() > 0)) made.b[i] *= -1;
  }
}

void shape_weights(Making& made) {
  Draw& draw = made.draw;
  double w = draw.chance(0.25) ? 0 : draw.power(-6, 0);
  if (made.kind == "tiny-weight") w = draw.chance(0.5) ? 0 : draw.power(-14, -6);
  if (one_of(made.kind, {"one-hot", "two-row", "mirrored", "degenerate"}))
    w = draw.chance(0.4) ? 0 : draw.power(-9, -1);
  if (made.kind == "exact") w = 0;
  // w belongs to A x, which does not know the units of the columns.
  made.w = VectorXd::Constant(made.rows(), w);
  if (made.kind == "weights")
    for (double& value : made.w) value = draw.chance(0.2) ? 0 : draw.power(-8, 3);
}

VectorXd start_in_units(const Making& made, const VectorXd& x) { return x.cwiseQuotient(made.unit); }

RegressionOptions drawn_options(Making& made, std::int64_t number) {
  Draw& draw = made.draw;
  RegressionOptions options;
  options.loss = made.loss;
  options.method = method_of(number);
  options.certificate = CertificateLevel::full;
  const Index start = draw.integer(0, 9);
  if (start == 0 || start == 1) options.start = Start::zero;
  if (start == 2 && (made.normalised() || made.loss == "rescaled-exp")) options.start = Start::cross_entropy;
  if (start == 3) options.random_starts = 3;
  if (start == 4 || start == 5 || (made.kind == "exact" && draw.chance(0.5))) {
    options.start = Start::given;
    options.random_starts = 0;
    const bool at_x = made.kind == "exact" && draw.chance(0.7);
    options.x0 = at_x ? made.x : VectorXd(draw.power(-2, 0.7) * draw.normals(made.columns(), 1));
    options.x0 = start_in_units(made, options.x0);
    if (draw.chance(0.2)) options.newton.max_iterations = 0;
  }
  if (draw.chance(0.1)) options.epsilon = draw.power(-8, -2);
  return options;
}

std::string_view loss_of(std::int64_t number) {
  const auto turn = static_cast<std::size_t>(number) / problem_kinds().size();
  return loss_names()[turn % loss_names().size()];
}

/// A few, now and then many; for surrogates, which are for tall A, as many as they need.
Index drawn_rows(Draw& draw, Method method, Index columns) {
  constexpr Index kTall = 200;  // rows of a column
  if (draw.chance(0.05)) return 1;
  if (method == Method::surrogate) return draw.integer(kTall, 2 * kTall) * columns;
  return draw.chance(0.02) ? draw.integer(kMostRows, 2 * kTall) : draw.integer(2, kMostRows);
}

std::string number_text(double value) {
  std::ostringstream out;
  out.precision(3);
  out << value;
  return out.str();
}

}  // namespace

const std::vector<std::string_view>& problem_kinds() {
  static const std::vector<std::string_view> kinds{"ordinary", "tiny-weight", "degenerate", "huge-logits", "two-row",
                                                   "one-hot",  "uncentred",   "mirrored",   "scaled",      "constant",
                                                   "extreme",  "weights",     "exact",      "target"};
  return kinds;
}

std::string_view kind_of(std::int64_t number) {
  return problem_kinds()[static_cast<std::size_t>(number) % problem_kinds().size()];
}

Method method_of(std::int64_t number) {
  constexpr std::array methods{Method::automatic, Method::newton, Method::newton_cg, Method::surrogate};
  const std::size_t losses = loss_names().size(), kinds = problem_kinds().size();
  const Method method = methods.at(static_cast<std::size_t>(number) / (kinds * losses) % methods.size());
  return method == Method::surrogate && !has_surrogate(loss_of(number)) ? Method::automatic : method;
}

HuntedProblem hunted_problem(std::int64_t number, bool with_offset) {
  Draw draw(number);
  Making made{.draw = draw, .kind = kind_of(number), .loss = std::string(loss_of(number))};
  const Index columns = draw.integer(1, 4), rows = drawn_rows(draw, method_of(number), columns);
  made.base = draw.normals(rows, columns);
  shape_rows(made);
  const bool is_sparse = draw.chance(0.2);
  if (is_sparse && made.kind != "mirrored")  // its pairs would not stay pairs
    made.base = made.base.unaryExpr([&](double value) { return draw.chance(0.3) ? 0 : value; }).eval();
  shape_target(made);
  shape_weights(made);
  HuntedProblem hunted;
  hunted.number = number;
  hunted.kind = made.kind;
  hunted.options = drawn_options(made, number);
  hunted.is_sparse = is_sparse;
  hunted.problem.A = (made.base * made.unit.asDiagonal()).rowwise() + made.offset.transpose();
  hunted.problem.b = made.b;
  hunted.problem.w = made.w;
  hunted.problem.loss = made.loss;
  if (!with_offset) return hunted;
  const bool knows_masks = made.loss == "softmax" || made.loss == "cross-entropy";
  hunted.problem.offset = draw.power(-2, knows_masks ? 1 : 0.3) * draw.normals(made.rows(), 1);
  if (knows_masks && draw.chance(0.3)) hunted.problem.offset.array() += draw.sign() * draw.power(0, 3);
  if (knows_masks && draw.chance(0.5)) hunted.masked_rows = draw.integer(1, 3);
  return hunted;
}

Problem with_masked_rows(const HuntedProblem& hunted) {
  Problem problem = hunted.problem;
  const Index masked = hunted.masked_rows, rows = problem.A.rows();
  if (masked == 0) return problem;
  const double size = 1e3 * problem.A.cwiseAbs().maxCoeff();
  problem.A.conservativeResize(masked + rows, Eigen::NoChange);
  problem.A.bottomRows(rows) = hunted.problem.A;
  problem.A.topRows(masked).setConstant(size);
  const auto with = [&](VectorXd& values, double value) {
    const VectorXd before = values;
    values.resize(masked + rows);
    values << VectorXd::Constant(masked, value), before;
  };
  with(problem.b, problem.loss == "softmax" ? 0.3 : 0);
  with(problem.w, 1);
  with(problem.offset, -std::numeric_limits<double>::infinity());
  return problem;
}

std::string description(const HuntedProblem& hunted) {
  const auto& [A, b, w, loss, offset] = hunted.problem;
  std::string text = std::string(hunted.kind) + ", " + loss + " " + std::to_string(A.rows()) + " x " +
                     std::to_string(A.cols()) + (hunted.is_sparse ? " sparse, " : ", ") +
                     std::string(method_name(hunted.options.method)) + " from " +
                     std::string(start_name(hunted.options.start)) + ", w " + number_text(w.minCoeff());
  if (w.maxCoeff() > w.minCoeff()) text += " to " + number_text(w.maxCoeff());
  if (hunted.options.random_starts > 0) text += ", starts " + std::to_string(hunted.options.random_starts);
  if (offset.size() > 0) text += ", offset up to " + number_text(offset.cwiseAbs().maxCoeff());
  if (hunted.masked_rows > 0) text += ", masked rows " + std::to_string(hunted.masked_rows);
  if (hunted.options.epsilon > 0) text += ", epsilon " + number_text(hunted.options.epsilon);
  if (hunted.options.newton.max_iterations == 0) text += ", no iterations";
  return text;
}

std::string write_files(const HuntedProblem& hunted, const std::string& directory) {
  const auto [A, b, w, loss, offset] = with_masked_rows(hunted);
  const std::string folder = directory + "/" + std::to_string(hunted.number) + "/";
  std::filesystem::create_directories(folder);
  write_npy(folder + "A.npy", span_of(A), {A.rows(), A.cols()});
  write_npy(folder + "b.npy", span_of(b), {b.size()});
  write_npy(folder + "w.npy", span_of(w), {w.size()});
  if (offset.size() > 0) write_npy(folder + "o.npy", span_of(offset), {offset.size()});
  const RegressionOptions& options = hunted.options;
  std::ostringstream command;
  command << "attnreg solve A.npy b.npy --weights w.npy --certificate full --loss " << loss << " --method "
          << method_name(options.method);
  if (options.start == Start::given) {
    write_npy(folder + "x0.npy", span_of(options.x0), {options.x0.size()});
    command << " --start ./x0.npy";
  } else {
    command << " --start " << start_name(options.start);
  }
  if (offset.size() > 0) command << " --offset o.npy";
  if (options.random_starts > 0) command << " --starts " << options.random_starts;
  if (options.newton.max_iterations == 0) command << " --max-iterations 0";
  if (options.epsilon > 0) command << " --epsilon " << options.epsilon;
  return command.str();
}

}  // namespace attnreg::hunt
