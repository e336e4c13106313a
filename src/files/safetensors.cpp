#include "files/safetensors.hpp"

#include <algorithm>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "errors/printable.hpp"
#include "files/npz_archive.hpp"

namespace attnreg {
namespace {

constexpr std::int64_t prefix_bytes = 8;

/// Of the JSON text behind the prefix, as the file says; nothing for a shorter file.
std::optional<std::uint64_t> header_bytes(const InputFile& file) {
  if (file.bytes() < prefix_bytes) return std::nullopt;
  unsigned char bytes[prefix_bytes];
  file.read(0, bytes, prefix_bytes);
  std::uint64_t length = 0;
  for (std::int64_t k = prefix_bytes; k-- > 0;) length = length << 8 | bytes[k];
  return length;
}

struct Tensor {
  std::string name, dtype;
  std::vector<std::int64_t> shape, offsets;
  bool has_shape = false;
};

/// Takes the tensors from the events of a JSON parser, which has no recursion. Anything of another form throws.
class TensorList {
 public:
  explicit TensorList(const std::string& path) : path_(path) {}

  std::vector<Tensor> tensors;

  bool key(std::string& name) {
    if (depth_ == 1) {
      if (!names_.insert(name).second) refuse("the name '" + printable(name, 80) + "' is there twice");
      is_metadata_ = name == "__metadata__";
      name_ = name;
    } else {
      field_ = name;
      if (!is_metadata_ && name != "dtype" && name != "shape" && name != "data_offsets")
        refuse(of_tensor() + " has the unknown key '" + printable(name, 40) + "'");
    }
    return true;
  }
  bool start_object(std::size_t) {
    if (in_list_ || depth_ > 1) unexpected("an object");
    if (++depth_ == 2 && !is_metadata_) tensors.push_back({name_, {}, {}, {}, false});
    return true;
  }
  bool end_object() {
    if (depth_-- == 2 && !is_metadata_) {
      const Tensor& last = tensors.back();
      if (last.dtype.empty() || !last.has_shape || last.offsets.size() != 2)
        refuse(of_tensor() + " has no dtype, no shape, or no two data_offsets");
    }
    return true;
  }
  bool start_array(std::size_t) {
    if (depth_ != 2 || is_metadata_ || in_list_ || field_ == "dtype") unexpected("a list");
    in_list_ = true;
    if (field_ == "shape" && std::exchange(tensors.back().has_shape, true)) refuse(of_tensor() + " has two shapes");
    if (field_ == "data_offsets" && !tensors.back().offsets.empty()) refuse(of_tensor() + " has two data_offsets");
    return true;
  }
  bool end_array() {
    in_list_ = false;
    return true;
  }
  bool number_unsigned(std::uint64_t number) {
    if (!in_list_) unexpected("a number");
    if (number > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()))
      refuse(of_tensor() + " has a number above 2^63 in its " + field_);
    auto& list = field_ == "shape" ? tensors.back().shape : tensors.back().offsets;
    if (list.size() == 64) refuse(of_tensor() + " has more than 64 numbers in its " + field_);
    list.push_back(static_cast<std::int64_t>(number));
    return true;
  }
  bool string(std::string& text) {
    if (depth_ == 2 && is_metadata_) return true;
    if (depth_ != 2 || in_list_ || field_ != "dtype" || !tensors.back().dtype.empty()) unexpected("a text");
    tensors.back().dtype = text;
    return true;
  }
  bool null() { return unexpected("null"); }
  bool boolean(bool) { return unexpected("a truth value"); }
  bool number_integer(std::int64_t) { return unexpected("a negative number"); }
  bool number_float(double, const std::string&) { return unexpected("a number that is no integer"); }
  bool binary(nlohmann::json::binary_t&) { return unexpected("binary data"); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::json::exception&) {
    refuse("byte " + std::to_string(position) + " of the header's text is not JSON");
  }

 private:
  std::string of_tensor() const { return "tensor '" + printable(name_, 80) + "'"; }
  [[noreturn]] void refuse(const std::string& problem) const { refuse_file(path_, problem + "; the file is damaged"); }
  bool unexpected(const char* what) const {
    refuse("the header has " + std::string(what) + " where it should not" +
           (name_.empty() ? "" : ", at " + of_tensor()));
  }

