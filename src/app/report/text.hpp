#pragma once

#include <cstddef>
#include <cstdint>
#include <ctime>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "attnreg/row_storage.hpp"

namespace attnreg::app {

/// 17 significant digits, "1.6421832100000000e-03": read back, the same bits. Independent of the locale.
std::string exact(double value);
/// `digits` significant digits in exponent form, for people.
std::string scientific(double value, int digits);
/// `decimals` digits behind the point, for people.
std::string fixed(double value, int decimals);

/// `digits` significant digits, with an exponent only where that is shorter, for people.
std::string plain(double value, int digits);
/// "1 rank", "2 ranks".
std::string counted(std::int64_t count, const std::string& noun);

/// A text filled up with blanks to `width`, at least one: a column of a table.
std::string padded(std::string text, std::size_t width);

/// One labelled line of a summary.
std::string summary_line(std::string label, const std::string& text);

/// Local. Columns of a page: the variable COLUMNS, else those of the terminal that stdout is, else 80.
std::size_t page_width();
/// A page whose lines are at most `width` columns wide: what is longer goes on below the text behind its label, or
/// where there is none `hanging` columns in. Words that are wider stay whole.
std::string to_width(std::string_view page, std::size_t width = page_width(), std::size_t hanging = 2);

/// "float32".
std::string storage_name(Storage storage);

/// "2024-06-07T12:00:00Z".
inline constexpr const char* kUtcFormat = "%Y-%m-%dT%H:%M:%SZ";  ///< of strftime
std::string utc_time(std::time_t time);

/// Indented JSON with a newline at the end. NaN and infinities become null, bytes that are not UTF-8 U+FFFD.
std::string json_text(const nlohmann::ordered_json& json);

/// What the program was built from.
nlohmann::ordered_json build_facts();

/// The page of --version. `mpi_library`: what MPI says of itself at run time.
std::string version_text(const std::string& mpi_library);

}  // namespace attnreg::app
