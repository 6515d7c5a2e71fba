// Inside src/pgwire only: reading and writing the protocol's primitive types. A Reader never reads
// past its bytes; after the first failure every read fails and ok() is false.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace bascule::pgwire::wire {

class Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  uint8_t u8() { return static_cast<uint8_t>(number(1)); }
  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return number(4); }
  std::string_view bytes(size_t count) {
    if (count > bytes_.size()) return failed();
    const std::string_view out = bytes_.substr(0, count);
    bytes_.remove_prefix(count);
    return out;
  }
  // Up to the next NUL, which is consumed and left out.
  std::string_view text() {
    const size_t end = bytes_.find('\0');
    if (end == std::string_view::npos) return failed();
    const std::string_view out = bytes_.substr(0, end);
    bytes_.remove_prefix(end + 1);
    return out;
  }
  std::string_view rest() { return bytes(bytes_.size()); }
  size_t left() const { return bytes_.size(); }
  bool ok() const { return ok_; }
  bool ok_at_end() const { return ok_ && bytes_.empty(); }

 private:
  uint32_t number(size_t size) {
    uint32_t value = 0;
    for (const char c : bytes(size)) value = value << 8 | static_cast<unsigned char>(c);
    return value;
  }
  std::string_view failed() {
    ok_ = false;
    bytes_ = {};
    return {};
  }

  std::string_view bytes_;
  bool ok_ = true;
};

inline void put_u16(std::string& out, uint16_t value) {
  const char bytes[] = {static_cast<char>(value >> 8), static_cast<char>(value)};
  out.append(bytes, sizeof bytes);
}
inline void put_u32(std::string& out, uint32_t value) {
  const char bytes[] = {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
                        static_cast<char>(value >> 8), static_cast<char>(value)};
  out.append(bytes, sizeof bytes);
}
inline void put_text(std::string& out, std::string_view text) {
  out.append(text.substr(0, text.find('\0')));
  out.push_back('\0');
}

// Appends a message: its length is filled in when the writer dies.
class Message {
 public:
  Message(std::string& out, char type) : out_(out) {
    const char header[] = {type, 0, 0, 0, 0};
    length_at_ = out_.size() + 1;
    out_.append(header, sizeof header);
  }
  // Without type byte: start-up packets.
  explicit Message(std::string& out) : out_(out), length_at_(out.size()) { put_u32(out_, 0); }
  ~Message() {
    const auto length = static_cast<uint32_t>(out_.size() - length_at_);
    for (size_t i = 0; i < 4; ++i) {
      out_[length_at_ + i] = static_cast<char>(length >> (24 - 8 * i));
    }
  }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;

  Message& u8(char value) {
    out_.push_back(value);
    return *this;
  }
  Message& u16(uint16_t value) {
    put_u16(out_, value);
    return *this;
  }
  Message& u32(uint32_t value) {
    put_u32(out_, value);
    return *this;
  }
  Message& text(std::string_view value) {
    put_text(out_, value);
    return *this;
  }
  Message& bytes(std::string_view value) {
    out_.append(value);
    return *this;
  }

 private:
  std::string& out_;
  size_t length_at_ = 0;
};

}  // namespace bascule::pgwire::wire
