#include "attnreg/communicator.hpp"
#include "errors/faults.hpp"
#include "errors/refuse.hpp"
#include "ranks/activity.hpp"
#include "ranks/block_calls.hpp"
#include "ranks/hash.hpp"
#include "ranks/joint_sums.hpp"
#include "ranks/stop.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <chrono>
#include <cstdlib>
#include <limits>
#include <numeric>
#include <thread>

namespace attnreg {

namespace {

void check(int result, const char* call) {
  if (result == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = {};
  int length = 0;
  MPI_Error_string(result, text, &length);
  throw InternalError(std::string(call) + " failed: " + text);
}

#ifdef ATTNREG_CHECK_COLLECTIVES
constexpr bool check_collectives = true;
#else
constexpr bool check_collectives = false;
#endif

#ifdef ATTNREG_MESSAGE_DELAY
/// A slow network, for measurements (docs/scale.md): sleeps as long as the variable ATTNREG_MESSAGE_DELAY,
/// "MICROSECONDS of a round[,NANOSECONDS of a byte]", says of a collective of so many bytes, ceil(log2(ranks)) rounds
/// one after the other.
void delay_message(int ranks, std::size_t bytes) {
  static const std::array<double, 2> seconds = [] {
    std::array<double, 2> delay{};
    const char* const text = std::getenv("ATTNREG_MESSAGE_DELAY");
    if (text == nullptr) return delay;
    char* end = nullptr;
    delay[0] = 1e-6 * std::strtod(text, &end);
    if (*end == ',') delay[1] = 1e-9 * std::strtod(end + 1, nullptr);
    return delay;
  }();
  const auto rounds = static_cast<double>(std::bit_width(static_cast<unsigned>(ranks - 1)));
  const double sum = rounds * seconds[0] + static_cast<double>(bytes) * seconds[1];
  if (sum > 0) std::this_thread::sleep_for(std::chrono::duration<double>(sum));
}
#endif

}  // namespace

struct Communicator::State {
  MPI_Comm handle = MPI_COMM_NULL;
  int rank = 0, size = 1, ranks_on_node = 1;
  Limits limits;
  std::int64_t collectives = 0;
  bool is_stopped = false, takes_checkpoint = false;
  std::shared_ptr<std::atomic<bool>> asked_to_stop = std::make_shared<std::atomic<bool>>(false);  // of all copies
  bool is_whole_job = false;
  JointSums* joint = nullptr;
  BlockCalls* blocks = nullptr;  // then this is a block, and there is no handle
  std::shared_ptr<void> owner;   // frees the handle

  /// Collective, where the option ATTNREG_CHECK_COLLECTIVES is on: all ranks call the same, of the same length and with
  /// the same root, or all of them throw with what each one calls. Else it does nothing.
  void check_same(const char* call, std::size_t count, int root) const;

  /// Of a block: counts one collective, which all blocks make together.
  void meet(BlockCall call) {
    ++collectives;
    blocks->meet(rank, call);
  }
  std::int64_t met(BlockCall::Kind kind, std::int64_t value) {
    meet({.kind = kind, .integer = &value});
    return value;
  }

  /// Counts one collective, `call`, of `count` numbers; it lasts while the result lives.
  InCollective begin(const char* call, std::size_t count, int root = 0, bool counts = true) {
    if (counts) ++collectives;
    faults::at("message");
#ifdef ATTNREG_MESSAGE_DELAY
    if (counts) delay_message(size, sizeof(double) * count);
#endif
    return InCollective(check_collectives ? (check_same(call, count, root), call) : call, count, counts && size > 1);
  }

  /// Calls `piece(offset, count)` for pieces that an MPI count can hold; counts one collective.
  template <class Piece>
  void in_pieces(const char* call, std::size_t total, Piece&& piece, int root = 0) {
    const InCollective now = begin(call, total, root);
    const auto limit = static_cast<std::size_t>(
        std::clamp<std::int64_t>(limits.elements_per_call, 1, std::numeric_limits<int>::max()));
    for (std::size_t offset = 0; offset < total; offset += limit)
      piece(offset, static_cast<int>(std::min(limit, total - offset)));
  }

  template <class T>
  T reduce(const char* call, T value, MPI_Datatype type, MPI_Op operation) {
    const InCollective now = begin(call, 1);
    if (stops_end_phases()) {
      const auto asked = static_cast<T>(stop_signal() != 0 ? 1 : 0);
      T pair[2] = {value, operation == MPI_MIN ? static_cast<T>(-asked) : asked};
      check(MPI_Allreduce(MPI_IN_PLACE, pair, 2, type, operation, handle), "MPI_Allreduce");
      if (pair[1] != 0) stop();
      return pair[0];
    }
    check(MPI_Allreduce(MPI_IN_PLACE, &value, 1, type, operation, handle), "MPI_Allreduce");
    return value;
  }

