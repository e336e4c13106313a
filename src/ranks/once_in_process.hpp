#pragma once

#include <memory>
#include <utility>

#include "attnreg/communicator.hpp"
#include "ranks/block_calls.hpp"

namespace attnreg {

/// Collective, without a message where all ranks have blocks, and not counted. What `make` makes of replicated values, a shared pointer: the
/// blocks of a process have it made once, and share it. `make` may not contain collectives.
template <class Make>
auto once_in_process(const Communicator& communicator, Make&& make) {
  using Pointer = decltype(make());
  using Made = typename Pointer::element_type;
  Pointer made = communicator.leads_process() ? make() : Pointer();
  if (communicator.is_of_blocks())
    made = std::const_pointer_cast<Made>(
        std::static_pointer_cast<const Made>(of_first_block(communicator, std::move(made))));
  return made;
}

}  // namespace attnreg
