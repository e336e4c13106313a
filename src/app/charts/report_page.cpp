#include "app/charts/report_page.hpp"

#include <algorithm>

#include "app/charts/charts.hpp"

namespace attnreg::app {

namespace {

constexpr std::string_view kStyle = R"(
:root { --paper: #ffffff; --ink: #1c2330; --soft: #5b6575; --line: #d9dee6; --panel: #f5f7fa;
  --c0: #2563a8; --c1: #d2691e; --c2: #2e8b57; --c3: #8e44ad; --c4: #b03a48; --c5: #7a6a2f; --mark: #2563a8; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181f; --ink: #e4e8ee; --soft: #9aa5b4; --line: #303844;
  --panel: #1b212b; --c0: #6fa8e6; --c1: #f0975a; --c2: #68c191; --c3: #c08be0; --c4: #ee8792; --c5: #cbb968; --mark: #6fa8e6; } }
@media print { :root { --paper: #ffffff; --ink: #000000; --soft: #444444; --line: #bbbbbb; --panel: #ffffff;
  --c0: #2563a8; --c1: #d2691e; --c2: #2e8b57; --c3: #8e44ad; --c4: #b03a48; --c5: #7a6a2f; }
  nav { display: none; } section { break-inside: avoid-page; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 28px 24px 64px; }
h1 { font-size: 25px; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 38px 0 8px; padding-top: 12px; border-top: 2px solid var(--mark); }
h3 { font-size: 15px; margin: 22px 0 4px; }
p { margin: 6px 0 10px; max-width: 76ch; overflow-wrap: anywhere; }
.subtitle { color: var(--soft); }
nav { margin: 14px 0 0; font-size: 13.5px; } nav a { color: var(--mark); margin-right: 14px; text-decoration: none; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 14px; margin: 10px 0; }
.maps { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 14px; margin: 10px 0; }
figure { margin: 0; padding: 10px; background: var(--panel); border: 1px solid var(--line); border-radius: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { fill: var(--ink); font: 12px system-ui, "DejaVu Sans", sans-serif; } svg .title { font-weight: 600; font-size: 13px; }
.grid { stroke: var(--line); } .axis { stroke: var(--soft); } .line { fill: none; stroke-width: 2; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); } .c4 { fill: var(--c4); }
.c5 { fill: var(--c5); } .l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); } .l2 { stroke: var(--c2); }
.l3 { stroke: var(--c3); } .l4 { stroke: var(--c4); } .l5 { stroke: var(--c5); }
.ground { fill: var(--paper); stroke: var(--line); } .heat, .cold { fill: var(--c0); } .warm { fill: var(--c1); }
table { border-collapse: collapse; margin: 8px 0 14px; font-size: 14px; max-width: 100%; display: block; overflow-x: auto; }
th, td { text-align: left; padding: 4px 16px 4px 0; border-bottom: 1px solid var(--line); vertical-align: top;
  overflow-wrap: anywhere; font-variant-numeric: tabular-nums; }
th { color: var(--soft); font-weight: 500; } .facts th { white-space: nowrap; width: 190px; }
pre { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 10px 12px; font-size: 13px;
  overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }
)";

std::string figure(const std::string& svg) { return "<figure>" + svg + "</figure>\n"; }

}  // namespace

ReportPage::ReportPage(std::string_view title, std::string_view subtitle)
    : title_(escaped(title)), body_("<h1>" + title_ + "</h1>\n<p class=\"subtitle\">" + escaped(subtitle) + "</p>\n") {}

void ReportPage::begin_section(std::string_view title, std::string_view introduction) {
  const std::string name = "s" + std::to_string(++sections_);
  contents_ += "<a href=\"#" + name + "\">" + escaped(title) + "</a>";
  if (sections_ > 1) body_ += "</section>\n";
  body_ += "<section><h2 id=\"" + name + "\">" + escaped(title) + "</h2>\n";
  if (!introduction.empty()) add_paragraph(introduction);
}

void ReportPage::add_heading(std::string_view title) { body_ += "<h3>" + escaped(title) + "</h3>\n"; }
void ReportPage::add_paragraph(std::string_view text) { body_ += "<p>" + escaped(text) + "</p>\n"; }
void ReportPage::add_preformatted(std::string_view text) { body_ += "<pre>" + escaped(text) + "</pre>\n"; }
void ReportPage::add_chart(const std::string& svg) { add_charts({svg}); }

void ReportPage::add_charts(const std::vector<std::string>& svgs) {
  if (svgs.empty()) return;
  const bool are_maps = svgs.front().find("class=\"ground\"") != std::string::npos;
  body_ += are_maps ? "<div class=\"maps\">\n" : "<div class=\"charts\">\n";
  for (const auto& svg : svgs) body_ += figure(svg);
  body_ += "</div>\n";
}

void ReportPage::add_facts(const std::vector<std::pair<std::string, std::string>>& facts) {
  if (facts.empty()) return;
  body_ += "<table class=\"facts\"><tbody>\n";
  for (const auto& [name, value] : facts)
    body_ += "<tr><th>" + escaped(name) + "</th><td>" + escaped(value) + "</td></tr>\n";
  body_ += "</tbody></table>\n";
}

void ReportPage::add_table(const std::vector<std::string>& heading, const std::vector<std::vector<std::string>>& rows) {
  if (rows.empty()) return;
  body_ += "<table><thead><tr>";
  for (const auto& name : heading) body_ += "<th>" + escaped(name) + "</th>";
  body_ += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    body_ += "<tr>";
    for (const auto& cell : row) body_ += "<td>" + escaped(cell) + "</td>";
    body_ += "</tr>\n";
  }
  body_ += "</tbody></table>\n";
}

std::string ReportPage::html() const {
  const std::size_t first = std::min(body_.find("<section>"), body_.size());
  return "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"/>"
         "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/><title>" +
         title_ + "</title>\n<style>" + std::string(kStyle) + "</style></head>\n<body><main>\n" +
         body_.substr(0, first) + "<nav>" + contents_ + "</nav>\n" + body_.substr(first) +
         (sections_ > 0 ? "</section>\n" : "") + "</main></body>\n</html>\n";
}

}  // namespace attnreg::app
