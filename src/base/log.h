// Structured logging: an event name in words and key=value fields, as text or JSON lines.
//   log(LogLevel::kInfo, "n1", "took over", {{"epoch", 7}, {"reason", "record expired"}});
// Never pass secrets. Thread-safe. Configured once at start by main.
#pragma once

#include <fmt/format.h>

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace bascule {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

struct LogField {
  std::string_view key;
  std::string value;
  template <typename T>
  LogField(std::string_view k, const T& v) : key(k), value(fmt::format("{}", v)) {}
};

enum class LogFormat { kText, kJson };
struct LogOptions {
  LogLevel level = LogLevel::kInfo;
  LogFormat format = LogFormat::kText;
  std::string file;  // empty: standard error
};
void configure_logging(const LogOptions& options);

// `component` says who speaks ("n1", "proxy", "store").
void log(LogLevel level, std::string_view component, std::string_view event,
         std::initializer_list<LogField> fields = {});
void log(LogLevel level, std::string_view component, std::string_view event,
         const std::vector<LogField>& fields);

}  // namespace bascule
