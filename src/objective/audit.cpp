#include "objective/audit.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <tuple>
#include <type_traits>
#include <utility>

#include "attnreg/error.hpp"
#include "numbers/random.hpp"
#include "ranks/hash.hpp"
#include "ranks/span_of.hpp"

namespace attnreg {

namespace {

constexpr int kMostWrong = 3;  // evaluations in a row
constexpr std::size_t kMostWarnings = 20;

class MessageWriter {
 public:
  /// In the memory of a message that has been sent.
  explicit MessageWriter(std::vector<char> used) : bytes_(std::move(used)) { bytes_.clear(); }

  template <class T>
  void put(const T& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    put_bytes(&value, sizeof value);
  }
  template <class Dense>
  void put_dense(const Dense& numbers) {
    put(static_cast<std::int64_t>(numbers.cols()));
    put(static_cast<std::int64_t>(numbers.size()));
    put_bytes(numbers.data(), static_cast<std::size_t>(numbers.size()) * sizeof(double));
  }
  void put_packed(const RowPasses& passes, Index first_local, Index rows) {
    const std::size_t before = bytes_.size();
    put(std::int64_t{0});
    passes.pack_rows(first_local, rows, bytes_);
    const auto length = static_cast<std::int64_t>(bytes_.size() - before - sizeof(std::int64_t));
    std::memcpy(bytes_.data() + before, &length, sizeof length);
  }
  std::vector<char> take() { return std::move(bytes_); }

 private:
  void put_bytes(const void* data, std::size_t length) {
    const auto* const first = static_cast<const char*>(data);
    bytes_.insert(bytes_.end(), first, first + length);
  }

  std::vector<char> bytes_;
};

class MessageReader {
 public:
  explicit MessageReader(std::span<const char> bytes) : bytes_(bytes) {}

  template <class T>
  T get() {
    T value{};
    get_bytes(&value, sizeof value);
    return value;
  }
  std::span<const char> get_packed() {
    const auto packed = bytes_.first(checked(get<std::int64_t>(), 1));
    bytes_ = bytes_.subspan(packed.size());
    return packed;
  }
  template <class Dense>
  Dense get_dense() {
    const auto columns = get<std::int64_t>();
    const auto size = checked(get<std::int64_t>(), sizeof(double));
    Dense numbers(columns > 0 ? static_cast<Index>(size) / columns : 0, columns);
    if (static_cast<std::size_t>(numbers.size()) != size) throw InternalError("a message of the audit is broken");
    get_bytes(numbers.data(), size * sizeof(double));
    return numbers;
  }

 private:
  std::size_t checked(std::int64_t count, std::size_t each) const {
    if (count < 0 || static_cast<std::size_t>(count) > bytes_.size() / each)
      throw InternalError("a message of the audit is shorter than it says");
    return static_cast<std::size_t>(count);
  }
  void get_bytes(void* data, std::size_t length) {
    if (length > bytes_.size()) throw InternalError("a message of the audit is too short");
    if (length > 0) std::memcpy(data, bytes_.data(), length);
    bytes_ = bytes_.subspan(length);
  }

