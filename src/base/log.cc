#include "base/log.h"

#include "base/log_level.h"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>
#include <span>

namespace bascule {
namespace {

struct Sink {
  std::shared_ptr<spdlog::logger> logger = spdlog::stderr_logger_mt("bascule");
  LogFormat format = LogFormat::kText;
  Sink() { logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e %L %v"); }
};

Sink& sink() {
  static Sink instance;
  return instance;
}

spdlog::level::level_enum to_spdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

// Escapes for a double-quoted string in both formats, so that no input can forge a line or field.
std::string quoted(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      out += c;
    }
  }
  return out + '"';
}

bool plain(std::string_view text) {
  for (char c : text) {
    if (static_cast<unsigned char>(c) <= 0x20 || c == '"' || c == '=' || c == '\\') return false;
  }
  return !text.empty();
}

void write(LogLevel level, std::string_view component, std::string_view event,
           std::span<const LogField> fields) {
  Sink& s = sink();
  if (!s.logger->should_log(to_spdlog(level))) return;
  std::string line;
  if (s.format == LogFormat::kJson) {
    line = fmt::format("\"component\":{},\"event\":{}", quoted(component), quoted(event));
    for (const LogField& f : fields) line += fmt::format(",{}:{}", quoted(f.key), quoted(f.value));
    line += '}';
  } else {
    line = fmt::format("[{}] {}", component, event);
    for (const LogField& f : fields) {
      line += fmt::format(" {}={}", f.key, plain(f.value) ? f.value : quoted(f.value));
    }
  }
  s.logger->log(to_spdlog(level), "{}", line);
}

}  // namespace

void configure_logging(const LogOptions& options) {
  Sink& s = sink();
  spdlog::drop("bascule");
  s.logger = options.file.empty() ? spdlog::stderr_logger_mt("bascule")
                                  : spdlog::basic_logger_mt("bascule", options.file);
  s.format = options.format;
  s.logger->set_pattern(options.format == LogFormat::kJson
                            ? "{\"time\":\"%Y-%m-%dT%H:%M:%S.%e\",\"level\":\"%l\",%v"
                            : "%Y-%m-%dT%H:%M:%S.%e %L %v");
  s.logger->set_level(to_spdlog(options.level));
  s.logger->flush_on(spdlog::level::debug);
}

void set_log_level(LogLevel level) {
  if (sink().logger) sink().logger->set_level(to_spdlog(level));
}

void log(LogLevel level, std::string_view component, std::string_view event,
         std::initializer_list<LogField> fields) {
  write(level, component, event, {fields.begin(), fields.size()});
}

void log(LogLevel level, std::string_view component, std::string_view event,
         const std::vector<LogField>& fields) {
  write(level, component, event, fields);
}

}  // namespace bascule
