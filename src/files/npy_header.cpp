#include "files/npy_header.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <functional>
#include <limits>
#include <numeric>
#include <utility>

#include "errors/printable.hpp"
#include "files/input_file.hpp"

namespace attnreg {
namespace {

constexpr std::size_t most_extents = 64;  // NumPy's own limit
constexpr const char* save_again = "; the file is damaged: save the array again with numpy.save";

/// Throws: the elements are no numbers.
[[noreturn]] void refuse_type(const ArrayHeader& header) {
  const std::string found = "found dtype " + printable(header.dtype, 40);
  if (header.element.kind == 'c')
    refuse_file(header.path, found +
                                 ", complex numbers, expected real ones; save both parts with "
                                 "numpy.concatenate([a.real, a.imag], axis=-1), or one: numpy.asarray(a, "
                                 "dtype='<f8') keeps the real part");
  refuse_file(header.path, found +
                               ", expected floating-point numbers of 2, 4 or 8 bytes, bfloat16, integers or bool; "
                               "convert with numpy.asarray(a, dtype='<f8')");
}

/// A strict reader of the Python dictionary in the header. No recursion: a nested value is an error at once.
class DictionaryParser {
 public:
  DictionaryParser(std::string_view text, ArrayHeader& header) : text_(text), header_(header) {}

  void parse() {
    expect('{');
    while (!accept('}')) {
      parse_entry();
      if (accept('}')) break;
      expect(',');
    }
    skip_space();
    if (position_ != text_.size()) unexpected("the end of the header");
    for (std::size_t k = 0; k < keys.size(); ++k)
      if (!seen_[k]) refuse("the header has no key '" + std::string(keys[k]) + "'" + save_again);
  }

 private:
  void parse_entry() {
    const std::string_view key = parse_string("a key in quotes");
    const auto k = static_cast<std::size_t>(std::ranges::find(keys, key) - keys.begin());
    if (k == keys.size())
      refuse("the header has the unknown key '" + printable(key, 40) +
             "'; expected descr, fortran_order and shape; save the array again with numpy.save");
    if (std::exchange(seen_[k], true))
      refuse("the header has the key '" + std::string(key) + "' twice; the file is damaged");
    expect(':');
    if (k == 0) parse_descr();
    if (k == 1) parse_order();
    if (k == 2) parse_shape();
  }

  void parse_descr() {
    if (peek() == '[')
      refuse(
          "found a structured dtype, expected numbers; save one field with "
          "numpy.asarray(a['field'], dtype='<f8')");
    header_.dtype = parse_string("a dtype in quotes");
    std::string_view type = header_.dtype;
    char order = '=';
    if (!type.empty() && std::string_view("<>=|").find(type.front()) != std::string_view::npos) {
      order = type.front();
      type.remove_prefix(1);
    }
    if (!parse_type(type) || (order == '|' && header_.element.bytes != 1 && !is_of("SV"))) refuse_type(header_);
    header_.element.big_endian = order == '>' || (order == '=' && std::endian::native == std::endian::big);
  }

  bool is_of(std::string_view kinds) const { return kinds.find(header_.element.kind) != std::string_view::npos; }

  /// A letter and the bytes of an element; characters of 'U' have four.
  bool parse_type(std::string_view type) {
    if (type.size() < 2) return false;
    header_.element.kind = type.front();
    std::int64_t size = 0;
    const auto [end, error] = std::from_chars(type.data() + 1, type.data() + type.size(), size);
    if (error != std::errc{} || end != type.data() + type.size() || size < 0 || size > npy_header_limit) return false;
    if (size == 0 && !is_of("SUV")) return false;
    header_.element.bytes = is_of("U") ? 4 * size : size;
    return true;
  }

  void parse_order() {
    skip_space();
    const std::string_view rest = text_.substr(position_);
    header_.fortran_order = rest.starts_with("True");
    if (!header_.fortran_order && !rest.starts_with("False")) unexpected("True or False");
    position_ += header_.fortran_order ? 4 : 5;
  }

  void parse_shape() {
    expect('(');
    bool comma = true;
    while (!accept(')')) {
      if (!comma) unexpected("',' or ')'");
      header_.shape.push_back(parse_extent());
      if (header_.shape.size() > most_extents) refuse("the shape has more than 64 extents");
      comma = accept(',');
    }
    if (header_.shape.size() == 1 && !comma) refuse("the shape is a number, not a tuple; expected (n,) or (n, d)");
  }