  std::span<const char> bytes_;
};

void put_rows(MessageWriter& message, const AuditedRows& rows) {
  message.put(rows.first);
  message.put(rows.rows);
  for (const VectorXd* const numbers : {&rows.z, &rows.b, &rows.w2, &rows.offsets, &rows.scalars})
    message.put_dense(*numbers);
}

AuditedRows get_rows(MessageReader& message) {
  AuditedRows rows;
  rows.first = message.get<std::int64_t>();
  rows.rows = message.get<Index>();
  for (VectorXd* const numbers : {&rows.z, &rows.b, &rows.w2, &rows.offsets, &rows.scalars})
    *numbers = message.get_dense<MatrixXd>();
  return rows;
}

/// All but the rows of A.
void put_tile(MessageWriter& message, const AuditedRows& tile) {
  put_rows(message, tile);
  message.put(tile.hash);
  message.put_dense(tile.U);
  message.put_dense(tile.before);
  message.put_dense(tile.sums);
}

AuditedRows get_tile(MessageReader& message) {
  AuditedRows tile = get_rows(message);
  tile.hash = message.get<std::uint64_t>();
  tile.U = message.get_dense<RowMajorMatrix>();
  tile.before = message.get_dense<MatrixXd>();
  tile.sums = message.get_dense<MatrixXd>();
  tile.packed = message.get_packed();
  return tile;
}

std::string_view text_of_corruption(Corruption what) {
  switch (what) {
    case Corruption::rows: return "A, b, w or the offsets";
    case Corruption::logits: return "A x";
    case Corruption::outputs: return "the derivatives of phi";
    case Corruption::values: return "the sums of L";
    case Corruption::gradient: return "the sums of the gradient";
    case Corruption::replicated: return "x";
    case Corruption::none: break;
  }
  return "nothing";
}

std::string rows_text(std::int64_t first, Index rows) {
  return "rows " + std::to_string(first) + " to " + std::to_string(first + rows - 1);
}

[[noreturn]] void give_up(const std::string& text) {
  throw Error(ExitCode::internal, "audit: " + text, Error::Scope::all_ranks);
}

}  // namespace

Audit::Audit(const ScaledColumns& columns, const VectorXd& b, const RidgeWeights& w2, const Loss& loss, double rate,
             std::uint64_t seed)
    : columns_(columns),
      A_(columns.A()),
      b_(b),
      w2_(w2),
      loss_(loss),
      rate_(rate),
      seed_(seed),
      tiles_(A_.passes().tiles()),
      hashes_(A_.passes().tile_hashes()) {
  report_.rate = rate;
  for (std::size_t k = 0; k < tiles_.size(); ++k) {
    const AuditedRows rows = rows_at(tiles_[k].first_local, tiles_[k].rows);
    for (const auto* const numbers : {&rows.b, &rows.w2, &rows.offsets})
      hashes_[k] = hash_of(span_of(*numbers), hashes_[k]);
  }
}

bool Audit::is_drawn(std::int64_t index, std::int64_t first, std::uint32_t draw) const {
  return suspected_.contains(first) || RandomStream(seed_, Purpose::audit, pass_).uniform(index, draw) < rate_;
}

/// What a block has besides A and z.
AuditedRows Audit::rows_at(Index first_local, Index count) const {
  AuditedRows rows;
  rows.first = A_.first_row() + first_local;
  rows.rows = count;
  rows.b = b_.segment(first_local, count);
  rows.w2 = w2_.rows(first_local, count);
  const LogitOffsets& offsets = columns_.logit_offsets();
  rows.offsets.resize(offsets.are_there() ? count : 0);
  for (Index i = 0; i < rows.offsets.size(); ++i) rows.offsets[i] = offsets[first_local + i];
  return rows;
}

std::size_t Audit::begin_value(double reference, double level) {
  values_.push_back({reference, level});
  return values_.size() - 1;
}

void Audit::keep_value(std::size_t number, Index first_local, std::span<const double> z, std::span<const double> sums) {
  const std::int64_t first = A_.first_row() + first_local;
  if (!is_drawn(first, first, static_cast<std::uint32_t>(number + 1))) return;
  KeptValue kept{number, rows_at(first_local, static_cast<Index>(z.size()))};
  kept.rows.z = Eigen::Map<const VectorXd>(z.data(), std::ssize(z));
  kept.rows.scalars = Eigen::Map<const VectorXd>(sums.data(), std::ssize(sums));
  const std::lock_guard turn(values_in_turn_);
  kept_values_.push_back(std::move(kept));
}

void Audit::draw(std::span<RowPasses::MapRequest> requests) {
  drawn_.clear();
  drawn_hashes_.clear();
  std::vector<RowPasses::KeptTile> wanted;
  for (std::size_t k = 0; k < tiles_.size(); ++k) {
    if (!is_drawn(tiles_[k].tile, A_.first_row() + tiles_[k].first_local, 0)) continue;
    drawn_.push_back(tiles_[k]);
    drawn_hashes_.push_back(hashes_[k]);
    wanted.push_back({tiles_[k].first_local, tiles_[k].rows});
  }
  kept_.assign(requests.size(), wanted);
  for (std::size_t k = 0; k < requests.size(); ++k) requests[k].kept = &kept_[k];
}

void Audit::exchange(std::span<const AuditClaim> claims) {
  claims_.assign(claims.begin(), claims.end());
  std::ranges::sort(kept_values_, {}, [](const KeptValue& kept) { return std::tuple(kept.number, kept.rows.first); });
  MessageWriter message(std::move(sent_));
  for (std::size_t k = 0; k < claims_.size(); ++k) {
    const AuditClaim& claim = claims_[k];
    message.put(hash_of(span_of(claim.x), 0));
    message.put(
        static_cast<std::int64_t>(std::ranges::count_if(kept_[k], [](const auto& t) { return t.U.size() > 0; })));
    for (std::size_t t = 0; t < drawn_.size(); ++t) {
      RowPasses::KeptTile& kept = kept_[k][t];
      if (kept.U.size() == 0) continue;
      AuditedRows tile = rows_at(kept.first_local, kept.rows);
      tile.z = claim.z->segment(kept.first_local, kept.rows);
      if (claim.added != nullptr) tile.z = claim.added->segment(kept.first_local, kept.rows) + tile.z;
      tile.scalars = std::move(kept.scalars);
      tile.hash = drawn_hashes_[t];
      tile.U = std::move(kept.U);
      tile.before = std::move(kept.before);
      tile.sums = std::move(kept.sums);
      put_tile(message, tile);
      message.put_packed(A_.passes(), kept.first_local, kept.rows);
    }
  }
  message.put(static_cast<std::int64_t>(kept_values_.size()));
  for (const KeptValue& kept : kept_values_) {
    message.put(static_cast<std::int64_t>(kept.number));
    put_rows(message, kept.rows);
  }
  sent_ = message.take();
  const auto& communicator = A_.communicator();
  const auto received = communicator.shift(sent_, 1);
  rows_ = 0;
  found_ = findings(received, (communicator.rank() + communicator.size() - 1) % communicator.size(), &rows_);
}

/// Local. What is wrong in the message of the owner. rows: of tiles, that were made again.
std::vector<Audit::Finding> Audit::findings(std::span<const char> bytes, int owner, double* rows) const {
  struct Task {
    AuditedRows rows;
    const AuditClaim* claim = nullptr;  // of a tile
    Value value{};
    Corruption what = Corruption::none;
  };
  std::vector<Task> tasks;
  std::vector<Finding> found;
  MessageReader message(bytes);
  for (const AuditClaim& claim : claims_) {
    if (message.get<std::uint64_t>() != hash_of(span_of(claim.x), 0))
      found.push_back({owner, 0, 0, Corruption::replicated});
    for (auto left = message.get<std::int64_t>(); left > 0; --left) tasks.push_back({get_tile(message), &claim});
  }
  for (auto left = message.get<std::int64_t>(); left > 0; --left) {
    const auto number = static_cast<std::size_t>(message.get<std::int64_t>());
    if (number >= values_.size()) throw InternalError("a message of the audit has a value that there is not");
    tasks.push_back({get_rows(message), nullptr, values_[number]});
  }
  RowPasses::share(std::ssize(tasks), [&](int, Index first, Index last) {
    for (Index k = first; k < last; ++k) {
      Task& task = tasks[static_cast<std::size_t>(k)];
      task.what = task.claim != nullptr ? examined(task.rows, *task.claim, loss_, columns_)
                                        : examined_value(task.rows, task.value.reference, task.value.level, loss_,
                                                         columns_.logit_offsets());
    }
  });
  for (const Task& task : tasks) {
    if (task.claim != nullptr && rows != nullptr) *rows += static_cast<double>(task.rows.rows);
    if (task.what != Corruption::none) found.push_back({owner, task.rows.first, task.rows.rows, task.what});
  }
  return found;
}

bool Audit::settle() {
  std::array sums{static_cast<double>(found_.size()), rows_};
  A_.communicator().sum(sums);
  ++report_.evaluations;
  report_.rows += std::llround(sums[1]);
  const double reads = sums[1] / static_cast<double>(A_.rows_global());
  report_.reads += reads;
  A_.passes().count_reads(reads);
  ++pass_;
  bool is_right = true;
  if (sums[0] > 0) {
    const auto& communicator = A_.communicator();
    const int size = communicator.size(), by = size >= 3 ? 2 : 1;
    auto again = findings(communicator.shift(sent_, by), (communicator.rank() + size - by % size) % size, nullptr);
    std::vector<double> message;
    for (const auto* const list : {&found_, &again})
      for (const Finding& finding : *list)
        message.insert(message.end(), {list == &found_ ? 1.0 : 2.0, static_cast<double>(finding.owner),
                                       static_cast<double>(finding.first), static_cast<double>(finding.rows),
                                       static_cast<double>(finding.what)});
    const auto all = communicator.all_gather(message);
    std::vector<Finding> first, second;
    for (std::size_t k = 0; k + 5 <= all.size(); k += 5)
      (all[k] == 1 ? first : second)
          .push_back({static_cast<int>(all[k + 1]), std::llround(all[k + 2]), static_cast<Index>(all[k + 3]),
                      static_cast<Corruption>(static_cast<int>(all[k + 4]))});
    const auto repeated = report_.repeated;
    judge(first, second, by);
    is_right = report_.repeated == repeated;
  }
  values_.clear();
  kept_values_.clear();
  if (is_right) {
    suspected_.clear();
    wrong_in_a_row_ = 0;
  } else if (++wrong_in_a_row_ > kMostWrong) {
    give_up("a rank was wrong in " + std::to_string(wrong_in_a_row_) + " evaluations in a row, " + warnings_.back());
  }
  return is_right;
}

/// Logically collective. What both have found is wrong; what only one has found, that one has wrong.
void Audit::judge(const std::vector<Finding>& first, const std::vector<Finding>& second, int by) {
  const int size = A_.communicator().size();
  const auto rank_text = [&](int rank) { return "rank " + std::to_string(rank % size); };
  const auto of = [&](const std::vector<Finding>& list, const Finding& wanted) {
    const auto is_it = [&](const Finding& finding) {
      return finding.owner == wanted.owner && finding.first == wanted.first && finding.rows == wanted.rows;
    };
    const auto exactly = std::ranges::find_if(
        list, [&](const Finding& finding) { return is_it(finding) && finding.what == wanted.what; });
    return exactly != list.end() ? exactly : std::ranges::find_if(list, is_it);
  };
  const std::string pass = " in evaluation " + std::to_string(report_.evaluations);
  bool is_right = true;
  for (const Finding& finding : first) {
    const std::string checker = rank_text(finding.owner + 1), third = rank_text(finding.owner + by);
    const std::string owner = rank_text(finding.owner), where = rows_text(finding.first, finding.rows) + " of " + owner;
    const std::string what(text_of_corruption(finding.what));
    if (finding.what == Corruption::replicated)
      give_up(owner + " and " + checker + " have different x" + pass + ": they have calculated differently");
    const auto same = of(second, finding);
    if (same == second.end()) {
      ++report_.misjudged;
      warn(checker + " found " + what + " of " + where + " wrong" + pass +
           ", and was wrong itself: " + (size > 2 ? third + " agrees with " + owner : "it agrees when it looks again"));
      continue;
    }
    if (same->what != finding.what)
      give_up(where + pass + ": " + owner + ", " + checker + " and " + third + " find three different results");
    if (finding.what == Corruption::rows)
      give_up(what + " of " + where + " have changed in memory since the solve began, say " + checker +
              (size > 2 ? " and " + third : "") + pass + ": it cannot go on");
    suspected_.insert(finding.first);
    is_right = false;
    warn(what + " of " + where + " were wrong" + pass + ", say " + checker + (size > 2 ? " and " + third : ", twice") +
         ": made again");
  }
  for (const Finding& finding : second) {
    if (of(first, finding) != first.end()) continue;
    ++report_.misjudged;
    warn(rank_text(finding.owner + by) + ", asked because of others, found " +
         std::string(text_of_corruption(finding.what)) + " of " + rows_text(finding.first, finding.rows) + " of " +
         rank_text(finding.owner) + " wrong" + pass + ", and was wrong itself");
  }
  if (!is_right) ++report_.repeated;
}

void Audit::warn(const std::string& text) {
  if (warnings_.size() < kMostWarnings)
    warnings_.push_back("audit: " + text);
  else if (warnings_.size() == kMostWarnings)
    warnings_.push_back("audit: more of that kind");
}

}  // namespace attnreg