  const std::string& path_;
  int depth_ = 0;
  bool is_metadata_ = false, in_list_ = false;
  std::string name_, field_;
  std::set<std::string> names_;
};

std::optional<ElementType> element_of(std::string_view dtype) {
  constexpr std::pair<std::string_view, ElementType> types[] = {
      {"F64", {'f', 8}}, {"F32", {'f', 4}}, {"F16", {'f', 2}}, {"BF16", {'V', 2}}, {"I64", {'i', 8}},
      {"I32", {'i', 4}}, {"I16", {'i', 2}}, {"I8", {'i', 1}},  {"U64", {'u', 8}},  {"U32", {'u', 4}},
      {"U16", {'u', 2}}, {"U8", {'u', 1}},  {"BOOL", {'b', 1}}};
  for (const auto& [name, element] : types)
    if (name == dtype) return element;
  return std::nullopt;
}

ArrayHeader header_of(const std::string& path, const Tensor& tensor, std::int64_t file_bytes) {
  ArrayHeader header;
  header.path = path;
  header.dtype = tensor.dtype;
  header.shape = tensor.shape;
  header.data_offset = tensor.offsets[0];
  header.file_bytes = file_bytes;
  const auto element = element_of(tensor.dtype);
  if (!element)
    refuse_file(path, "tensor '" + printable(tensor.name, 80) + "' is of type " + printable(tensor.dtype, 40) +
                          ", expected F16, BF16, F32, F64, integers or BOOL; save it with tensor.to(torch.float32)");
  header.element = *element;
  return header;
}

/// The tensors lie one behind another, and all bytes are theirs.
void check_places(const std::string& path, std::vector<Tensor> tensors, std::int64_t data_bytes) {
  std::ranges::sort(tensors, {}, [](const Tensor& tensor) { return std::pair(tensor.offsets[0], tensor.offsets[1]); });
  std::int64_t end = 0;
  const auto refuse_places = [&](const Tensor& tensor, const std::string& expected) {
    refuse_file(path, "tensor '" + printable(tensor.name, 80) + "' has data_offsets [" +
                          std::to_string(tensor.offsets[0]) + ", " + std::to_string(tensor.offsets[1]) +
                          "], expected " + expected + "; the file is damaged");
  };
  for (const auto& tensor : tensors) {
    if (tensor.offsets[0] != end || tensor.offsets[1] < end || tensor.offsets[1] > data_bytes)
      refuse_places(tensor, "to begin at " + std::to_string(end) + " and to end within the " +
                                std::to_string(data_bytes) + " bytes of data");
    end = tensor.offsets[1];
    if (!element_of(tensor.dtype)) continue;
    const ArrayHeader header = header_of(path, tensor, 0);
    const std::int64_t all = array_bytes(header), expected = header.elements() == 0 ? 0 : all;
    if (end - tensor.offsets[0] != expected)
      refuse_places(tensor,
                    std::to_string(expected) + " bytes for shape " + header.shape_text() + " of " + tensor.dtype);
  }
  if (end != data_bytes)
    refuse_file(path, "found " + std::to_string(data_bytes) + " bytes of data, expected " + std::to_string(end) +
                          ", which the tensors have; copy or write the file again");
}

const Tensor& find_tensor(const std::string& path, const std::vector<Tensor>& tensors, std::string& member) {
  if (member.empty() && tensors.size() == 1) member = tensors[0].name;
  const auto found = std::ranges::find(tensors, member, &Tensor::name);
  if (found != tensors.end()) return *found;
  constexpr std::size_t most = 20;
  std::vector<std::string> alike, names;  // those that have the name as a part come first
  for (const auto& tensor : tensors) {
    const bool is_alike = tensor.name.find(member) != std::string::npos;
    if (alike.size() < most && is_alike) alike.push_back(tensor.name);
    if (names.size() < most && !is_alike) names.push_back(tensor.name);
  }
  alike.insert(alike.end(), names.begin(), names.end());
  alike.resize(std::min(alike.size(), most));
  const std::string list = names_text(alike, std::ssize(tensors));
  if (member.empty())
    refuse_file(path, "a file of " + std::to_string(tensors.size()) + " tensors, expected the name of one, " +
                          printable(path) + ":NAME; " + list);
  refuse_file(path, "the file has no tensor '" + printable(member, 80) + "', " + list);
}

}  // namespace

bool is_safetensors(const InputFile& file, const std::string& name) {
  if (name.ends_with(".safetensors")) return true;
  const auto length = header_bytes(file);
  if (!length || *length < 2 || *length > static_cast<std::uint64_t>(file.bytes() - prefix_bytes)) return false;
  char start[2];
  file.read(prefix_bytes, start, 2);
  return start[0] == '{' && (start[1] == '"' || start[1] == '}');
}

ArrayHeader read_safetensors(const InputFile& file, const std::string& path, std::string& member) {
  const std::int64_t file_bytes = file.bytes(), most = std::min(safetensors_header_limit, file_bytes - prefix_bytes);
  const auto length = header_bytes(file);
  if (!length)
    refuse_file(path, "truncated header: found " + std::to_string(file_bytes) + " bytes, expected at least 8");
  if (*length < 2 || most < 2 || *length > static_cast<std::uint64_t>(most))
    refuse_file(path, "the header is said to have " + std::to_string(*length) + " bytes, expected 2 to " +
                          std::to_string(most) + " in a file of " + std::to_string(file_bytes) +
                          "; the file is damaged, or none of safetensors");
  const auto size = static_cast<std::int64_t>(*length);
  std::string text(static_cast<std::size_t>(size), '\0');
  file.read(prefix_bytes, text.data(), size);
  if (text[0] != '{') refuse_file(path, "the header begins with '" + printable(text.substr(0, 1)) + "', expected '{'");
  if (text.find('\0') != std::string::npos)  // which would end the text for the parser
    refuse_file(path,
                "byte " + std::to_string(text.find('\0')) + " of the header's text is not JSON; the file is damaged");
  TensorList list(path);
  nlohmann::json::sax_parse(text, &list);
  check_places(path, list.tensors, file_bytes - prefix_bytes - size);
  ArrayHeader header = header_of(path, find_tensor(path, list.tensors, member), file_bytes);
  header.data_offset += prefix_bytes + size;
  return header;
}

}  // namespace attnreg
