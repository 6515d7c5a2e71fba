#include "posix/http_curl.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

namespace bascule::posix {
namespace {

constexpr long kMaxConnections = 32;
constexpr long kCaCacheSeconds = 60;  // files that were replaced are seen by then
constexpr int kWaitMs = 1000;         // woken earlier by orders and descriptors
constexpr size_t kOtherAnswerBytesMax = 64 << 10;
// A peer whose host vanished is given up after so long, streams included.
constexpr unsigned kUnackedMsMax = 3000;
constexpr int kKeepAliveSeconds = 1;

void set(int fd, int level, int option, unsigned value) {
  (void)setsockopt(fd, level, option, &value, sizeof value);
}

int on_socket(void*, curl_socket_t fd, curlsocktype) {
  set(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
  set(fd, IPPROTO_TCP, TCP_KEEPIDLE, kKeepAliveSeconds);
  set(fd, IPPROTO_TCP, TCP_KEEPINTVL, kKeepAliveSeconds);
  set(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, kUnackedMsMax);
  return CURL_SOCKOPT_OK;
}

}  // namespace

struct CurlHttp::Transfer {
  CurlHttp* owner = nullptr;
  uint64_t id = 0;
  env::HttpRequest request;
  bool streams = false;
  std::string body;
  size_t uploaded = 0;
  bool too_large = false;
  // Bytes of a stream that the loop has not taken yet.
  std::shared_ptr<std::atomic<size_t>> waiting = std::make_shared<std::atomic<size_t>>(0);
  CURL* easy = nullptr;
  curl_slist* headers = nullptr;
  std::array<char, CURL_ERROR_SIZE> error{};

