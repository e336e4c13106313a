#include "app/report/row_names.hpp"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <span>

#include "app/report/text.hpp"
#include "errors/printable.hpp"
#include "files/input_file.hpp"
#include "files/text_reader.hpp"
#include "files/text_table.hpp"

namespace attnreg::app {

namespace {

constexpr std::size_t kNames = 5;  // of a line

/// The places of the largest values in size, equal ones in order.
std::vector<std::size_t> places_of_largest(std::span<const double> values) {
  std::vector<std::size_t> places(values.size());
  std::iota(places.begin(), places.end(), std::size_t{0});
  const auto count = static_cast<std::ptrdiff_t>(std::min(kNames, places.size()));
  std::ranges::partial_sort(places, places.begin() + count, [&](std::size_t i, std::size_t j) {
    const double left = std::abs(values[i]), right = std::abs(values[j]);
    return left != right ? left > right : i < j;
  });
  places.resize(static_cast<std::size_t>(count));
  return places;
}

}  // namespace

std::vector<std::string> read_labels(const std::string& path, std::int64_t rows) {
  const char separator = separator_of(path);
  std::vector<std::string> labels;
  TextReader text(path);
  for (std::string_view line; text.next(line);) {
    if (separator != '\0') line = line.substr(0, line.find(separator));
    if (separator != '\0' && line.size() >= 2 && line.starts_with('"') && line.ends_with('"'))
      line = line.substr(1, line.size() - 2);
    labels.emplace_back(line);
  }
  if (separator != '\0' && std::ssize(labels) == rows + 1) labels.erase(labels.begin());
  if (rows >= 0 && std::ssize(labels) != rows)
    refuse_file(path, "found " + std::to_string(labels.size()) + " names, expected " + std::to_string(rows) +
                          ", one for each row of A");
  return labels;
}

NamedValues largest_rows(const RowMatrix& A, std::string_view what, const Eigen::VectorXd& values,
                         const std::vector<std::string>& labels) {
  std::vector<double> mine;  // place and value, in turn
  for (const std::size_t place : places_of_largest({values.data(), static_cast<std::size_t>(values.size())})) {
    mine.push_back(static_cast<double>(A.first_row() + static_cast<std::int64_t>(place)));
    mine.push_back(values[static_cast<Eigen::Index>(place)]);
  }
  const std::vector<double> all = A.communicator().gather_to_root(mine);
  std::vector<double> candidates;
  for (std::size_t k = 1; k < all.size(); k += 2) candidates.push_back(all[k]);
  NamedValues result{std::string(what), {}};
  for (const std::size_t k : places_of_largest(candidates)) {
    const auto row = static_cast<std::int64_t>(all[2 * k]);
    result.largest.push_back({row, candidates[k], labels.at(static_cast<std::size_t>(row))});
  }
  return result;
}

NamedValues largest_columns(const Eigen::VectorXd& x, const std::vector<std::string>& names) {
  NamedValues result{"x", {}};
  if (std::ssize(names) != x.size()) return result;
  for (const std::size_t j : places_of_largest({x.data(), static_cast<std::size_t>(x.size())}))
    result.largest.push_back({static_cast<std::int64_t>(j), x[static_cast<Eigen::Index>(j)], names[j]});
  return result;
}

std::string named_text(std::string_view title, const std::vector<NamedValues>& all) {
  if (all.empty()) return "";
  std::string text = "\n" + std::string(title) + "\n";
  for (const auto& [what, largest] : all) {
    std::string list;
    for (const auto& one : largest)
      list += (list.empty() ? "" : ", ") + printable(one.name, 40) + " " + plain(one.value, 3);
    text += summary_line(what, list);
  }
  return text;
}

nlohmann::ordered_json named_json(const std::vector<NamedValues>& all) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  for (const auto& [what, largest] : all) {
    auto list = nlohmann::ordered_json::array();
    for (const auto& one : largest) list.push_back({{"place", one.place}, {"name", one.name}, {"value", one.value}});
    json[what] = std::move(list);
  }
  return json;
}

}  // namespace attnreg::app
