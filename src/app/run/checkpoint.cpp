#include "app/run/checkpoint.hpp"

#include <zlib.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <utility>

#include "app/options/options.hpp"
#include "app/options/parsed_json.hpp"
#include "errors/printable.hpp"
#include "files/directory_names.hpp"
#include "files/input_file.hpp"
#include "files/output_file.hpp"

namespace attnreg::app {

namespace {

using nlohmann::ordered_json;

constexpr std::string_view kFormat = "attnreg-checkpoint-1";
constexpr std::array kSlots{"0", "1"};

std::uint32_t checksum(std::string_view bytes) {
  uLong sum = crc32_z(0, nullptr, 0);
  sum = crc32_z(sum, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size());
  return static_cast<std::uint32_t>(sum);
}

ordered_json packed(const Eigen::VectorXd& vector) {
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(vector.size()) * sizeof(double));
  if (!bytes.empty()) std::memcpy(bytes.data(), vector.data(), bytes.size());
  return ordered_json::binary_t(std::move(bytes));
}

Eigen::VectorXd unpacked(const ordered_json& json) {
  const auto& bytes = json.get_binary();
  if (bytes.size() % sizeof(double) != 0) throw CheckpointError("a vector is cut off");
  Eigen::VectorXd vector(static_cast<Eigen::Index>(bytes.size() / sizeof(double)));
  if (!bytes.empty()) std::memcpy(vector.data(), bytes.data(), bytes.size());
  return vector;
}

ordered_json to_json(const Stage& stage) {
  auto vectors = ordered_json::array();
  for (const auto& vector : stage.vectors) vectors.push_back(packed(vector));
  return {{"name", stage.name},
          {"finished", stage.finished},
          {"numbers", packed(Eigen::Map<const Eigen::VectorXd>(stage.numbers.data(), std::ssize(stage.numbers)))},
          {"vectors", vectors},
          {"texts", stage.texts}};
}

Stage stage_in(const ordered_json& json) {
  const Eigen::VectorXd numbers = unpacked(json.at("numbers"));
  Stage stage{json.at("name"), json.at("finished"), {numbers.begin(), numbers.end()}, {}, {}};
  for (const auto& vector : json.at("vectors")) stage.vectors.push_back(unpacked(vector));
  json.at("texts").get_to(stage.texts);
  return stage;
}

std::string slot_path(const std::string& directory, const char* slot) { return directory + "/" + slot; }

/// The number that a word is, whole.
std::optional<std::uint64_t> number_of(std::string_view word, int base) {
  std::uint64_t number = 0;
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), number, base);
  if (word.empty() || error != std::errc() || end != word.data() + word.size()) return std::nullopt;
  return number;
}

void remove_file(const std::filesystem::path& path) {
  std::error_code ignored;
  std::filesystem::remove(path, ignored);
}

}  // namespace

bool Checkpoint::has_begun() const {
  return std::ranges::any_of(stages, [](const auto& part) { return !part.second.empty(); });
}

std::string to_bytes(const Checkpoint& checkpoint, std::uint64_t count) {
  auto stages = ordered_json::object();
  for (const auto& [part, list] : checkpoint.stages) {
    auto all = ordered_json::array();
    for (const auto& stage : list) all.push_back(to_json(stage));
    stages[part] = std::move(all);
  }
  std::string body;
  ordered_json::to_cbor({{"words", checkpoint.words},
                         {"directory", checkpoint.directory},
                         {"inputs", checkpoint.inputs},
                         {"stages", stages},
                         {"history_bytes", checkpoint.history_bytes},
                         {"written", checkpoint.written},
                         {"resumed", checkpoint.resumed}},
                        body);
  std::array<char, 9> sum{};
  std::snprintf(sum.data(), sum.size(), "%08x", checksum(body));
  return std::string(kFormat) + " " + std::to_string(count) + " " + std::to_string(body.size()) + " " + sum.data() +
         "\n" + body;
}