  std::int64_t parse_extent() {
    if (peek() == '-') refuse("the shape has a negative extent; the file is damaged");
    if (peek() < '0' || peek() > '9') unexpected("an extent of the shape");
    const char* const first = text_.data() + position_;
    std::int64_t extent = 0;
    const auto [last, error] = std::from_chars(first, text_.data() + text_.size(), extent);
    if (error != std::errc{}) refuse("the shape has an extent above 2^63; the file is damaged");
    if (*first == '0' && last - first > 1) unexpected("an extent without leading zeros");
    position_ += static_cast<std::size_t>(last - first);
    if (position_ < text_.size() && text_[position_] == 'L') ++position_;  // Python 2 wrote long integers as 3L
    return extent;
  }

  std::string_view parse_string(const char* expected) {
    const char quote = peek();
    if (quote != '\'' && quote != '"') unexpected(expected);
    const std::size_t first = position_ + 1;
    const std::size_t last = text_.find_first_of("'\"\\\n", first);
    if (last == std::string_view::npos || text_[last] != quote) unexpected("a string without escapes");
    position_ = last + 1;
    return text_.substr(first, last - first);
  }

  void skip_space() {
    while (position_ < text_.size() && std::string_view(" \t\n\r\f").find(text_[position_]) != std::string_view::npos)
      ++position_;
  }

  char peek() {
    skip_space();
    return position_ < text_.size() ? text_[position_] : '\0';
  }

  bool accept(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }

  void expect(char c) {
    if (!accept(c)) unexpected(std::string("'") + c + "'");
  }

  [[noreturn]] void refuse(const std::string& problem) const { refuse_file(header_.path, problem); }

  [[noreturn]] void unexpected(const std::string& expected) const {
    const std::string found = position_ < text_.size() ? "'" + printable(text_.substr(position_, 1)) + "'" : "the end";
    refuse("byte " + std::to_string(position_) + " of the header's text: found " + found + ", expected " + expected +
           save_again);
  }

  static constexpr std::array<std::string_view, 3> keys{"descr", "fortran_order", "shape"};

