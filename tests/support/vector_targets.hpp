#pragma once

#include <gtest/gtest.h>
#include <hwy/highway.h>

#include <cstdint>
#include <string>
#include <vector>

namespace attnreg {

/// A kind of vectors that Highway compiles for, such as AVX2.
struct VectorTarget {
  std::int64_t bit;
};

/// All kinds that this machine has.
inline std::vector<VectorTarget> vector_targets() {
  std::vector<VectorTarget> targets;
  for (const std::int64_t bit : hwy::SupportedAndGeneratedTargets()) targets.push_back({bit});
  return targets;
}

inline std::string vector_target_name(const testing::TestParamInfo<VectorTarget>& info) {
  return hwy::TargetName(info.param.bit);
}

/// The kernels use this kind as long as it lives.
class SelectVectorTarget {
 public:
  explicit SelectVectorTarget(VectorTarget target) { hwy::SetSupportedTargetsForTest(target.bit); }
  ~SelectVectorTarget() { hwy::SetSupportedTargetsForTest(0); }
  SelectVectorTarget(const SelectVectorTarget&) = delete;
  SelectVectorTarget& operator=(const SelectVectorTarget&) = delete;
};

}  // namespace attnreg
