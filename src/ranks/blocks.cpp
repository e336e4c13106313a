#include <algorithm>
#include <array>
#include <bit>
#include <exception>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "attnreg/communicator.hpp"
#include "errors/faults.hpp"
#include "errors/refuse.hpp"
#include "ranks/activity.hpp"
#include "ranks/block_calls.hpp"
#include "ranks/own_stack.hpp"
#include "ranks/stop.hpp"

namespace attnreg {

namespace {

/// The blocks of `Communicator::in_blocks`. Those of a process run on its thread, one at a time, each on a stack of its
/// own. When all of them have made the same call, the process makes it for them with the other processes, by one
/// message in each direction at most.
class Blocks final : public BlockCalls {
 public:
  /// Local. first_blocks: the first block of each process, and at the end their number.
  Blocks(const Communicator& processes, std::vector<int> first_blocks,
         std::function<void(BlockCalls& calls, int block)> work);

  /// Collective. Until all blocks have ended.
  void run();

  void meet(int block, BlockCall call) override;

 private:
  struct Block {
    OwnStack stack;
    std::optional<BlockCall> call;  ///< that it waits for
  };
  /// A call as processes without blocks hear of it.
  struct Header {
    BlockCall::Kind kind;
    std::size_t count = 0;
    int root = 0;
  };
  /// A sum over some blocks: numbers of a block, or made.
  struct Partial {
    double* data = nullptr;
    std::vector<double> made{};  ///< then `data` is its
  };

  void count_on_node();
  void advance();
  void serve_until_the_end();
  void end_with(std::exception_ptr failure);
  Header next_call() const;
  Header heard_by_all(Header header) const;
  void serve(const Header& header);
  void serve_integers(const Header& header);
  void serve_doubles(const Header& header);
  void serve_broadcast(const Header& header);
  void serve_all_gather();
  void serve_gather_to_root();
  void serve_share() const;
  Partial reduced(int begin, int end, const Header& header);
  void combine(const Partial& left, const Partial& right, const Header& header) const;
  void hear_of_requests() const;
  void throw_failure();
  int owner(int block) const;
  int first() const { return facts_.first_block; }
  int end() const { return first_[static_cast<std::size_t>(processes_.rank()) + 1]; }

