#include "cli/password_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log.h"

namespace bascule::cli {
namespace {

constexpr size_t kPasswordBytesMax = 8192;  // tokens of cloud providers have up to 2 KB
constexpr size_t kReasonBytesMax = 200;

std::string first_line(const std::string& text) {
  std::string line = text.substr(0, std::min(text.find_first_of("\r\n"), kReasonBytesMax));
  // Written by another program: nothing that a terminal or a log would obey.
  std::ranges::replace_if(
      line, [](char c) { return static_cast<unsigned char>(c) < 32 || c == 127; }, '?');
  return line;
}

}  // namespace

Result<std::string> run_password_command(env::Process& process, env::Clock& clock,
                                         const PasswordCommandSection& section,
                                         std::function<bool()> cancelled) {
  env::Command command;
  command.argv = section.command;
  command.errors_go = env::Command::Errors::kApart;
  command.deadline = clock.now() + section.timeout;
  command.cancelled = std::move(cancelled);
  auto finished = process.run(command);
  if (!finished) return std::unexpected(finished.error());
  const std::string& program = section.command.front();
  if (!finished->ok()) {
    const std::string reason = first_line(finished->errors);
    return fail(ErrorCode::kUnavailable, fmt::format("{}: {}{}{}", program, finished->how(),
                                                     reason.empty() ? "" : ": ", reason));
  }
  std::string& output = finished->output;
  output.erase(std::min(output.find_first_of("\r\n"), output.size()));
  if (output.empty() || output.size() > kPasswordBytesMax ||
      output.find('\0') != std::string::npos) {
    return fail(ErrorCode::kInvalid,
                fmt::format("{}: its first line of output is no password: empty, longer than {} "
                            "bytes or with a NUL",
                            program, kPasswordBytesMax));
  }
  return std::move(output);
}

PasswordCommands::PasswordCommands(env::Loop& loop, env::BlockingPool& pool, env::Process& process,
                                   std::vector<PasswordCommandSection> sections, Deliver deliver)
    : loop_(loop), pool_(pool), process_(process), deliver_(std::move(deliver)) {
  for (PasswordCommandSection& section : sections) {
    entries_.push_back(std::make_unique<Entry>(Entry{std::move(section), {}, kRetryMin}));
  }
}

void PasswordCommands::start() {
  for (const auto& entry : entries_) {
    deliver_(entry->section.user,
             fail(ErrorCode::kUnavailable, fmt::format("{} has not printed a password yet",
                                                       entry->section.command.front())));
    run(*entry);
  }
}

void PasswordCommands::stop() { stopping_.store(true); }

void PasswordCommands::run(Entry& entry) {
  const MonoTime begun = loop_.now();
  pool_.submit([this, &entry, begun, section = entry.section] {
    auto result =
        run_password_command(process_, loop_, section, [this] { return stopping_.load(); });
    loop_.post([this, &entry, begun, r = std::move(result)]() mutable {
      on_result(entry, begun, std::move(r));
    });
  });
}

void PasswordCommands::on_result(Entry& entry, MonoTime begun, Result<std::string> result) {
  if (stopping_.load()) return;
  Nanos next;
  if (result) {
    entry.good_until = begun + entry.section.lifetime;
    entry.retry = kRetryMin;
    next = begun + Nanos(entry.section.lifetime) * 3 / 4 - loop_.now();
    deliver_(entry.section.user, std::move(result));
  } else {
    log(LogLevel::kWarn, "proxy", "no new password for servers",
        {{"user", entry.section.user}, {"error", result.error().message}});
    next = std::exchange(entry.retry, std::min(entry.retry * 2, kRetryMax));
    // What there is may still be good.
    if (loop_.now() >= entry.good_until) deliver_(entry.section.user, std::move(result));
  }
  loop_.call_after(std::max(next, Nanos(100ms)), [this, &entry] { run(entry); });
}

}  // namespace bascule::cli
