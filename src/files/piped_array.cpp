#include "files/piped_array.hpp"

#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

#include "files/file_descriptor.hpp"
#include "files/input_file.hpp"
#include "ranks/activity.hpp"
#include "ranks/stop.hpp"

namespace attnreg {
namespace {

/// What this process knows of the standard input.
struct PipedArray {
  std::optional<ArrayHeader> header;
  bool is_read_here = false;
  std::int64_t position = 0;  ///< of the next byte, from the first element on

  static PipedArray& of_process() {
    static PipedArray array;
    return array;
  }
};

/// Up to `size` bytes, fewer at the end of the input only.
std::int64_t take(const std::string& path, char* out, std::int64_t size) {
  constexpr int milliseconds = 200;  // between two looks at a signal
  std::int64_t taken = 0;
  while (taken < size) {
    throw_if_stopped();
    pollfd waiting{STDIN_FILENO, POLLIN, 0};
    if (::poll(&waiting, 1, milliseconds) == 0) continue;
    const ssize_t got =
        retry_interrupted([&] { return ::read(STDIN_FILENO, out + taken, static_cast<std::size_t>(size - taken)); });
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) continue;
    if (got < 0) refuse_file(path, "cannot read the standard input: " + std::string(std::strerror(errno)));
    if (got == 0) break;
    InWork::add(got);
    taken += got;
  }
  return taken;
}

/// The bytes before the first element, or as many of them as there are.
std::string take_header(const std::string& path) {
  if (::isatty(STDIN_FILENO) == 1)
    refuse_file(path, "the standard input is a terminal, expected a .npy file from a pipe");
  std::string bytes(static_cast<std::size_t>(npy_prefix_limit), '\0');
  bytes.resize(static_cast<std::size_t>(take(path, bytes.data(), npy_prefix_limit)));
  const std::int64_t wanted = npy_data_offset(bytes), there = std::ssize(bytes);
  if (wanted <= there || wanted > npy_prefix_limit + npy_header_limit) return bytes;  // refused by the parser
  bytes.resize(static_cast<std::size_t>(wanted));
  bytes.resize(static_cast<std::size_t>(there + take(path, bytes.data() + there, wanted - there)));
  return bytes;
}

}  // namespace

void accept_piped_array(const Communicator& communicator) {
  PipedArray& array = PipedArray::of_process();
  const std::string path = "-";
  std::string start;
  communicator.agree_on_root([&] {
    start = take_header(path);
    parse_npy_start(start, path);
  });
  start = communicator.broadcast(std::move(start));
  communicator.agree([&] { array.header = parse_npy_start(start, path); });
  array.is_read_here = communicator.is_root();
}

ArrayHeader piped_header(const std::string& path) {
  const PipedArray& array = PipedArray::of_process();
  if (!array.header)
    refuse_file(path, "the standard input is read by commands that name it as -, expected a file here");
  return *array.header;
}

void PipedBytes::read(std::int64_t position, void* out, std::int64_t size) {
  constexpr std::int64_t skipped_at_once = 1 << 16;
  PipedArray& array = PipedArray::of_process();
  if (!array.is_read_here)
    refuse_file(path_, "a pipe is read by rank 0 alone, expected a file, which all ranks can read; write it to one");
  if (position < array.position)
    refuse_file(path_, "a pipe is read once, from its beginning to its end, and byte " + std::to_string(position) +
                           " of the array was asked for behind byte " + std::to_string(array.position) +
                           "; expected a file for this, write it to one");
  const std::int64_t all = array.header->file_bytes - array.header->data_offset;
  const auto need = [&](std::int64_t taken, std::int64_t wanted) {
    array.position += taken;
    if (taken < wanted)
      refuse_file(path_, "truncated: the input ended with byte " + std::to_string(array.position) + " of " +
                             std::to_string(all) + " of the array, of shape " + array.header->shape_text() + " and " +
                             array.header->dtype_text() + "; look at what writes it");
  };
  std::string between;
  while (array.position < position) {
    between.resize(static_cast<std::size_t>(std::min(skipped_at_once, position - array.position)));
    need(take(path_, between.data(), std::ssize(between)), std::ssize(between));
  }
  need(take(path_, static_cast<char*>(out), size), size);
  char surplus = 0;
  if (array.position == all && size > 0 && take(path_, &surplus, 1) > 0)
    refuse_file(path_, "the input goes on behind the " + std::to_string(all) + " bytes of the array, of shape " +
                           array.header->shape_text() + " and " + array.header->dtype_text() +
                           ", expected its end; pipe one array");
}

}  // namespace attnreg
