#include "errors/faults.hpp"

#ifdef ATTNREG_FAULT_INJECTION

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <regex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "attnreg/error.hpp"
#include "errors/printable.hpp"

namespace attnreg::faults {

namespace {

constexpr std::array<std::string_view, 13> kSites{"start",  "after-load", "in-iteration", "before-write", "read",
                                                  "write",  "sync",       "rename",       "message",      "allocate",
                                                  "logits", "sums",       "check"};
constexpr std::array kErrors{std::pair{"ENOSPC", ENOSPC}, std::pair{"EIO", EIO}};
constexpr std::array kSignals{std::pair{"INT", SIGINT},   std::pair{"TERM", SIGTERM}, std::pair{"HUP", SIGHUP},
                              std::pair{"USR1", SIGUSR1}, std::pair{"USR2", SIGUSR2}, std::pair{"KILL", SIGKILL},
                              std::pair{"STOP", SIGSTOP}};

constexpr std::string_view kExhausted = "exhausted";

struct Fault {
  std::string_view site;
  std::string kind;
  long visit = 1;
};

std::vector<Fault> plan;  // of this rank; empty: nothing is counted
std::array<std::atomic<long>, kSites.size()> visits;

/// The number of a name; 0: it is none of them.
template <class Table>
int number_of(const Table& table, std::string_view name) {
  for (const auto& [known, number] : table)
    if (name == known) return number;
  return 0;
}

/// The bit that flips; < 0: it is none of these kinds.
int bit_of(std::string_view kind) {
  constexpr std::string_view kFlip = "flip";
  int bit = -1;
  if (!kind.starts_with(kFlip)) return bit;
  const auto [end, error] = std::from_chars(kind.data() + kFlip.size(), kind.data() + kind.size(), bit);
  return error == std::errc() && end == kind.data() + kind.size() && bit < 64 ? bit : -1;
}

bool is_kind(std::string_view kind) {
  return kind == "throw" || kind == "bad_alloc" || kind == kExhausted || kind == "short" ||
         number_of(kErrors, kind) != 0 || number_of(kSignals, kind) != 0 || bit_of(kind) >= 0;
}

bool is_due(const Fault& fault, long visit) {
  return visit == fault.visit || (visit > fault.visit && fault.kind == kExhausted);
}

Played play(const Fault& fault, bool is_first) {
  if (is_first)
    std::fprintf(stderr, "attnreg: fault played: %s %s %ld\n", fault.site.data(), fault.kind.c_str(), fault.visit);
  if (fault.kind == "bad_alloc" || fault.kind == kExhausted) throw std::bad_alloc();
  if (fault.kind == "throw")
    throw std::logic_error("fault injected at '" + std::string(fault.site) + "' by ATTNREG_FAULT");
  if (const int signal = number_of(kSignals, fault.kind); signal != 0) std::raise(signal);
  return {number_of(kErrors, fault.kind), fault.kind == "short", bit_of(fault.kind)};
}

}  // namespace

void start(int rank) {
  const char* const variable = std::getenv("ATTNREG_FAULT");
  if (variable == nullptr || *variable == 0) return;
  static const std::regex form("(-?[0-9]+):([a-z-]+):([A-Za-z0-9_]+)(:([0-9]{1,9}))?");
  std::vector<Fault> own;
  for (const auto part : parts_of(variable, ',')) {
    const std::string one(part);
    std::smatch words;
    const bool fits = std::regex_match(one, words, form);
    const auto site = fits ? std::ranges::find(kSites, words[2].str()) : kSites.end();
    if (site == kSites.end() || !is_kind(words[3].str()))
      throw Error(ExitCode::usage,
                  "ATTNREG_FAULT is '" + printable(variable) +
                      "'; expected rank:site:kind or rank:site:kind:k with a site of start, after-load, in-iteration, "
                      "before-write, read, write, sync, rename, message, allocate, logits, sums, check, and throw, "
                      "bad_alloc, exhausted, short, ENOSPC, EIO, a signal, such as TERM, or flip0 to flip63",
                  Error::Scope::all_ranks);
    if (words[1] == std::to_string(rank)) own.push_back({*site, words[3], words[5].matched ? std::stol(words[5]) : 1});
  }
  plan = std::move(own);
  for (auto& count : visits) count = 0;
}

Played at(std::string_view site) {
  if (plan.empty()) return {};
  const auto index = static_cast<std::size_t>(std::ranges::find(kSites, site) - kSites.begin());
  const long visit = ++visits.at(index);
  Played played;
  for (const auto& fault : plan)
    if (fault.site == site && is_due(fault, visit)) played = play(fault, visit == fault.visit);
  return played;
}

void flip(std::string_view site, std::span<double> numbers) {
  const int bit = at(site).bit;
  if (bit < 0 || numbers.empty()) return;
  double& number = numbers[numbers.size() / 2];
  number = std::bit_cast<double>(std::bit_cast<std::uint64_t>(number) ^ (std::uint64_t{1} << bit));
}

}  // namespace attnreg::faults

#endif