Checkpoint from_bytes(std::string_view bytes, std::uint64_t& count) {
  const auto end = bytes.substr(0, 128).find('\n');
  if (end == bytes.npos) throw CheckpointError("it does not begin as a checkpoint does");
  const auto words = parts_of(bytes.substr(0, end), ' ');
  const std::string_view body = bytes.substr(end + 1);
  if (!words[0].starts_with("attnreg-checkpoint-")) throw CheckpointError("it does not begin as a checkpoint does");
  if (words[0] != kFormat)
    throw CheckpointError("its format is " + printable(std::string(words[0])) + ", this program reads " +
                          std::string(kFormat) + ": it is of another version of attnreg");
  const auto number = words.size() == 4 ? number_of(words[1], 10) : std::nullopt;
  const auto size = words.size() == 4 ? number_of(words[2], 10) : std::nullopt;
  const auto sum = words.size() == 4 ? number_of(words[3], 16) : std::nullopt;
  if (!number || !size || !sum) throw CheckpointError("its first line is damaged");
  if (*size != body.size() || *sum != checksum(body)) throw CheckpointError("it is damaged: its checksum is wrong");
  try {
    const auto json = parsed_cbor(body);
    if (json.is_discarded()) throw CheckpointError("it is damaged: what it holds is no CBOR, or nested too deep");
    Checkpoint checkpoint{json.at("words"),         json.at("directory"), json.at("inputs"), {},
                          json.at("history_bytes"), json.at("written"),   json.at("resumed")};
    for (const auto& [part, list] : json.at("stages").items())
      for (const auto& stage : list) checkpoint.stages[part].push_back(stage_in(stage));
    if (checkpoint.words.empty()) throw CheckpointError("it has no command");
    count = *number;
    return checkpoint;
  } catch (const ordered_json::exception& error) {
    throw CheckpointError(std::string("it is damaged: ") + error.what());
  }
}

ordered_json identities(const std::vector<std::string>& paths) {
  constexpr std::int64_t kBlock = 1 << 16;
  ordered_json found = ordered_json::object();
  std::error_code ignored;
  for (const auto& path : paths) {
    if (found.contains(path) || !std::filesystem::is_regular_file(path, ignored)) continue;
    const attnreg::InputFile file(path, "a file");
    const std::int64_t bytes = file.bytes(), block = std::min(bytes, kBlock);
    std::string ends(static_cast<std::size_t>(2 * block), '\0');
    file.read(0, ends.data(), block);
    file.read(bytes - block, ends.data() + block, block);
    found[path] = {{"bytes", bytes}, {"modified_ns", file.modified_ns()}, {"checksum", checksum(ends)}};
  }
  return found;
}

namespace {

/// The newest whole checkpoint of two slots, and what is wrong with the others.
struct Newest {
  std::optional<Checkpoint> checkpoint;
  std::uint64_t count = 0;
  std::string problems;
};

Newest newest_in(const std::string& directory) {
  Newest newest;
  for (const char* const slot : kSlots) {
    const std::string path = slot_path(directory, slot);
    std::ifstream file(path, std::ios::binary);
    if (!file.is_open()) continue;
    const std::string bytes(std::istreambuf_iterator<char>(file), {});
    try {
      std::uint64_t count = 0;
      Checkpoint found = from_bytes(bytes, count);
      if (newest.checkpoint && count < newest.count) continue;
      newest.checkpoint = std::move(found);
      newest.count = count;
    } catch (const CheckpointError& error) {
      newest.problems += (newest.problems.empty() ? "" : "; ") + printable(path) + ": " + error.what();
    }
  }
  return newest;
}

}  // namespace

CheckpointSlots::CheckpointSlots(const std::string& run_directory, bool goes_on)
    : path_(run_directory + "/checkpoint") {
  create_directories(path_);
  std::error_code ignored;
  for (const std::string& name : names_in(path_, ignored)) {
    const bool is_slot = std::ranges::find(kSlots, name) != kSlots.end();
    const bool is_rest = name.starts_with("0.tmp.") || name.starts_with("1.tmp.");  // of a run that was killed
    if (is_rest || (is_slot && !goes_on)) remove_file(path_ + "/" + name);
  }
  if (goes_on) count_ = newest_in(path_).count;
}

void CheckpointSlots::write(const Checkpoint& checkpoint) {
  const std::uint64_t count = count_ + 1;
  write_file(slot_path(path_, kSlots.at(count % kSlots.size())), to_bytes(checkpoint, count));
  count_ = count;
}

void CheckpointSlots::remove() const {
  if (path_.empty()) return;
  for (const char* const slot : kSlots) remove_file(slot_path(path_, slot));
  remove_file(path_);
}

Checkpoint CheckpointSlots::read(const std::string& run_directory) {
  Newest newest = newest_in(run_directory + "/checkpoint");
  if (newest.checkpoint) return *std::move(newest.checkpoint);
  if (!newest.problems.empty()) throw CheckpointError(newest.problems + "; run the command again, with --force");
  throw CheckpointError(printable(run_directory) +
                        " holds no checkpoint: the run is finished, or is none; run the command again");
}

}  // namespace attnreg::app
