#pragma once

#include "attnreg/communicator.hpp"

namespace attnreg {

/// Local. This rank by itself: collectives are local, and counted apart.
Communicator alone();

}  // namespace attnreg
