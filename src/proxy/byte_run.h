// Bytes to send, put together from pieces of what was received and from what is added: one view as
// long as the pieces lie one behind the other, a copy in scratch memory otherwise.
#pragma once

#include <string>
#include <string_view>

namespace bascule::proxy {

class ByteRun {
 public:
  // `scratch` is empty and the run's own while it lives.
  explicit ByteRun(std::string& scratch) : scratch_(scratch) {}
  ~ByteRun() {
    if (scratch_.capacity() > kKeep) {
      std::string().swap(scratch_);
    } else {
      scratch_.clear();
    }
  }
  ByteRun(const ByteRun&) = delete;
  ByteRun& operator=(const ByteRun&) = delete;

  // Must stay valid until the run is sent.
  void view(std::string_view bytes) {
    if (!scratch_.empty()) {
      scratch_.append(bytes);
    } else if (view_.empty()) {
      view_ = bytes;
    } else if (view_.data() + view_.size() == bytes.data()) {
      view_ = {view_.data(), view_.size() + bytes.size()};
    } else {
      build().append(bytes);
    }
  }
  // To append to.
  std::string& build() {
    if (!view_.empty()) {
      scratch_.append(view_);
      view_ = {};
    }
    return scratch_;
  }
  std::string_view bytes() const { return scratch_.empty() ? view_ : std::string_view(scratch_); }

 private:
  static constexpr size_t kKeep = 256 * 1024;
  std::string& scratch_;
  std::string_view view_;
};

}  // namespace bascule::proxy
