#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace attnreg::app {

/// A page of HTML that stands alone: style, charts and text in one file, light or dark as the reader has it, and fit to
/// be printed. What is given as text is escaped; what is given as HTML is not. Local.
class ReportPage {
 public:
  /// title: text.
  ReportPage(std::string_view title, std::string_view subtitle);

  void begin_section(std::string_view title, std::string_view introduction = "");
  void add_heading(std::string_view title);
  void add_paragraph(std::string_view text);
  void add_preformatted(std::string_view text);
  void add_chart(const std::string& svg);
  /// Charts side by side, as many as there is room for.
  void add_charts(const std::vector<std::string>& svgs);
  /// Two columns of words.
  void add_facts(const std::vector<std::pair<std::string, std::string>>& facts);
  void add_table(const std::vector<std::string>& heading, const std::vector<std::vector<std::string>>& rows);

  std::string html() const;  ///< the whole page

 private:
  std::string title_, body_, contents_;
  int sections_ = 0;
};

}  // namespace attnreg::app
