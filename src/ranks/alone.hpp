#pragma once

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Local. This rank by itself: collectives are local, and counted apart. What `ask_to_stop` asks of `other` ends what
/// runs there, too.
Communicator alone(const Communicator& other);

}  // namespace attnreg
