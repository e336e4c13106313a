#pragma once

#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "support/reference.hpp"

namespace attnreg::reference {

/// A file of tests/data/vectors, or an object in it: a problem, a point, and what is true there.
class VectorFile {
 public:
  explicit VectorFile(const std::string& name);

  /// Whether it is there and not null; what is read below must be there.
  bool has(const char* key) const;
  double number(const char* key) const;
  bool flag(const char* key) const;
  std::string text(const char* key) const;
  VectorXd vector(const char* key) const;
  RowMajorMatrix matrix(const char* key) const;
  VectorFile part(const char* key) const;

  /// L of the vector regressions: "A", "b", "w", and "problem" for the loss.
  Problem problem() const;

 private:
  explicit VectorFile(std::shared_ptr<const nlohmann::json> object);

  std::shared_ptr<const nlohmann::json> object_;
};

}  // namespace attnreg::reference
