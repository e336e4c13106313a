#include "app/charts/charts.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>

#include "app/report/text.hpp"

namespace attnreg::app {

namespace {

constexpr double kWide = 640, kHigh = 300, kLeft = 74, kRight = 16, kTop = 34, kBottom = 46;
constexpr std::size_t kColours = 6, kMostPoints = 600;
constexpr Eigen::Index kMostCells = 48;

std::string coordinate(double value) { return fixed(value, 1); }

std::string svg(double width, double height, const std::string& title, const std::string& body) {
  return "<svg viewBox=\"0 0 " + coordinate(width) + " " + coordinate(height) + "\" role=\"img\"><title>" +
         escaped(title) + "</title>" + "<text class=\"title\" x=\"4\" y=\"18\">" + escaped(title) + "</text>" + body +
         "</svg>\n";
}

std::string text_at(double x, double y, const std::string& text, const char* anchor, const char* more = "") {
  return "<text x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" text-anchor=\"" + anchor + "\"" + more + ">" +
         escaped(text) + "</text>";
}

std::string rectangle(double x, double y, double width, double height, const std::string& looks) {
  return "<rect x=\"" + coordinate(x) + "\" y=\"" + coordinate(y) + "\" width=\"" + coordinate(std::max(width, 0.0)) +
         "\" height=\"" + coordinate(std::max(height, 0.0)) + "\" " + looks + "/>";
}

std::string line_from(double x1, double y1, double x2, double y2, const char* looks) {
  return "<line x1=\"" + coordinate(x1) + "\" y1=\"" + coordinate(y1) + "\" x2=\"" + coordinate(x2) + "\" y2=\"" +
         coordinate(y2) + "\" class=\"" + looks + "\"/>";
}

std::string colour(std::size_t k) { return "class=\"c" + std::to_string(k % kColours) + "\""; }

/// An axis of a chart: from a number to a place.
class Axis {
 public:
  Axis(bool is_log, double begin, double end) : is_log_(is_log), begin_(begin), end_(end) {}

  bool takes(double value) const { return std::isfinite(value) && (!is_log_ || value > 0); }
  void add(double value) {
    if (!takes(value)) return;
    least_ = std::min(least_, scaled(value));
    largest_ = std::max(largest_, scaled(value));
  }
  bool is_empty() const { return !(least_ <= largest_); }
  /// Ends on round numbers.
  void round() {
    if (is_empty()) return;
    if (least_ == largest_) {
      const double room = is_log_ ? 0.5 : std::max(std::abs(least_), 1.0) / 2;
      least_ -= room;
      largest_ += room;
    }
    const double step = this->step();
    least_ = step * std::floor(least_ / step + 1e-9);
    largest_ = step * std::ceil(largest_ / step - 1e-9);
  }
  double place(double value) const { return begin_ + (end_ - begin_) * (scaled(value) - least_) / (largest_ - least_); }
  std::vector<std::pair<double, std::string>> ticks() const {
    std::vector<std::pair<double, std::string>> all;
    const double step = this->step();
    for (double k = std::ceil(least_ / step - 1e-9); k * step <= largest_ + 1e-9 * step; ++k) {
      const double at = k * step, value = is_log_ ? std::pow(10, at) : std::abs(at) < 1e-12 * step ? 0 : at;
      all.emplace_back(begin_ + (end_ - begin_) * (at - least_) / (largest_ - least_),
                       is_log_ && std::abs(at) > 3 ? "1e" + fixed(at, 0) : plain(value, 4));
    }
    return all;
  }
  double least() const { return is_log_ ? std::pow(10, least_) : least_; }
  double largest() const { return is_log_ ? std::pow(10, largest_) : largest_; }

 private:
  double scaled(double value) const { return is_log_ ? std::log10(value) : value; }
  double step() const {
    const double span = largest_ - least_;
    if (is_log_) return std::max(1.0, std::ceil(span / 6));
    const double rough = span / 5, power = std::pow(10, std::floor(std::log10(rough)));
    for (const double factor : {1.0, 2.0, 5.0})
      if (factor * power >= rough * 0.999) return factor * power;
    return 10 * power;
  }

