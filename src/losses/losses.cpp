#include "losses/losses.hpp"

#include <string>

#include "errors/refuse.hpp"
#include "losses/centred_bounds.hpp"
#include "losses/growth_bounds.hpp"

namespace attnreg {

namespace {

struct Entry {
  std::string_view name;
  std::unique_ptr<Loss> (*make)();
};

constexpr Entry kLosses[] = {
    {"softmax", make_softmax_loss},
    {"cross-entropy", make_cross_entropy_loss},
    {"exp", make_exp_loss},
    {"cosh", make_cosh_loss},
    {"sinh", make_sinh_loss},
    {"rescaled-exp", make_rescaled_exp_loss},
    {"rescaled-cosh", make_rescaled_cosh_loss},
    {"rescaled-sinh", make_rescaled_sinh_loss},
};

}  // namespace

std::string Loss::fitted_text() const {
  std::string text(fitted_expression());
  constexpr std::string_view kLogits = "A x", kWithOffsets = "A x + o";
  for (auto at = text.find(kLogits); sees_offsets_ && at != text.npos;
       at = text.find(kLogits, at + kWithOffsets.size()))
    text.replace(at, kLogits.size(), kWithOffsets);
  return text;
}

std::unique_ptr<Loss> make_loss(std::string_view name) {
  std::string known;
  for (const auto& entry : kLosses) {
    if (entry.name == name) return entry.make();
    known += (known.empty() ? "" : ", ") + std::string(entry.name);
  }
  refuse("unknown loss '" + std::string(name) + "'; known are: " + known);
}

std::unique_ptr<Loss> make_sampled_loss(std::string_view name) {
  if (name == "softmax") return make_sampled_softmax_loss();
  if (name == "cross-entropy") return make_sampled_cross_entropy_loss();
  return nullptr;
}

const std::vector<std::string_view>& loss_names() {
  static const auto names = [] {
    std::vector<std::string_view> list;
    for (const auto& entry : kLosses) list.push_back(entry.name);
    return list;
  }();
  return names;
}

const LossBounds& loss_bounds(std::string_view loss) {
  if (const auto* bounds = find_centred_bounds(loss)) return *bounds;
  if (const auto* bounds = find_growth_bounds(loss)) return *bounds;
  throw InternalError("no bounds are known for the loss " + std::string(loss));
}

}  // namespace attnreg
