#pragma once

#include <istream>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace attnreg::app {

// Local. What a file says that others may have written, JSON or CBOR; `is_discarded()` if it is none, or has more than
// 64 levels of objects and lists: the library's reader of CBOR, its copies and texts call themselves for each level.
nlohmann::ordered_json parsed_json(std::string_view text);
nlohmann::ordered_json parsed_json(std::istream& file);  ///< All of it; one that is not open says nothing.
nlohmann::ordered_json parsed_cbor(std::string_view bytes);

}  // namespace attnreg::app
