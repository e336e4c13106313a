#include "newton/journal.hpp"

#include <algorithm>
#include <utility>

namespace attnreg {

namespace {

constexpr double kCheap = 100;  // times what a checkpoint costs lie between two of them

}  // namespace

Journal::Journal(double interval, std::function<void()> write, Cadence cadence)
    : interval_(interval), write_(std::move(write)), cadence_(cadence) {}

Stage& Journal::open(std::string_view name, double seconds) {
  seconds_ = seconds;
  if (std::exchange(reopens_, false)) return stages_[next_ - 1];
  if (cut_off_) return nothing_ = Stage{std::string(name)};
  if (next_ < stages_.size() && stages_[next_].name != name) stages_.resize(next_);
  if (next_ == stages_.size()) stages_.push_back({std::string(name)});
  return stages_[next_++];
}

Journal::Due Journal::due(double seconds, bool asked) {
  const double iteration = seconds - std::exchange(seconds_, seconds);
  since_left_ += iteration;
  since_checkpoint_ += iteration;
  asked_ = asked_ || asked;
  if (cadence_.iterations > 0) return cut_off_ || ++since_ < cadence_.iterations ? Due::no : Due::checkpoint;
  if (cut_off_ || !(asked || since_left_ >= interval_)) return Due::no;
  return interval_ == 0 || since_checkpoint_ >= kCheap * iteration ? Due::checkpoint : Due::as_it_is;
}

void Journal::forget() {
  if (cut_off_) return;
  stages_.resize(next_);
  stages_.back() = Stage{stages_.back().name};
}

bool Journal::leave(Due due) {
  reopens_ = due == Due::checkpoint;
  if (reopens_) since_checkpoint_ = 0, since_ = 0;
  keep();
  if (cadence_.iterations > 0 && !asked_ && since_left_ < interval_) return reopens_;
  since_left_ = 0;
  asked_ = false;
  write_();
  return reopens_;
}

bool Journal::finish(double seconds) {
  if (cut_off_) return false;
  stages_[next_ - 1].finished = true;
  Due due = this->due(seconds, false);
  if (cadence_.iterations > 0) due = cadence_.at_ends ? Due::checkpoint : Due::no;
  if (due == Due::no) return false;
  const bool is_checkpoint = leave(due);
  reopens_ = false;
  return is_checkpoint;
}

void Journal::update(bool finished) {
  if (cut_off_) return;
  stages_[next_ - 1].finished = finished;
  keep();
  const auto now = std::chrono::steady_clock::now();
  since_left_ += std::chrono::duration<double>(now - std::exchange(updated_, now)).count();
  if (since_left_ < interval_) return;
  since_left_ = 0;
  write_();
}

void Journal::cut_off() {
  if (!std::exchange(cut_off_, true) && cadence_.iterations == 0) keep();
  for (const auto& [name, part] : parts_) part->cut_off();
}

bool Journal::is_cut_off() const {
  return cut_off_ || std::ranges::any_of(parts_, [](const auto& part) { return part.second->is_cut_off(); });
}

std::shared_ptr<Journal> Journal::part(const std::string& name) {
  auto& part = parts_[name];
  if (!part) {
    part = std::make_shared<Journal>(interval_, write_, cadence_);
    if (const auto before = resumed_.extract(name); !before.empty()) part->resume({{"", before.mapped()}});
  }
  return part;
}

Journal::Parts Journal::kept() const {
  Parts parts = resumed_;
  parts[""] = kept_;
  for (const auto& [name, part] : parts_) parts[name] = part->kept_;
  return parts;
}

void Journal::resume(Parts parts) {
  resumed_ = std::move(parts);
  if (const auto own = resumed_.extract(""); !own.empty()) kept_ = own.mapped();
  stages_.assign(kept_.begin(), kept_.end());
}

}  // namespace attnreg
