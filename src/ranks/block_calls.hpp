#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

namespace attnreg {

class Communicator;

/// Parts of a pass over the rows of a block, which threads share: their number is part of the order of its sums.
inline constexpr int most_parts_of_block = 4;

/// Local. Whether this thread runs a block, whose passes are cut into `most_parts_of_block` at most.
bool runs_in_block() noexcept;

/// What a block asks for together with all others. Equal on all blocks, but for the data and the lengths of what is
/// gathered.
struct BlockCall {
  enum class Kind {
    sum,  // of doubles
    sum_to_root,
    max,
    integer_sum,
    integer_max,
    integer_min,
    broadcast,
    all_gather,      // of an integer
    gather_to_root,  // of doubles
    barrier,
    share,  // what the first block of a process has
    end,    // no more calls
    failure
  };
  Kind kind;
  int root = 0;                                       ///< block
  std::span<double> doubles{};                        ///< in place, or what is gathered
  std::int64_t* integer = nullptr;                    ///< in place, or what is gathered
  std::span<char> bytes{};                            ///< of a broadcast
  std::vector<std::int64_t>* all_integers = nullptr;  ///< gathered
  std::vector<double>* all_doubles = nullptr;         ///< likewise, on block 0
  std::shared_ptr<const void>* shared = nullptr;      ///< replaced

  std::size_t count() const { return kind == Kind::broadcast ? bytes.size() : doubles.size(); }
};

/// Collective. The bytes of block `from`; `shift` on blocks, by an all-gather.
std::vector<char> shifted_by_gathering(const Communicator& blocks, std::span<const char> bytes, int from);

/// Collective over blocks, without a message where all ranks have some. What the first block of each process gives, on
/// all of its blocks.
std::shared_ptr<const void> of_first_block(const Communicator& block, std::shared_ptr<const void> object);

/// The blocks of this process and their like in the others, as the communicator of a block sees them.
class BlockCalls {
 public:
  virtual ~BlockCalls() = default;
  /// Collective over the blocks, on a block's stack: returns when the call has been made.
  virtual void meet(int block, BlockCall call) = 0;

  struct Facts {
    int blocks = 0, blocks_on_node = 0;
    int processes = 0, processes_on_node = 0;  ///< on the node those that have blocks
    int first_block = 0;                       ///< of this process
  };
  const Facts& facts() const { return facts_; }

 protected:
  Facts facts_;
};

}  // namespace attnreg
