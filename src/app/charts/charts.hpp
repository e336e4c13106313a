#pragma once

#include <Eigen/Core>
#include <string>
#include <string_view>
#include <vector>

namespace attnreg::app {

// Charts as SVG, for pages of HTML that need nothing else: no script, no address. Colours and fonts are those of the
// page (report_page.hpp). Local, all of it.

/// A text of any origin as it may stand in HTML and in attributes. Control characters, and bytes that are not UTF-8,
/// become U+FFFD.
std::string escaped(std::string_view text);

struct Series {
  std::string name;
  std::vector<double> x, y;  ///< of equal length; points with a number that is not finite are left out
  bool dots = false;         ///< else a line
};

struct Axes {
  std::string title, x, y;
  bool log_x = false, log_y = false;  ///< numbers that are not positive are left out
};

/// Lines and dots over two axes; of more than 600 points a line shows the least and the largest of each stretch, dots
/// every so many. Without a point it says so.
std::string line_chart(const Axes& axes, const std::vector<Series>& series);

/// Horizontal bars, one for each label and series, from 0 on or, on a logarithmic axis, from its least power of ten.
struct Bars {
  std::string title, x;
  std::vector<std::string> labels;
  std::vector<Series> series;  ///< y: a number for each label
  bool log_x = false;
};
std::string bar_chart(const Bars& bars);

/// One bar that is divided: the shares of a whole, with a legend.
std::string shares_chart(const std::string& title, const std::vector<std::string>& labels,
                         const std::vector<double>& shares);

/// A matrix as colours; of more than 48 rows or columns, each cell is the number of largest size of a block.
/// diverging: 0 is the colour in the middle. largest: what the strongest colour stands for.
std::string heat_map(const std::string& title, const Eigen::MatrixXd& matrix, double largest, bool diverging);

}  // namespace attnreg::app
