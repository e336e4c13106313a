#include "app/options/parsed_json.hpp"

#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;

/// Ends the reading where there are more levels than are allowed.
class Levels final : public nlohmann::json_sax<ordered_json> {
 public:
  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool key(string_t&) override { return true; }
  bool start_object(std::size_t) override { return begin(); }
  bool start_array(std::size_t) override { return begin(); }
  bool end_object() override { return end(); }
  bool end_array() override { return end(); }
  bool parse_error(std::size_t, const std::string&, const nlohmann::detail::exception&) override { return false; }

 private:
  static constexpr int kMost = 64;
  bool begin() { return ++depth_ <= kMost; }
  bool end() { return --depth_ >= 0; }
  int depth_ = 0;
};

bool is_sound(std::string_view bytes, ordered_json::input_format_t format) {
  Levels levels;
  return ordered_json::sax_parse(bytes, &levels, format);
}

}  // namespace

ordered_json parsed_json(std::string_view text) {
  const bool sound = is_sound(text, ordered_json::input_format_t::json);
  return sound ? ordered_json::parse(text) : ordered_json(ordered_json::value_t::discarded);
}

ordered_json parsed_json(std::istream& file) {
  return parsed_json(std::string(std::istreambuf_iterator<char>(file), {}));
}

ordered_json parsed_cbor(std::string_view bytes) {
  const bool sound = is_sound(bytes, ordered_json::input_format_t::cbor);
  return sound ? ordered_json::from_cbor(bytes) : ordered_json(ordered_json::value_t::discarded);
}

}  // namespace attnreg::app