  bool is_log_;
  double begin_, end_;
  double least_ = std::numeric_limits<double>::infinity(), largest_ = -std::numeric_limits<double>::infinity();
};

/// The points that are drawn: of each of some stretches the least and the largest.
std::vector<std::pair<double, double>> points_of(const Series& series, const Axis& x, const Axis& y) {
  std::vector<std::pair<double, double>> all, some;
  for (std::size_t k = 0; k < std::min(series.x.size(), series.y.size()); ++k)
    if (x.takes(series.x[k]) && y.takes(series.y[k])) all.emplace_back(series.x[k], series.y[k]);
  if (all.size() <= kMostPoints) return all;
  const std::size_t stretches = kMostPoints / 2;
  const auto by_y = [](const auto& a, const auto& b) { return a.second < b.second; };
  for (std::size_t k = 0; k < stretches; ++k) {
    const auto begin = all.begin() + static_cast<std::ptrdiff_t>(all.size() * k / stretches);
    const auto end = all.begin() + static_cast<std::ptrdiff_t>(all.size() * (k + 1) / stretches);
    auto [low, high] = std::minmax_element(begin, end, by_y);
    if (high < low) std::swap(low, high);
    some.push_back(*low);
    if (low != high) some.push_back(*high);
  }
  return some;
}

std::string legend(const std::vector<Series>& series, double y) {
  if (series.size() < 2) return "";
  std::string text;
  double x = kLeft;
  for (std::size_t k = 0; k < series.size(); ++k) {
    const double width = 22 + 6.6 * static_cast<double>(series[k].name.size());
    if (x + width > kWide) break;
    text += rectangle(x, y - 9, 10, 10, colour(k)) + text_at(x + 14, y, series[k].name, "start");
    x += width;
  }
  return text;
}

std::string drawn(const Series& series, std::size_t number, const Axis& x, const Axis& y) {
  const auto points = points_of(series, x, y);
  std::string text;
  if (series.dots) {
    for (const auto& [a, b] : points)
      text += "<circle cx=\"" + coordinate(x.place(a)) + "\" cy=\"" + coordinate(y.place(b)) + "\" r=\"2.2\" " +
              colour(number) + "/>";
    return text;
  }
  for (const auto& [a, b] : points)
    text += (text.empty() ? "" : " ") + coordinate(x.place(a)) + "," + coordinate(y.place(b));
  text = "<polyline points=\"" + text + "\" class=\"line l" + std::to_string(number % kColours) + "\"/>";
  if (points.size() > 60) return text;
  for (const auto& [a, b] : points)
    text += "<circle cx=\"" + coordinate(x.place(a)) + "\" cy=\"" + coordinate(y.place(b)) + "\" r=\"2\" " +
            colour(number) + "/>";
  return text;
}

}  // namespace

std::string escaped(std::string_view text) {
  constexpr const char* kUnknown = "\xEF\xBF\xBD";
  std::string result;
  for (std::size_t k = 0; k < text.size(); ++k) {
    const auto byte = static_cast<unsigned char>(text[k]);
    if (byte < 0x80) {
      if (byte == '&')
        result += "&amp;";
      else if (byte == '<')
        result += "&lt;";
      else if (byte == '>')
        result += "&gt;";
      else if (byte == '"')
        result += "&quot;";
      else if (byte == '\'')
        result += "&#39;";
      else if (byte == '\n' || byte == '\t' || (byte >= 0x20 && byte != 0x7F))
        result += text[k];
      else
        result += kUnknown;
      continue;
    }
    const std::size_t length = byte >= 0xF0 && byte < 0xF5   ? 4
                               : byte >= 0xE0 && byte < 0xF0 ? 3
                               : byte >= 0xC2 && byte < 0xE0 ? 2
                                                             : 0;
    bool good = length > 0 && k + length <= text.size();
    for (std::size_t j = 1; good && j < length; ++j) good = (static_cast<unsigned char>(text[k + j]) & 0xC0) == 0x80;
    const auto second = good ? static_cast<unsigned char>(text[k + 1]) : 0;
    if (good && length == 3)  // overlong, surrogates, and what is no character
      good = !(byte == 0xE0 && second < 0xA0) && !(byte == 0xED && second >= 0xA0) &&
             !(byte == 0xEF && second == 0xBF && static_cast<unsigned char>(text[k + 2]) >= 0xBE);
    if (good && length == 4) good = !(byte == 0xF0 && second < 0x90) && !(byte == 0xF4 && second >= 0x90);
    if (good && length == 2 && byte == 0xC2) good = second >= 0xA0;  // other control characters
    result += good ? std::string(text.substr(k, length)) : kUnknown;
    if (good) k += length - 1;
  }
  return result;
}

std::string line_chart(const Axes& axes, const std::vector<Series>& series) {
  Axis x(axes.log_x, kLeft, kWide - kRight), y(axes.log_y, kHigh - kBottom, kTop + 14);
  for (const auto& one : series)
    for (const auto& [a, b] : points_of(one, x, y)) {
      x.add(a);
      y.add(b);
    }
  if (x.is_empty()) return svg(kWide, 60, axes.title, text_at(kLeft, 44, "there is no number to show", "start"));
  x.round();
  y.round();
  std::string body;
  for (const auto& [place, label] : y.ticks())
    body += line_from(kLeft, place, kWide - kRight, place, "grid") + text_at(kLeft - 6, place + 4, label, "end");
  for (const auto& [place, label] : x.ticks())
    body += line_from(place, kHigh - kBottom, place, kHigh - kBottom + 4, "axis") +
            text_at(place, kHigh - kBottom + 17, label, "middle");
  body += line_from(kLeft, kHigh - kBottom, kWide - kRight, kHigh - kBottom, "axis") +
          text_at((kLeft + kWide - kRight) / 2, kHigh - 8, axes.x, "middle") + "<text transform=\"translate(14 " +
          coordinate((kTop + kHigh - kBottom) / 2) + ") rotate(-90)\" text-anchor=\"middle\">" + escaped(axes.y) +
          "</text>" + legend(series, kTop + 2);
  for (std::size_t k = 0; k < series.size(); ++k) body += drawn(series[k], k, x, y);
  return svg(kWide, kHigh, axes.title, body);
}

std::string bar_chart(const Bars& bars) {
  constexpr double kLabels = 190, kBar = 13, kGap = 9, kNumbers = 62;
  const auto count = static_cast<double>(bars.series.size());
  const double row = kBar * count + kGap, top = kTop + (bars.series.size() > 1 ? 18 : 4);
  Axis x(bars.log_x, kLabels, kWide - kNumbers);
  if (!bars.log_x) x.add(0);
  for (const auto& one : bars.series)
    for (const double value : one.y) x.add(value);
  if (bars.labels.empty() || x.is_empty())
    return svg(kWide, 60, bars.title, text_at(kLeft, 44, "there is no number to show", "start"));
  x.round();
  const double origin = bars.log_x ? x.place(x.least()) : x.place(0);
  const double bottom = top + row * static_cast<double>(bars.labels.size());
  std::string body = legend(bars.series, kTop + 4);
  for (const auto& [place, label] : x.ticks())
    body += line_from(place, top, place, bottom, "grid") + text_at(place, bottom + 14, label, "middle");
  for (std::size_t k = 0; k < bars.labels.size(); ++k) {
    const double y = top + row * static_cast<double>(k) + kGap / 2;
    body += text_at(kLabels - 8, y + kBar * count / 2 + 4, bars.labels[k], "end");
    for (std::size_t s = 0; s < bars.series.size(); ++s) {
      const double at = y + kBar * static_cast<double>(s);
      const double value = k < bars.series[s].y.size() ? bars.series[s].y[k] : NAN;
      const double end = x.takes(value) ? x.place(value) : origin;
      body += rectangle(std::min(origin, end), at, std::abs(end - origin), kBar - 2, colour(s)) +
              text_at(std::max(origin, end) + 4, at + kBar - 3, std::isnan(value) ? "-" : plain(value, 3), "start");
    }
  }
  return svg(kWide, bottom + 40, bars.title, body + text_at((kLabels + kWide) / 2, bottom + 32, bars.x, "middle"));
}

std::string shares_chart(const std::string& title, const std::vector<std::string>& labels,
                         const std::vector<double>& shares) {
  double x = 4;
  const double width = kWide - 8;
  std::string body;
  for (std::size_t k = 0; k < shares.size(); ++k) {
    body += rectangle(x, 30, width * shares[k], 26, colour(k));
    x += width * shares[k];
  }
  constexpr std::size_t kInLine = 3;
  for (std::size_t k = 0; k < labels.size(); ++k) {
    const double at = 4 + width * static_cast<double>(k % kInLine) / kInLine;
    const double y = 76 + 18 * static_cast<double>(k / kInLine);
    body += rectangle(at, y - 9, 10, 10, colour(k)) + text_at(at + 14, y, labels[k], "start");
  }
  return svg(kWide, 88 + 18 * static_cast<double>((labels.size() + kInLine - 1) / kInLine - 1), title, body);
}

std::string heat_map(const std::string& title, const Eigen::MatrixXd& matrix, double largest, bool diverging) {
  constexpr double kSide = 288;
  const Eigen::Index rows = std::min(matrix.rows(), kMostCells), columns = std::min(matrix.cols(), kMostCells);
  if (matrix.size() == 0) return svg(kSide + 8, 60, title, text_at(4, 44, "there is no number to show", "start"));
  const double cell = kSide / static_cast<double>(std::max(rows, columns));
  std::string body;
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j < columns; ++j) {
      const Eigen::Index top = matrix.rows() * i / rows, left = matrix.cols() * j / columns;
      const auto block =
          matrix.block(top, left, matrix.rows() * (i + 1) / rows - top, matrix.cols() * (j + 1) / columns - left);
      Eigen::Index a = 0, b = 0;
      block.cwiseAbs().maxCoeff(&a, &b);
      const double value = block(a, b), strength = largest > 0 ? std::min(1.0, std::abs(value) / largest) : 0;
      if (!(strength > 0.004)) continue;  // as the ground
      body += rectangle(4 + cell * static_cast<double>(j), 28 + cell * static_cast<double>(i), cell, cell,
                        std::string("class=\"") +
                            (diverging && value < 0 ? "cold"
                             : diverging            ? "warm"
                                                    : "heat") +
                            "\" fill-opacity=\"" + fixed(strength, 2) + "\"");
    }
  body = rectangle(4, 28, cell * static_cast<double>(columns), cell * static_cast<double>(rows), "class=\"ground\"") +
         body;
  const double bottom = 28 + cell * static_cast<double>(rows);
  return svg(kSide + 8, bottom + 22, title,
             body + text_at(4, bottom + 15,
                            std::string(diverging ? "strongest colour: +-" : "strongest colour: ") + plain(largest, 3),
                            "start"));
}

}  // namespace attnreg::app