  void reduce(const char* call, std::span<double> values, MPI_Op operation) {
    constexpr std::size_t kShort = 512;  // what is longer is followed by the number that tells of a stop
    if (!stops_end_phases()) return reduce_in_pieces(call, values, operation);
    double asked = stop_signal() != 0 ? 1 : 0;
    if (values.size() < kShort) {
      std::array<double, kShort> message;
      std::copy(values.begin(), values.end(), message.begin());
      message[values.size()] = asked;
      reduce_in_pieces(call, std::span(message).first(values.size() + 1), operation);
      std::copy_n(message.begin(), values.size(), values.begin());
      asked = message[values.size()];
    } else {
      reduce_in_pieces(call, values, operation);
      check(MPI_Allreduce(MPI_IN_PLACE, &asked, 1, MPI_DOUBLE, MPI_MAX, handle), "MPI_Allreduce");
    }
    if (asked != 0) stop();
  }

 private:
  bool stops_end_phases() const { return is_whole_job && StopsEndPhases::active(); }
  [[noreturn]] static void stop() {
    throw_error(ExitCode::limit, stop_text() + " before there was a result", Error::Scope::all_ranks);
  }
  void reduce_in_pieces(const char* call, std::span<double> values, MPI_Op operation) {
    in_pieces(call, values.size(), [&](std::size_t offset, int count) {
      check(MPI_Allreduce(MPI_IN_PLACE, values.data() + offset, count, MPI_DOUBLE, operation, handle), "MPI_Allreduce");
    });
  }
};

void Communicator::State::check_same(const char* call, std::size_t count, int root) const {
  const InCollective checking(call, count, false);
  std::string own = std::string(call) + " of length " + std::to_string(count) + " at root " + std::to_string(root);
  const auto hash = std::bit_cast<std::int64_t>(hash_of(own));
  std::int64_t extremes[2] = {hash, ~hash};
  check(MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_INT64_T, MPI_MAX, handle), "MPI_Allreduce");
  if (extremes[0] == ~extremes[1]) return;
  constexpr int kLength = 80;
  own.resize(kLength - 1, '\0');
  own.resize(kLength, '\0');
  std::string all(static_cast<std::size_t>(size) * kLength, '\0'), text;
  check(MPI_Allgather(own.data(), kLength, MPI_CHAR, all.data(), kLength, MPI_CHAR, handle), "MPI_Allgather");
  for (int other = 0; other < size; ++other)
    text += (other == 0 ? "" : ", ") + std::string("rank ") + std::to_string(other) + " calls " +
            std::string(all.data() + static_cast<std::size_t>(other) * kLength);
  throw InternalError("the ranks do not call the same collective, number " + std::to_string(collectives) + ": " + text);
}

Communicator::Communicator(MPI_Comm parent, Limits limits) : state_(std::make_shared<State>()) {
  state_->limits = limits;
  check(MPI_Comm_dup(parent, &state_->handle), "MPI_Comm_dup");
  state_->owner = std::shared_ptr<void>(nullptr, [handle = state_->handle](void*) mutable {
    int finalized = 0;
    MPI_Finalized(&finalized);
    if (!finalized) MPI_Comm_free(&handle);
  });
  check(MPI_Comm_set_errhandler(state_->handle, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  check(MPI_Comm_rank(state_->handle, &state_->rank), "MPI_Comm_rank");
  check(MPI_Comm_size(state_->handle, &state_->size), "MPI_Comm_size");
  MPI_Comm node = MPI_COMM_NULL;
  check(MPI_Comm_split_type(state_->handle, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node), "MPI_Comm_split_type");
  check(MPI_Comm_size(node, &state_->ranks_on_node), "MPI_Comm_size");
  MPI_Comm_free(&node);
  int job = 0;
  check(MPI_Comm_size(MPI_COMM_WORLD, &job), "MPI_Comm_size");
  state_->is_whole_job = job == state_->size;
}

Communicator Communicator::of_block(BlockCalls& calls, int block) const {
  auto state = std::make_shared<State>();
  state->owner = state_->owner;
  state->blocks = &calls;
  state->rank = block;
  state->size = calls.facts().blocks;
  state->ranks_on_node = calls.facts().blocks_on_node;
  return Communicator(std::move(state));
}

Communicator Communicator::joined(JointSums& joint) const {
  auto state = std::make_shared<State>(*state_);
  state->collectives = 0;
  state->joint = &joint;
  return Communicator(std::move(state));
}

int Communicator::rank() const noexcept { return state_->rank; }
int Communicator::size() const noexcept { return state_->size; }
int Communicator::ranks_on_node() const noexcept { return state_->ranks_on_node; }
MPI_Comm Communicator::handle() const noexcept { return state_->handle; }
bool Communicator::is_of_blocks() const noexcept { return state_->blocks != nullptr; }
int Communicator::processes() const noexcept { return is_of_blocks() ? state_->blocks->facts().processes : size(); }
int Communicator::processes_on_node() const noexcept {
  return is_of_blocks() ? state_->blocks->facts().processes_on_node : ranks_on_node();
}
bool Communicator::leads_process() const noexcept {
  return !is_of_blocks() || rank() == state_->blocks->facts().first_block;
}
std::int64_t Communicator::collectives() const noexcept { return state_->collectives; }
void Communicator::stop_with(const Communicator& other) { state_->asked_to_stop = other.state_->asked_to_stop; }
void Communicator::ask_to_stop() const noexcept { state_->asked_to_stop->store(true, std::memory_order_relaxed); }
bool Communicator::is_asked_to_stop() const noexcept {
  return state_->asked_to_stop->load(std::memory_order_relaxed) || stop_signal() != 0;
}
bool Communicator::is_stopped() const noexcept { return state_->is_stopped; }
void Communicator::note_stop() const noexcept { state_->is_stopped = true; }
bool Communicator::takes_checkpoint() const noexcept { return std::exchange(state_->takes_checkpoint, false); }
void Communicator::note_checkpoint() const noexcept { state_->takes_checkpoint = true; }

void Communicator::sum(std::span<double> values) const {
  if (state_->joint != nullptr) {
    ++state_->collectives;
    return state_->joint->sum(values);
  }
  if (is_of_blocks()) return state_->meet({.kind = BlockCall::Kind::sum, .doubles = values});
  state_->reduce("sum of doubles", values, MPI_SUM);
}

double Communicator::sum(double value) const {
  sum(std::span(&value, 1));
  return value;
}
std::int64_t Communicator::sum(std::int64_t value) const {
  if (is_of_blocks()) return state_->met(BlockCall::Kind::integer_sum, value);
  return state_->reduce("sum of an integer", value, MPI_INT64_T, MPI_SUM);
}

void Communicator::sum_to_root(std::span<double> values) const {
  if (is_of_blocks()) return state_->meet({.kind = BlockCall::Kind::sum_to_root, .doubles = values});
  state_->in_pieces("sum of doubles to rank 0", values.size(), [&](std::size_t offset, int count) {
    double* part = values.data() + offset;
    check(is_root() ? MPI_Reduce(MPI_IN_PLACE, part, count, MPI_DOUBLE, MPI_SUM, 0, state_->handle)
                    : MPI_Reduce(part, nullptr, count, MPI_DOUBLE, MPI_SUM, 0, state_->handle),
          "MPI_Reduce");
  });
}

void Communicator::sum_scatter(std::span<const double> values, std::span<const std::int64_t> counts,
                               std::span<double> own) const {
  if (is_of_blocks()) {
    std::vector<double> all(values.begin(), values.end());
    sum(all);
    std::copy_n(all.begin() + std::accumulate(counts.begin(), counts.begin() + rank(), std::int64_t{0}), own.size(),
                own.begin());
    return;
  }
  const auto limit = std::clamp<std::int64_t>(state_->limits.elements_per_call, 1, std::numeric_limits<int>::max());
  if (static_cast<std::int64_t>(values.size()) <= limit) {
    const InCollective now = state_->begin("sum that is dealt out", values.size());
    const std::vector<int> lengths(counts.begin(), counts.end());
    check(MPI_Reduce_scatter(values.data(), own.data(), lengths.data(), MPI_DOUBLE, MPI_SUM, state_->handle),
          "MPI_Reduce_scatter");
    return;
  }
  const std::int64_t before = state_->collectives;
  for (int root = 0; root < size(); ++root) {  // too long for one call
    const auto length = static_cast<std::size_t>(counts[static_cast<std::size_t>(root)]);
    const auto add = [&](std::size_t offset, int count) {
      double* const result = root == rank() ? own.data() + offset : nullptr;
      check(MPI_Reduce(values.data() + offset, result, count, MPI_DOUBLE, MPI_SUM, root, state_->handle), "MPI_Reduce");
    };
    state_->in_pieces("sum that is dealt out", length, add, root);
    values = values.subspan(length);
  }
  state_->collectives = before + 1;
}

double Communicator::max(double value) const {
  if (is_of_blocks()) return max(std::span(&value, 1)), value;
  return state_->reduce("maximum of a double", value, MPI_DOUBLE, MPI_MAX);
}
void Communicator::max(std::span<double> values) const {
  if (is_of_blocks()) return state_->meet({.kind = BlockCall::Kind::max, .doubles = values});
  state_->reduce("maximum of doubles", values, MPI_MAX);
}
std::int64_t Communicator::max(std::int64_t value) const {
  if (is_of_blocks()) return state_->met(BlockCall::Kind::integer_max, value);
  return state_->reduce("maximum of an integer", value, MPI_INT64_T, MPI_MAX);
}
std::int64_t Communicator::min(std::int64_t value) const {
  if (is_of_blocks()) return state_->met(BlockCall::Kind::integer_min, value);
  return state_->reduce("minimum of an integer", value, MPI_INT64_T, MPI_MIN);
}

void Communicator::broadcast(std::span<double> values, int root) const {
  if (is_of_blocks()) return broadcast(std::span(reinterpret_cast<char*>(values.data()), values.size_bytes()), root);
  const auto send = [&](std::size_t offset, int count) {
    check(MPI_Bcast(values.data() + offset, count, MPI_DOUBLE, root, state_->handle), "MPI_Bcast");
  };
  state_->in_pieces("broadcast of doubles", values.size(), send, root);
}

void Communicator::broadcast(std::span<char> bytes, int root) const {
  if (is_of_blocks()) return state_->meet({.kind = BlockCall::Kind::broadcast, .root = root, .bytes = bytes});
  const auto send = [&](std::size_t offset, int count) {
    check(MPI_Bcast(bytes.data() + offset, count, MPI_CHAR, root, state_->handle), "MPI_Bcast");
  };
  state_->in_pieces("broadcast of bytes", bytes.size(), send, root);
}

std::string Communicator::broadcast(std::string text, int root) const {
  auto length = static_cast<std::int64_t>(text.size());
  if (is_of_blocks()) {
    broadcast(std::span(reinterpret_cast<char*>(&length), sizeof length), root);
    --state_->collectives;  // the next one counts
  } else {
    const InCollective now = state_->begin("broadcast of a text", 1, root, false);  // the next one counts
    check(MPI_Bcast(&length, 1, MPI_INT64_T, root, state_->handle), "MPI_Bcast");
  }
  text.resize(static_cast<std::size_t>(length));
  broadcast(std::span<char>(text), root);
  return text;
}

std::vector<std::int64_t> Communicator::all_gather(std::int64_t value) const {
  std::vector<std::int64_t> all(static_cast<std::size_t>(size()));
  if (is_of_blocks()) {
    state_->meet({.kind = BlockCall::Kind::all_gather, .integer = &value, .all_integers = &all});
    return all;
  }
  const InCollective now = state_->begin("gathering of an integer", 1);
  check(MPI_Allgather(&value, 1, MPI_INT64_T, all.data(), 1, MPI_INT64_T, state_->handle), "MPI_Allgather");
  return all;
}

std::vector<double> Communicator::all_gather(std::span<const double> values) const {
  const auto lengths = all_gather(static_cast<std::int64_t>(values.size()));
  std::size_t total = 0;
  for (auto length : lengths) total += static_cast<std::size_t>(length);
  std::vector<double> all(total);
  std::size_t offset = 0;
  const auto limit = std::min<std::int64_t>(state_->limits.elements_per_call, std::numeric_limits<int>::max());
  if (!is_of_blocks() && static_cast<std::int64_t>(total) <= limit) {
    const InCollective now = state_->begin("gathering of doubles on all ranks", total);
    const std::vector<int> counts(lengths.begin(), lengths.end());
    std::vector<int> offsets(counts.size(), 0);
    std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
    check(MPI_Allgatherv(values.data(), static_cast<int>(values.size()), MPI_DOUBLE, all.data(), counts.data(),
                         offsets.data(), MPI_DOUBLE, state_->handle),
          "MPI_Allgatherv");
    return all;
  }
  for (int root = 0; root < size(); ++root) {
    const std::span part(all.data() + offset, static_cast<std::size_t>(lengths[static_cast<std::size_t>(root)]));
    if (root == rank()) std::copy(values.begin(), values.end(), part.begin());
    broadcast(part, root);
    offset += part.size();
  }
  return all;
}

std::vector<double> Communicator::gather_to_root(std::span<const double> values) const {
  if (is_of_blocks()) {
    std::vector<double> own(values.begin(), values.end()), all;
    state_->meet({.kind = BlockCall::Kind::gather_to_root, .doubles = own, .all_doubles = &all});
    return all;
  }
  const auto lengths = all_gather(static_cast<std::int64_t>(values.size()));
  const std::int64_t total = std::accumulate(lengths.begin(), lengths.end(), std::int64_t{0});
  const auto before = std::accumulate(lengths.begin(), lengths.begin() + rank(), std::int64_t{0});
  if (total > std::min<std::int64_t>(state_->limits.elements_per_call, std::numeric_limits<int>::max())) {
    std::vector<double> all(static_cast<std::size_t>(total), 0.0);  // too long for one call
    std::copy(values.begin(), values.end(), all.begin() + before);
    sum_to_root(all);
    if (!is_root()) all.clear();
    return all;
  }
  const InCollective now = state_->begin("gathering of doubles", static_cast<std::size_t>(total));
  const std::vector<int> counts(lengths.begin(), lengths.end());
  std::vector<int> offsets(counts.size(), 0);
  std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
  std::vector<double> all(is_root() ? static_cast<std::size_t>(total) : 0);
  check(MPI_Gatherv(values.data(), static_cast<int>(values.size()), MPI_DOUBLE, all.data(), counts.data(),
                    offsets.data(), MPI_DOUBLE, 0, state_->handle),
        "MPI_Gatherv");
  return all;
}

std::vector<char> Communicator::shift(std::span<const char> bytes, int by) const {
  const int to = (rank() + by) % size(), from = (rank() + size() - by % size()) % size();
  if (to == rank()) return {bytes.begin(), bytes.end()};
  if (is_of_blocks()) return shifted_by_gathering(*this, bytes, from);
  constexpr int kTagOfShift = 2;
  const InCollective now = state_->begin("shift of bytes", 0);
  auto length = static_cast<std::int64_t>(bytes.size()), coming = std::int64_t{0};
  check(MPI_Sendrecv(&length, 1, MPI_INT64_T, to, kTagOfShift, &coming, 1, MPI_INT64_T, from, kTagOfShift,
                     state_->handle, MPI_STATUS_IGNORE),
        "MPI_Sendrecv");
  std::vector<char> received(static_cast<std::size_t>(coming));
  const auto limit = std::clamp<std::int64_t>(state_->limits.elements_per_call, 1, std::numeric_limits<int>::max());
  for (std::int64_t offset = 0; offset < std::max(length, coming); offset += limit) {
    const auto sent = static_cast<int>(std::clamp<std::int64_t>(length - offset, 0, limit));
    const auto got = static_cast<int>(std::clamp<std::int64_t>(coming - offset, 0, limit));
    check(MPI_Sendrecv(bytes.data() + std::min(offset, length), sent, MPI_CHAR, sent > 0 ? to : MPI_PROC_NULL,
                       kTagOfShift, received.data() + std::min(offset, coming), got, MPI_CHAR,
                       got > 0 ? from : MPI_PROC_NULL, kTagOfShift, state_->handle, MPI_STATUS_IGNORE),
          "MPI_Sendrecv");
  }
  return received;
}

void Communicator::barrier() const {
  if (is_of_blocks()) return state_->meet({.kind = BlockCall::Kind::barrier});
  const InCollective now = state_->begin("barrier", 0);
  check(MPI_Barrier(state_->handle), "MPI_Barrier");
}

bool Communicator::is_replicated(std::span<const double> values) const {
  const std::uint64_t hash = hash_of(values, values.size());
  std::int64_t extremes[2] = {std::bit_cast<std::int64_t>(hash), ~std::bit_cast<std::int64_t>(hash)};
  if (is_of_blocks()) {
    for (auto& extreme : extremes) extreme = max(extreme);
    --state_->collectives;
    return extremes[0] == ~extremes[1];
  }
  const InCollective now = state_->begin("comparison of replicated values", 1);
  check(MPI_Allreduce(MPI_IN_PLACE, extremes, 2, MPI_INT64_T, MPI_MAX, state_->handle), "MPI_Allreduce");
  return extremes[0] == ~extremes[1];
}

void Communicator::agree_on(const std::optional<Failure>& failure) const {
  const std::int64_t first = min(std::int64_t{failure ? rank() : size()});
  if (first == size()) return;
  const int root = static_cast<int>(first);
  double code = failure ? static_cast<double>(failure->code) : 0;
  broadcast(std::span(&code, 1), root);
  const std::string message = broadcast(failure ? failure->message : std::string(), root);
  throw_error(static_cast<ExitCode>(static_cast<int>(code)), message, Error::Scope::all_ranks);
}

}  // namespace attnreg