  ~Transfer() {
    if (easy != nullptr) curl_easy_cleanup(easy);
    curl_slist_free_all(headers);
  }
  bool prepare(const env::HttpTls& tls);
  env::HttpAnswer answer(CURLcode code);
};

bool CurlHttp::Transfer::prepare(const env::HttpTls& tls) {
  easy = curl_easy_init();
  if (easy == nullptr) return false;
  const auto option = [this](CURLoption name, auto value) { curl_easy_setopt(easy, name, value); };
  option(CURLOPT_URL, request.url.c_str());
  option(CURLOPT_PROTOCOLS_STR, "http,https");
  option(CURLOPT_PROXY, "");  // also none of the environment
  option(CURLOPT_HTTP_VERSION, long{CURL_HTTP_VERSION_1_1});
  option(CURLOPT_NOSIGNAL, 1L);
  option(CURLOPT_QUICK_EXIT, 1L);  // don't wait for a resolver that hangs
  option(CURLOPT_SSLVERSION, long{CURL_SSLVERSION_TLSv1_2});
  if (!tls.ca_file.empty()) {
    option(CURLOPT_CAINFO, tls.ca_file.c_str());
    option(CURLOPT_CAPATH, static_cast<char*>(nullptr));
  }
  option(CURLOPT_CA_CACHE_TIMEOUT, kCaCacheSeconds);
  if (!tls.cert_file.empty()) option(CURLOPT_SSLCERT, tls.cert_file.c_str());
  if (!tls.key_file.empty()) option(CURLOPT_SSLKEY, tls.key_file.c_str());
  option(CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(request.connect_timeout.count()));
  option(CURLOPT_TIMEOUT_MS, static_cast<long>(request.timeout.count()));
  option(CURLOPT_SOCKOPTFUNCTION, on_socket);
  option(CURLOPT_ERRORBUFFER, error.data());
  // By a callback that can't rewind, not as a buffer: libcurl could send it a second time
  // otherwise.
  if (request.method == "GET") {
    option(CURLOPT_HTTPGET, 1L);
    request.body.clear();
  } else {
    option(CURLOPT_POST, 1L);
    option(CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    if (request.method != "POST") option(CURLOPT_CUSTOMREQUEST, request.method.c_str());
  }
  option(CURLOPT_READFUNCTION, &CurlHttp::on_upload);
  option(CURLOPT_READDATA, this);
  option(CURLOPT_WRITEFUNCTION, &CurlHttp::on_body);
  option(CURLOPT_WRITEDATA, this);
  option(CURLOPT_PRIVATE, this);
  for (const char* fixed : {"Content-Type: application/json", "Expect:"}) {
    headers = curl_slist_append(headers, fixed);
  }
  for (const std::string& header : request.headers) {
    headers = curl_slist_append(headers, header.c_str());
  }
  option(CURLOPT_HTTPHEADER, headers);
  return true;
}

env::HttpAnswer CurlHttp::Transfer::answer(CURLcode code) {
  env::HttpAnswer out;
  long status = 0, request_bytes = 0, connects = 0;
  curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
  curl_easy_getinfo(easy, CURLINFO_NUM_CONNECTS, &connects);
  out.connected = connects != 0;
  curl_easy_getinfo(easy, CURLINFO_REQUEST_SIZE, &request_bytes);
  if (code == CURLE_OK) {
    out.status = static_cast<int>(status);
    out.body = std::move(body);
    return out;
  }
  // Not the bytes that the server got, but those that left: without the body it has no request.
  const bool sent = request_bytes > 0 && uploaded == request.body.size();
  out.sent = sent ? env::HttpAnswer::Sent::kPerhaps : env::HttpAnswer::Sent::kNo;
  long os_error = 0;
  curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_error);
  out.refused = code == CURLE_COULDNT_CONNECT && os_error == ECONNREFUSED;
  out.error = too_large          ? "the answer is too large"
              : error[0] != '\0' ? error.data()
                                 : curl_easy_strerror(code);
  return out;
}

CurlHttp::CurlHttp(env::Loop& loop, env::HttpTls tls) : loop_(loop), tls_(std::move(tls)) {
  static std::once_flag once;
  std::call_once(once, [] { curl_global_init(CURL_GLOBAL_DEFAULT); });
  multi_ = curl_multi_init();
  curl_multi_setopt(multi_, CURLMOPT_MAXCONNECTS, kMaxConnections);
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread([this] { run(); });
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

CurlHttp::~CurlHttp() {
  *alive_ = false;
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  curl_multi_wakeup(multi_);
  thread_.join();
}

uint64_t CurlHttp::send(env::HttpRequest request, DoneCallback done) {
  return start(std::move(request), nullptr, std::move(done));
}

uint64_t CurlHttp::stream(env::HttpRequest request, DataCallback data, DoneCallback done) {
  return start(std::move(request), std::move(data), std::move(done));
}

uint64_t CurlHttp::start(env::HttpRequest request, DataCallback data, DoneCallback done) {
  const uint64_t id = next_id_++;
  auto transfer = std::make_unique<Transfer>();
  transfer->owner = this;
  transfer->id = id;
  transfer->request = std::move(request);
  transfer->streams = static_cast<bool>(data);
  listeners_.emplace(id, Listener{std::move(data), std::move(done)});
  submit({id, std::move(transfer)});
  return id;
}

void CurlHttp::cancel(uint64_t id) {
  if (listeners_.erase(id) != 0) submit({id, nullptr});
}

void CurlHttp::submit(Order order) {
  {
    const std::lock_guard lock(mutex_);
    orders_.push_back(std::move(order));
  }
  curl_multi_wakeup(multi_);
}

// ---- the thread
// ------------------------------------------------------------------------------------

void CurlHttp::run() {
  for (;;) {
    {
      const std::lock_guard lock(mutex_);
      if (closing_) break;
    }
    take_orders();
    int active = 0;
    curl_multi_perform(multi_, &active);
    collect_finished();
    curl_multi_poll(multi_, nullptr, 0, kWaitMs, nullptr);
  }
  while (!running_.empty()) end(running_.begin()->first);
  curl_multi_cleanup(multi_);
}

void CurlHttp::take_orders() {
  std::vector<Order> orders;
  {
    const std::lock_guard lock(mutex_);
    orders.swap(orders_);
  }
  for (Order& order : orders) {
    if (order.transfer) {
      begin(std::move(order.transfer));
    } else {
      end(order.id);
    }
  }
}

void CurlHttp::begin(std::unique_ptr<Transfer> transfer) {
  const uint64_t id = transfer->id;
  if (!transfer->prepare(tls_) || curl_multi_add_handle(multi_, transfer->easy) != CURLM_OK) {
    tell(id, {0, "", env::HttpAnswer::Sent::kNo, "libcurl refused the request"});
    return;
  }
  running_.emplace(id, std::move(transfer));
}

void CurlHttp::end(uint64_t id) {
  const auto found = running_.find(id);
  if (found == running_.end()) return;
  curl_multi_remove_handle(multi_, found->second->easy);
  running_.erase(found);
}

void CurlHttp::collect_finished() {
  int left = 0;
  while (const CURLMsg* message = curl_multi_info_read(multi_, &left)) {
    if (message->msg != CURLMSG_DONE) continue;
    const CURLcode code = message->data.result;
    char* pointer = nullptr;
    curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, &pointer);
    Transfer& transfer = *reinterpret_cast<Transfer*>(pointer);
    tell(transfer.id, transfer.answer(code));
    end(transfer.id);
  }
}

void CurlHttp::tell(uint64_t id, env::HttpAnswer answer) {
  loop_.post([this, alive = alive_, id, answer = std::move(answer)]() mutable {
    if (!*alive) return;
    auto listener = listeners_.extract(id);
    if (listener) listener.mapped().done(std::move(answer));
  });
}

size_t CurlHttp::on_upload(char* to, size_t one, size_t count, void* transfer) {
  Transfer& t = *static_cast<Transfer*>(transfer);
  const size_t bytes = std::min(one * count, t.request.body.size() - t.uploaded);
  std::memcpy(to, t.request.body.data() + t.uploaded, bytes);
  t.uploaded += bytes;
  return bytes;
}

size_t CurlHttp::on_body(char* bytes, size_t one, size_t count, void* transfer) {
  Transfer& t = *static_cast<Transfer*>(transfer);
  const std::string_view piece(bytes, one * count);
  long status = 0;
  curl_easy_getinfo(t.easy, CURLINFO_RESPONSE_CODE, &status);
  if (t.streams && status == 200) return on_data(t, piece);
  const size_t limit = t.streams ? kOtherAnswerBytesMax : t.request.answer_bytes_max;
  if (t.body.size() + piece.size() > limit) {
    t.too_large = true;
    return 0;
  }
  t.body.append(piece);
  return piece.size();
}

size_t CurlHttp::on_data(Transfer& transfer, std::string_view bytes) {
  if (*transfer.waiting + bytes.size() > transfer.request.answer_bytes_max) {
    transfer.too_large = true;
    return 0;
  }
  *transfer.waiting += bytes.size();
  CurlHttp* self = transfer.owner;
  self->loop_.post([self, alive = self->alive_, id = transfer.id, waiting = transfer.waiting,
                    copy = std::string(bytes)] {
    *waiting -= copy.size();
    if (!*alive) return;
    const auto found = self->listeners_.find(id);
    if (found == self->listeners_.end()) return;
    // It may cancel itself: kept alive until it returns.
    DataCallback data = std::move(found->second.data);
    data(copy);
    if (!*alive) return;
    if (const auto still = self->listeners_.find(id); still != self->listeners_.end()) {
      still->second.data = std::move(data);
    }
  });
  return bytes.size();
}

}  // namespace bascule::posix
