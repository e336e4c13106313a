#include "files/text_reader.hpp"

#include <zlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <utility>

#include "ranks/stop.hpp"

namespace attnreg {
namespace {

constexpr std::size_t text_block = std::size_t{1} << 20, first_block = std::size_t{1} << 16;

}  // namespace

/// The state of zlib, and the bytes of the file that it has not taken yet.
struct TextReader::Inflater {
  z_stream stream{};
  std::string input;
  std::int64_t grown = 0;  ///< bytes of text so far
  bool between = true;     ///< two members of the file

  explicit Inflater(std::int64_t file_bytes) : input(std::min(text_block, static_cast<std::size_t>(file_bytes)), '\0') {
    if (inflateInit2(&stream, 15 + 16) != Z_OK) throw std::bad_alloc();
  }
  ~Inflater() { inflateEnd(&stream); }
  Inflater(const Inflater&) = delete;
  Inflater& operator=(const Inflater&) = delete;
};

TextReader::TextReader(const std::string& path)
    : path_(path), file_(path, "a text file"), bytes_(file_.bytes()), modified_ns_(file_.modified_ns()) {
  char start[2] = {};
  if (bytes_ >= 2) file_.read(0, start, 2);
  if (start[0] == '\x1f' && start[1] == '\x8b') inflater_ = std::make_unique<Inflater>(bytes_);
}

TextReader::~TextReader() = default;

void TextReader::restart() {
  buffer_.clear();
  begin_ = 0;
  position_ = read_ = 0;
  if (inflater_) inflater_ = std::make_unique<Inflater>(bytes_);
}

void TextReader::seek(std::int64_t position) {
  const auto left = static_cast<std::int64_t>(buffer_.size() - begin_);
  if (position >= position_ && position <= position_ + left) {
    begin_ += static_cast<std::size_t>(position - position_);
    position_ = position;
    return;
  }
  if (!inflater_) {
    restart();
    position_ = read_ = std::min(position, bytes_);
    return;
  }
  if (position < position_) restart();
  while (position_ < position) {
    if (begin_ == buffer_.size() && !fill()) return;
    const auto step = std::min(buffer_.size() - begin_, static_cast<std::size_t>(position - position_));
    begin_ += step;
    position_ += static_cast<std::int64_t>(step);
  }
}

bool TextReader::fill() {
  throw_if_stopped();
  buffer_.erase(0, std::exchange(begin_, 0));
  const std::size_t kept = buffer_.size();
  if (inflater_) return inflate_more(kept);
  const auto size = static_cast<std::size_t>(std::min(static_cast<std::int64_t>(text_block), bytes_ - read_));
  if (size == 0) return false;
  buffer_.resize(kept + size);
  file_.read(read_, buffer_.data() + kept, static_cast<std::int64_t>(size));
  read_ += static_cast<std::int64_t>(size);
  return true;
}

bool TextReader::inflate_more(std::size_t kept) {
  Inflater& state = *inflater_;
  z_stream& stream = state.stream;
  // A block as large as all before it, so that a short text does not cost a long one's memory.
  const std::size_t block = std::clamp(static_cast<std::size_t>(state.grown), first_block, text_block);
  buffer_.resize(kept + block);
  stream.next_out = reinterpret_cast<Bytef*>(buffer_.data() + kept);
  stream.avail_out = static_cast<uInt>(block);
  while (stream.avail_out > 0) {
    if (stream.avail_in == 0) {
      const std::int64_t size = std::min(std::ssize(state.input), bytes_ - read_);
      if (size == 0 && state.between) break;
      if (size == 0)
        refuse_file(path_, "truncated: the compressed text goes on at byte " + std::to_string(read_) +
                               ", where the file ends; copy the file again");
      file_.read(read_, state.input.data(), size);
      read_ += size;
      stream.next_in = reinterpret_cast<Bytef*>(state.input.data());
      stream.avail_in = static_cast<uInt>(size);
    }
    if (std::exchange(state.between, false)) inflateReset(&stream);  // several members are one text
    const int code = ::inflate(&stream, Z_NO_FLUSH);
    if (code == Z_STREAM_END) state.between = true;
    if (code == Z_MEM_ERROR) throw std::bad_alloc();
    if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
      refuse_file(path_, "damaged before byte " + std::to_string(read_ - stream.avail_in) + " of the compressed text" +
                             (stream.msg != nullptr ? std::string(" (") + stream.msg + ")" : "") +
                             "; copy the file again");
  }
  const std::size_t got = block - stream.avail_out;
  buffer_.resize(kept + got);
  state.grown += static_cast<std::int64_t>(got);
  require_honest_growth(path_, bytes_, state.grown);
  return got > 0;
}

bool TextReader::next(std::string_view& line) {
  std::size_t searched = begin_;
  while (true) {
    const void* const found =
        searched < buffer_.size() ? std::memchr(buffer_.data() + searched, '\n', buffer_.size() - searched) : nullptr;
    std::size_t end = buffer_.size();
    if (found != nullptr) end = static_cast<std::size_t>(static_cast<const char*>(found) - buffer_.data());
    if (found == nullptr) {
      searched = buffer_.size() - begin_;
      if (fill()) continue;
      end = buffer_.size();  // `begin_` is 0 now
      if (end == 0) return false;
    }
    line = std::string_view(buffer_).substr(begin_, end - begin_);
    const std::size_t after = found != nullptr ? end + 1 : end;
    position_ += static_cast<std::int64_t>(after - begin_);
    begin_ = after;
    if (line.ends_with('\r')) line.remove_suffix(1);
    return true;
  }
}

bool parse_number(std::string_view text, double& value) {
  if (text.starts_with('+') && text.size() > 1 && text[1] != '-') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size();
}

}  // namespace attnreg