  Communicator processes_;
  std::vector<int> first_;
  std::function<void(BlockCalls&, int block)> work_;
  bool some_are_idle_;
  std::vector<Block> blocks_;
  std::exception_ptr failure_of_call_;
  bool is_over_ = false;  // with that failure
};

constexpr int kTag = 1;
constexpr std::size_t kPiece = std::size_t{1} << 28;  // doubles of a message

thread_local Blocks* running = nullptr;  // one of its blocks

void check_message(int result, const char* call) {
  if (result != MPI_SUCCESS) throw InternalError(std::string(call) + " failed between blocks");
}

/// piece(offset, count) for pieces that an MPI count can hold.
template <class Piece>
void in_short_pieces(std::size_t total, Piece&& piece) {
  for (std::size_t offset = 0; offset < total; offset += kPiece)
    piece(offset, static_cast<int>(std::min(kPiece, total - offset)));
}

std::vector<int> first_blocks(const std::vector<int>& blocks, int processes) {
  if (std::ssize(blocks) != processes || blocks[0] < 1 || std::ranges::any_of(blocks, [](int n) { return n < 0; }))
    refuse("blocks: a number for each of the " + std::to_string(processes) + " ranks, of rank 0 one at least");
  std::vector<int> first{0};
  for (const int count : blocks) first.push_back(first.back() + count);
  return first;
}

Blocks::Blocks(const Communicator& processes, std::vector<int> first_blocks,
               std::function<void(BlockCalls&, int block)> work)
    : processes_(processes),
      first_(std::move(first_blocks)),
      work_(std::move(work)),
      some_are_idle_(std::ranges::adjacent_find(first_) != first_.end()),
      blocks_(static_cast<std::size_t>(end() - first_[static_cast<std::size_t>(processes_.rank())])) {
  facts_ = {.blocks = first_.back(),
            .processes = processes_.size(),
            .first_block = first_[static_cast<std::size_t>(processes_.rank())]};
}

int Blocks::owner(int block) const {
  return static_cast<int>(std::ranges::upper_bound(first_, block) - first_.begin()) - 1;
}

/// Collective over the processes of a node.
void Blocks::count_on_node() {
  MPI_Comm node = MPI_COMM_NULL;
  check_message(MPI_Comm_split_type(processes_.handle(), MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node),
                "MPI_Comm_split_type");
  int counts[2] = {static_cast<int>(blocks_.size()), blocks_.empty() ? 0 : 1};
  const int result = MPI_Allreduce(MPI_IN_PLACE, counts, 2, MPI_INT, MPI_SUM, node);
  MPI_Comm_free(&node);
  check_message(result, "MPI_Allreduce");
  facts_.blocks_on_node = counts[0], facts_.processes_on_node = counts[1];
}

void Blocks::run() {
  count_on_node();
  for (std::size_t k = 0; k < blocks_.size(); ++k)
    blocks_[k].stack.begin([this, number = first() + static_cast<int>(k)] { work_(*this, number); });
  try {
    serve_until_the_end();
  } catch (...) {
    end_with(std::current_exception());
    throw;
  }
}

void Blocks::serve_until_the_end() {
  for (;;) {
    advance();
    const Header header = heard_by_all(next_call());
    if (header.kind == BlockCall::Kind::failure) throw_failure();
    if (header.kind == BlockCall::Kind::end) return;
    failure_of_call_ = nullptr;
    try {
      serve(header);
    } catch (const Error& error) {  // of all processes: a stop
      if (error.scope() != Error::Scope::all_ranks) throw;
      failure_of_call_ = std::current_exception();
    }
    for (Block& block : blocks_) block.call.reset();
  }
}

/// Local. Every block up to its next call, or its end.
void Blocks::advance() {
  for (Block& block : blocks_) {
    if (block.stack.is_done() || (is_over_ && !block.stack.is_suspended())) continue;
    mute_phases(&block != blocks_.data());
    running = this;
    block.stack.resume();
    running = nullptr;
  }
  mute_phases(false);
}

/// Local. What ends the work of this process is thrown by the calls that its blocks are at, and by all later ones: they
/// say how they ended as ranks do.
void Blocks::end_with(std::exception_ptr failure) {
  is_over_ = true;
  failure_of_call_ = std::move(failure);
  advance();
}

void Blocks::meet(int block, BlockCall call) {
  Block& own = blocks_[static_cast<std::size_t>(block - first())];
  own.call = call;
  if (!is_over_) own.stack.step_aside();
  if (failure_of_call_) std::rethrow_exception(failure_of_call_);
}

/// Local. What the blocks of this process wait for: they agree, or something is wrong.
Blocks::Header Blocks::next_call() const {
  if (blocks_.empty()) return {BlockCall::Kind::barrier};
  const auto of = [](const Block& block) -> Header {
    if (block.stack.is_done()) return {block.stack.failure() ? BlockCall::Kind::failure : BlockCall::Kind::end};
    const BlockCall& call = *block.call;
    return {call.kind, call.kind == BlockCall::Kind::gather_to_root ? 0 : call.count(), call.root};
  };
  const Header header = of(blocks_[0]);
  for (const Block& block : blocks_) {
    const Header other = of(block);
    if (other.kind == header.kind && other.count == header.count && other.root == header.root) continue;
    for (const Block& failed : blocks_)
      if (failed.stack.failure()) std::rethrow_exception(failed.stack.failure());
    throw InternalError("the blocks of rank " + std::to_string(processes_.rank()) +
                        " do not make the same call: kinds " + std::to_string(static_cast<int>(header.kind)) + " and " +
                        std::to_string(static_cast<int>(other.kind)) + ", of " + std::to_string(header.count) +
                        " and " + std::to_string(other.count));
  }
  return header;
}

/// Collective. The call of process 0 where others have no blocks to tell them.
Blocks::Header Blocks::heard_by_all(Header header) const {
#ifndef ATTNREG_CHECK_COLLECTIVES
  if (!some_are_idle_) return header;
#endif
  const Header own = header;
  std::array numbers{static_cast<double>(header.kind), static_cast<double>(header.count),
                     static_cast<double>(header.root), StopsEndPhases::active() ? 1.0 : 0.0};
  processes_.broadcast(numbers);
  header = {static_cast<BlockCall::Kind>(static_cast<int>(numbers[0])), static_cast<std::size_t>(numbers[1]),
            static_cast<int>(numbers[2])};
  if (blocks_.empty()) {
    if (numbers[3] == 0) StopsEndPhases::end();
  } else if (own.kind != header.kind || own.count != header.count || own.root != header.root) {
    throw InternalError("the blocks of rank " + std::to_string(processes_.rank()) +
                        " do not call what those of rank 0 do");
  }
  if (some_are_idle_ && numbers[3] == 0) hear_of_requests();
  return header;
}

/// Collective. Requests ride on the blocks' sums: what processes without blocks were asked for, the others were.
void Blocks::hear_of_requests() const {
  const std::int64_t signal = processes_.max(std::int64_t{blocks_.empty() ? stop_signal() : 0});
  if (signal != 0) ask_to_stop(static_cast<int>(signal));
  if (processes_.max(std::int64_t{blocks_.empty() && is_checkpoint_asked_for()}) != 0 && !blocks_.empty())
    ask_for_checkpoint();
}

/// Collective. The blocks' failure, which they have agreed on.
void Blocks::throw_failure() {
  std::exception_ptr failure = blocks_.empty() ? nullptr : blocks_[0].stack.failure();
  if (!some_are_idle_) std::rethrow_exception(failure);
  double code = 0;
  std::string text;
  try {
    if (failure) std::rethrow_exception(failure);
  } catch (const Error& error) {
    if (error.scope() != Error::Scope::all_ranks) throw;
    code = static_cast<double>(error.code()), text = error.what();
  }
  processes_.broadcast(std::span(&code, 1));
  text = processes_.broadcast(text);
  if (failure) std::rethrow_exception(failure);
  throw Error(static_cast<ExitCode>(static_cast<int>(code)), text, Error::Scope::all_ranks);
}

void Blocks::serve(const Header& header) {
  using enum BlockCall::Kind;
  switch (header.kind) {
    case sum:
    case sum_to_root:
    case max: return serve_doubles(header);
    case integer_sum:
    case integer_max:
    case integer_min: return serve_integers(header);
    case broadcast: return serve_broadcast(header);
    case all_gather: return serve_all_gather();
    case gather_to_root: return serve_gather_to_root();
    case barrier: return processes_.barrier();
    case share: return serve_share();
    case end:
    case failure: break;
  }
}

void Blocks::serve_integers(const Header& header) {
  using enum BlockCall::Kind;
  std::int64_t all = header.kind == integer_sum   ? 0
                     : header.kind == integer_max ? std::numeric_limits<std::int64_t>::min()
                                                  : std::numeric_limits<std::int64_t>::max();
  for (const Block& block : blocks_) {
    const std::int64_t value = *block.call->integer;
    all = header.kind == integer_sum   ? all + value
          : header.kind == integer_max ? std::max(all, value)
                                       : std::min(all, value);
  }
  all = header.kind == integer_sum   ? processes_.sum(all)
        : header.kind == integer_max ? processes_.max(all)
                                     : processes_.min(all);
  for (const Block& block : blocks_) *block.call->integer = all;
}

void Blocks::combine(const Partial& left, const Partial& right, const Header& header) const {
  const bool is_max = header.kind == BlockCall::Kind::max;
  double* const sum = left.data;
  const double* const term = right.data;
  if (is_max) {
    for (std::size_t k = 0; k < header.count; ++k) sum[k] = std::max(sum[k], term[k]);
  } else {
    for (std::size_t k = 0; k < header.count; ++k) sum[k] += term[k];
  }
}

/// Collective over the processes that have some of the blocks [begin, end): their sum, on the owner of the first. The
/// tree is a function of the number of blocks alone. A pair of processes that exchange a part both come to it in the
/// order of the tree, so that nobody waits for one who waits.
Blocks::Partial Blocks::reduced(int begin, int end, const Header& header) {
  if (begin >= this->end() || end <= first()) return {};
  if (end - begin == 1) return {blocks_[static_cast<std::size_t>(begin - first())].call->doubles.data(), {}};
  const int middle = begin + static_cast<int>(std::bit_floor(static_cast<unsigned>(end - begin - 1)));
  Partial left = reduced(begin, middle, header), right = reduced(middle, end, header);
  const int own = processes_.rank(), to = owner(begin), from = owner(middle);
  if (own != to && own != from) return {};
  if (to != from) {
    if (own == from) {
      in_short_pieces(header.count, [&](std::size_t offset, int count) {
        check_message(MPI_Send(right.data + offset, count, MPI_DOUBLE, to, kTag, processes_.handle()), "MPI_Send");
      });
      return {};
    }
    right.made.resize(header.count);
    right.data = right.made.data();
    in_short_pieces(header.count, [&](std::size_t offset, int count) {
      check_message(
          MPI_Recv(right.data + offset, count, MPI_DOUBLE, from, kTag, processes_.handle(), MPI_STATUS_IGNORE),
          "MPI_Recv");
    });
  }
  combine(left, right, header);
  return left;
}

void Blocks::serve_doubles(const Header& header) {
  const bool to_root = header.kind == BlockCall::Kind::sum_to_root;
  if (!to_root && StopsEndPhases::active()) processes_.max(std::int64_t{0});  // throws once a rank was asked to stop
  if (header.count == 0) return;
  Partial all;
  {
    const InCollective now("sum over blocks", header.count);
    faults::at("message");
    all = reduced(0, facts_.blocks, header);
  }
  if (to_root) return;  // block 0 has it
  if (blocks_.empty()) all.made.resize(header.count);
  const std::span<double> sum = blocks_.empty() ? std::span<double>(all.made) : blocks_[0].call->doubles;
  processes_.broadcast(sum);
  for (const Block& block : blocks_)
    if (&block != blocks_.data()) std::ranges::copy(sum, block.call->doubles.begin());
}

void Blocks::serve_broadcast(const Header& header) {
  const int from = owner(header.root);
  std::vector<char> idle;
  std::span<char> bytes;
  if (blocks_.empty())
    idle.resize(header.count), bytes = idle;
  else
    bytes =
        (from == processes_.rank() ? blocks_[static_cast<std::size_t>(header.root - first())] : blocks_[0]).call->bytes;
  processes_.broadcast(bytes, from);
  for (const Block& block : blocks_)
    if (block.call->bytes.data() != bytes.data()) std::ranges::copy(bytes, block.call->bytes.begin());
}

void Blocks::serve_all_gather() {
  std::vector<double> own;  // the bits of the integers
  for (const Block& block : blocks_) own.push_back(std::bit_cast<double>(*block.call->integer));
  const auto all = processes_.all_gather(own);
  for (const Block& block : blocks_) {
    block.call->all_integers->clear();
    for (const double bits : all) block.call->all_integers->push_back(std::bit_cast<std::int64_t>(bits));
  }
}

void Blocks::serve_gather_to_root() {
  std::vector<double> own;
  for (const Block& block : blocks_) own.insert(own.end(), block.call->doubles.begin(), block.call->doubles.end());
  auto all = processes_.gather_to_root(own);
  for (const Block& block : blocks_) block.call->all_doubles->clear();
  if (processes_.is_root()) *blocks_[0].call->all_doubles = std::move(all);
}

void Blocks::serve_share() const {
  for (const Block& block : blocks_) *block.call->shared = *blocks_[0].call->shared;
}

}  // namespace

bool runs_in_block() noexcept { return running != nullptr; }

std::shared_ptr<const void> of_first_block(const Communicator& block, std::shared_ptr<const void> object) {
  running->meet(block.rank(), {.kind = BlockCall::Kind::share, .shared = &object});
  return object;
}

std::vector<char> shifted_by_gathering(const Communicator& blocks, std::span<const char> bytes, int from) {
  const auto words = [](double length) { return (static_cast<std::size_t>(length) + 7) / 8; };
  std::vector<double> own(1 + words(static_cast<double>(bytes.size())));
  own[0] = static_cast<double>(bytes.size());
  std::copy(bytes.begin(), bytes.end(), reinterpret_cast<char*>(own.data() + 1));
  const auto all = blocks.all_gather(own);
  std::size_t first = 0;
  for (int block = 0; block < from; ++block) first += 1 + words(all[first]);
  const auto* const data = reinterpret_cast<const char*>(all.data() + first + 1);
  return {data, data + static_cast<std::size_t>(all[first])};
}

void Communicator::in_blocks(const std::vector<int>& blocks,
                             const std::function<void(const Communicator&)>& work) const {
  if (is_of_blocks() || runs_in_block()) throw InternalError("blocks within blocks");
  Blocks(*this, first_blocks(blocks, size()), [&](BlockCalls& calls, int block) {
    work(of_block(calls, block));
  }).run();
}

void Communicator::in_blocks(int blocks, const std::function<void(const Communicator&)>& work) const {
  if (blocks < 1) refuse("blocks is " + std::to_string(blocks) + ": it needs at least one");
  std::vector<int> of_rank;
  for (int rank = 0; rank < size(); ++rank) of_rank.push_back(blocks / size() + (rank < blocks % size() ? 1 : 0));
  in_blocks(of_rank, work);
}

}  // namespace attnreg
