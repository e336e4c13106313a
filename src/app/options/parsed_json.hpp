#pragma once

#include <istream>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace attnreg::app {

/// Levels of objects and lists in files that others may have written. The libraries' copies, texts, destructors
/// and the reader of CBOR call themselves for each level, without end.
constexpr int kMostNested = 64;

// Local. What a file says, JSON or CBOR; `is_discarded()` if it is none, or nested deeper than `kMostNested`.
nlohmann::ordered_json parsed_json(std::string_view text);
nlohmann::ordered_json parsed_json(std::istream& file);  ///< All of it; one that is not open says nothing.
nlohmann::ordered_json parsed_cbor(std::string_view bytes);

}  // namespace attnreg::app