  std::string_view text_;
  ArrayHeader& header_;
  std::size_t position_ = 0;
  std::array<bool, keys.size()> seen_{};
};

void check_magic(std::string_view bytes, const std::string& path) {
  if (bytes.empty()) refuse_file(path, "the file is empty; expected a .npy file");
  const std::string_view start = bytes.substr(0, npy_magic.size());
  if (start == npy_magic.substr(0, start.size())) return;
  if (start.starts_with("PK")) refuse_file(path, "this is a .npz or .zip archive; extract the .npy file in it first");
  if (start.starts_with("\x1f\x8b")) refuse_file(path, "the file is compressed by gzip; decompress it first");
  if (start.starts_with("\x89HDF"))
    refuse_file(path, "this is an HDF5 file, expected a .npy file; numpy.save('A.npy', h5py.File(...)['A'][...])");
  refuse_file(path, "not a .npy file: found '" + printable(start) +
                        "' at the start, expected '\\x93NUMPY'; save the array with numpy.save");
}

/// Reads version and header length; returns the text of the header.
std::string_view header_text(std::string_view bytes, ArrayHeader& header) {
  const auto byte = [&](std::size_t i) { return std::int64_t{static_cast<unsigned char>(bytes[i])}; };
  const auto need = [&](std::int64_t wanted) {
    if (static_cast<std::int64_t>(bytes.size()) >= wanted) return;
    refuse_file(header.path, "truncated header: found " + std::to_string(header.file_bytes) +
                                 " bytes, expected at least " + std::to_string(wanted) + "; copy the file again");
  };
  need(10);
  header.version_major = static_cast<int>(byte(6));
  if (header.version_major < 1 || header.version_major > 3 || byte(7) != 0)
    refuse_file(header.path, "found .npy format version " + std::to_string(byte(6)) + "." + std::to_string(byte(7)) +
                                 ", expected 1.0, 2.0 or 3.0");
  const std::int64_t prefix = header.version_major == 1 ? 10 : 12;
  need(prefix);
  std::int64_t length = 0;
  for (auto i = static_cast<std::size_t>(prefix); i-- > 8;) length = length * 256 + byte(i);
  if (length > npy_header_limit)
    refuse_file(header.path, "the header is said to have " + std::to_string(length) + " bytes, expected at most " +
                                 std::to_string(npy_header_limit) + "; the file is damaged");
  header.data_offset = prefix + length;
  need(header.data_offset);
  return bytes.substr(static_cast<std::size_t>(prefix), static_cast<std::size_t>(length));
}

void check_size(const ArrayHeader& header) {
  std::int64_t expected = array_bytes(header);
  if (header.elements() == 0 || header.element.bytes == 0) expected = 0;
  expected += header.data_offset;
  if (header.file_bytes == expected) return;
  const bool truncated = header.file_bytes < expected;
  const std::int64_t difference = truncated ? expected - header.file_bytes : header.file_bytes - expected;
  refuse_file(header.path, "found " + std::to_string(header.file_bytes) + " bytes, expected " +
                               std::to_string(expected) + " for shape " + header.shape_text() + " of " +
                               printable(header.dtype, 40) + (truncated ? ": truncated, the last " : ": ") +
                               std::to_string(difference) + (truncated ? " bytes are missing" : " trailing bytes") +
                               "; copy or write the file again");
}

}  // namespace

std::string npy_dtype(Storage type) { return "<f" + std::to_string(item_bytes(type)); }

Storage held_as(StorageChoice choice, Storage type) {
  switch (choice) {
    case StorageChoice::as_file: return type;
    case StorageChoice::float64: return Storage::float64;
    case StorageChoice::float32: return Storage::float32;
    case StorageChoice::float16: return Storage::float16;
    case StorageChoice::bfloat16: return Storage::bfloat16;
  }
  throw InternalError("unknown choice of storage");
}

Storage held_as_float(StorageChoice choice, Storage type) {
  return held_as(choice, type) == Storage::float64 ? Storage::float64 : Storage::float32;
}

std::int64_t ArrayHeader::elements() const {
  if (std::ranges::find(shape, 0) != shape.end()) return 0;  // whatever the others, whose product may overflow
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}

std::string ArrayHeader::shape_text() const { return attnreg::shape_text(shape); }

std::string shape_text(const std::vector<std::int64_t>& shape) {
  std::string text = "(";
  for (std::size_t k = 0; k < shape.size(); ++k) text += (k == 0 ? "" : ", ") + std::to_string(shape[k]);
  return text + (shape.size() == 1 ? ",)" : ")");
}

std::int64_t array_bytes(const ArrayHeader& header) {
  constexpr std::int64_t largest = std::numeric_limits<std::int64_t>::max();
  std::int64_t bytes = std::max<std::int64_t>(header.element.bytes, 1);  // the elements of no bytes are counted too
  bool fits = true;
  for (const std::int64_t extent : header.shape)
    fits = fits && !__builtin_mul_overflow(bytes, extent == 0 ? 1 : extent, &bytes);
  if (!fits || bytes > largest - header.data_offset)
    refuse_file(header.path, "shape " + header.shape_text() + " needs more than 2^63 bytes; the file is damaged");
  return bytes;
}

void require_numbers(const ArrayHeader& header) {
  if (!header.element.is_number()) refuse_type(header);
}

namespace {

ArrayHeader parse_npy(std::string_view bytes, std::int64_t file_bytes, const std::string& path) {
  ArrayHeader header;
  header.path = path;
  header.file_bytes = file_bytes;
  check_magic(bytes, path);
  DictionaryParser(header_text(bytes, header), header).parse();
  return header;
}

}  // namespace

ArrayHeader parse_npy_array(std::string_view bytes, std::int64_t file_bytes, const std::string& path) {
  ArrayHeader header = parse_npy(bytes, file_bytes, path);
  check_size(header);
  return header;
}

ArrayHeader parse_npy_header(std::string_view bytes, std::int64_t file_bytes, const std::string& path) {
  ArrayHeader header = parse_npy(bytes, file_bytes, path);
  require_numbers(header);
  check_size(header);
  return header;
}

ArrayHeader parse_npy_start(std::string_view bytes, const std::string& path) {
  ArrayHeader header = parse_npy(bytes, std::ssize(bytes), path);
  require_numbers(header);
  const std::int64_t data = array_bytes(header);
  header.file_bytes = header.data_offset + (header.elements() == 0 ? 0 : data);
  return header;
}

std::int64_t npy_data_offset(std::string_view bytes) {
  if (std::ssize(bytes) < npy_prefix_limit || !bytes.starts_with(npy_magic)) return 0;
  std::int64_t length = 0;
  const std::size_t prefix = bytes[6] == 1 ? 10 : 12;
  for (std::size_t i = prefix; i-- > 8;) length = length * 256 + static_cast<unsigned char>(bytes[i]);
  return static_cast<std::int64_t>(prefix) + length;
}

std::string npy_header_bytes(std::string_view dtype, const std::vector<std::int64_t>& shape, bool fortran_order) {
  std::string text = "{'descr': '" + std::string(dtype) + "', 'fortran_order': " + (fortran_order ? "True" : "False") +
                     ", 'shape': " + shape_text(shape) + ", }";
  text.append(63 - (10 + text.size()) % 64, ' ');  // with the newline the data start at a multiple of 64
  text += '\n';
  std::string bytes(npy_magic);
  bytes += {'\x01', '\x00', static_cast<char>(text.size() & 0xff), static_cast<char>(text.size() >> 8)};
  return bytes + text;
}

}  // namespace attnreg
