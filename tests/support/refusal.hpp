#pragma once

#include <string>

#include "attnreg/error.hpp"

namespace attnreg {

/// The message with which all ranks together refuse the call.
template <class Call>
std::string refusal(Call&& call) {
  try {
    call();
  } catch (const InvalidArgument& error) {
    return error.scope() == Error::Scope::all_ranks ? error.what() : "on this rank only";
  }
  return "nothing thrown";
}

}  // namespace attnreg
