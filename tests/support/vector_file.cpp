#include "support/vector_file.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

namespace attnreg::reference {

namespace {

VectorXd vector_of(const nlohmann::json& list) {
  const auto values = list.get<std::vector<double>>();
  return Eigen::Map<const VectorXd>(values.data(), static_cast<Index>(values.size()));
}

nlohmann::json parsed(const std::string& path) {
  std::ifstream file(path);
  return nlohmann::json::parse(file);
}

}  // namespace

VectorFile::VectorFile(const std::string& name)
    : VectorFile(std::make_shared<nlohmann::json>(parsed(ATTNREG_TEST_DATA "/vectors/" + name + ".json"))) {}

VectorFile::VectorFile(std::shared_ptr<const nlohmann::json> object) : object_(std::move(object)) {}

bool VectorFile::has(const char* key) const { return object_->contains(key) && !object_->at(key).is_null(); }

double VectorFile::number(const char* key) const { return object_->at(key).get<double>(); }

bool VectorFile::flag(const char* key) const { return object_->at(key).get<bool>(); }

std::string VectorFile::text(const char* key) const { return object_->at(key).get<std::string>(); }

VectorXd VectorFile::vector(const char* key) const { return vector_of(object_->at(key)); }

RowMajorMatrix VectorFile::matrix(const char* key) const {
  const nlohmann::json& lists = object_->at(key);
  RowMajorMatrix result(static_cast<Index>(lists.size()), static_cast<Index>(lists[0].size()));
  for (std::size_t i = 0; i < lists.size(); ++i) result.row(static_cast<Index>(i)) = vector_of(lists[i]).transpose();
  return result;
}

VectorFile VectorFile::part(const char* key) const {
  return VectorFile(std::make_shared<nlohmann::json>(object_->at(key)));
}

Problem VectorFile::problem() const {
  std::string loss = text("problem");
  std::replace(loss.begin(), loss.end(), '_', '-');
  return {matrix("A"), vector("b"), vector("w"), loss};
}

}  // namespace attnreg::reference
