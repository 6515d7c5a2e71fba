#include "base/time_text.h"

namespace bascule {
namespace {

// Takes `digits` digits off the front; -1: they are not there.
int take_number(std::string_view& text, size_t digits) {
  if (text.size() < digits) return -1;
  int out = 0;
  for (size_t i = 0; i < digits; ++i) {
    if (text[i] < '0' || text[i] > '9') return -1;
    out = out * 10 + (text[i] - '0');
  }
  text.remove_prefix(digits);
  return out;
}

bool take(std::string_view& text, char c) {
  if (text.empty() || text.front() != c) return false;
  text.remove_prefix(1);
  return true;
}

Millis take_fraction(std::string_view& text) {
  int ms = 0, scale = 100;
  while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
    ms += (text.front() - '0') * scale;
    scale /= 10;
    text.remove_prefix(1);
  }
  return Millis(ms);
}

}  // namespace

std::optional<WallTime> parse_iso8601(std::string_view text) {
  namespace c = std::chrono;
  const int year = take_number(text, 4);
  if (!take(text, '-')) return std::nullopt;
  const int month = take_number(text, 2);
  if (!take(text, '-')) return std::nullopt;
  const int day = take_number(text, 2);
  if (!take(text, 'T') && !take(text, ' ')) return std::nullopt;
  const int hour = take_number(text, 2);
  if (!take(text, ':')) return std::nullopt;
  const int minute = take_number(text, 2);
  int second = 0;
  Millis fraction{0};
  if (take(text, ':')) {
    second = take_number(text, 2);
    if (take(text, '.')) fraction = take_fraction(text);
  }
  Millis offset{0};
  if (!take(text, 'Z') && !text.empty()) {
    const int sign = text.front() == '-' ? -1 : text.front() == '+' ? 1 : 0;
    text.remove_prefix(1);
    const int hours = take_number(text, 2);
    (void)take(text, ':');
    const int minutes = text.empty() ? 0 : take_number(text, 2);
    if (sign == 0 || hours < 0 || hours > 14 || minutes < 0 || minutes > 59) return std::nullopt;
    offset = sign * (c::hours(hours) + c::minutes(minutes));
  }
  const c::year_month_day date{c::year(year), c::month(static_cast<unsigned>(month)),
                               c::day(static_cast<unsigned>(day))};
  const bool good = year >= 1970 && month > 0 && day > 0 && date.ok() && hour >= 0 && hour < 24 &&
                    minute >= 0 && minute < 60 && second >= 0 && second < 61 && text.empty();
  if (!good) return std::nullopt;
  return WallTime(c::sys_days(date)) + c::hours(hour) + c::minutes(minute) + c::seconds(second) +
         fraction - offset;
}

}  // namespace bascule
