#include "cli/import_settings.h"

#include <iterator>

namespace bascule::cli {

constexpr std::string_view kLater = "no such limit or time-out in this version";
constexpr std::string_view kKernel = "the kernel's defaults are used";

const PlainSetting kPlainSettings[] = {
    {"application_name_add_host", Fate::kLost, "application_name is passed on as it is"},
    {"auth_ldap_options", Fate::kLost, "no LDAP"},
    {"auth_ldap_parameter", Fate::kLost, "no LDAP"},
    {"autodb_idle_timeout", Fate::kNoNeed, "pools go when they are empty"},
    {"cancel_wait_timeout", Fate::kNoNeed, "cancel requests are not queued behind a pool"},
    {"client_tls13_ciphers", Fate::kNoNeed, "those of OpenSSL are used"},
    {"client_tls_dheparams", Fate::kNoNeed, "chosen by OpenSSL"},
    {"client_tls_ecdhcurve", Fate::kNoNeed, "chosen by OpenSSL"},
    {"conffile", Fate::kNoNeed, "-c FILE"},
    {"disable_pqexec", Fate::kLost, "simple queries are always passed"},
    {"dns_max_ttl", Fate::kNoNeed, "names are resolved by the system at each connection"},
    {"dns_nxdomain_ttl", Fate::kNoNeed, "names are resolved by the system at each connection"},
    {"dns_zone_check_period", Fate::kNoNeed, "names are resolved by the system at each connection"},
    {"ignore_startup_parameters", Fate::kNoNeed,
     "every start-up parameter is taken and set on the servers"},
    {"job_name", Fate::kNoNeed, ""},
    {"listen_backlog", Fate::kNoNeed, kKernel},
    {"log_connections", Fate::kNoNeed, "counted, not logged"},
    {"log_disconnections", Fate::kNoNeed, "counted, not logged"},
    {"log_pooler_errors", Fate::kNoNeed, "always logged"},
    {"log_stats", Fate::kNoNeed, "see the metrics"},
    {"max_packet_size", Fate::kNoNeed, "messages stream; PostgreSQL's own limit holds"},
    {"peer_id", Fate::kNoNeed, "peers know their clients by the secret of a cancel request"},
    {"pkt_buf", Fate::kNoNeed, "a connection holds a buffer only while its peer blocks"},
    {"query_wait_notify", Fate::kLost, kLater},
    {"resolv_conf", Fate::kLost, "the system's is used"},
    {"sbuf_loopcnt", Fate::kNoNeed, "the engine has a budget of its own"},
    {"scram_iterations", Fate::kNoNeed, "verifiers are made by PostgreSQL"},
    {"server_fast_close", Fate::kNoNeed, "sessions move as soon as nothing runs"},
    {"server_login_retry", Fate::kNoNeed, "attempts are 25 to 50 ms apart while a client waits"},
    {"server_round_robin", Fate::kLost, "the connection used last is taken first"},
    {"server_tls13_ciphers", Fate::kNoNeed, "those of OpenSSL are used"},
    {"service_name", Fate::kNoNeed, ""},
    {"so_reuseport", Fate::kNoNeed, "always; one process has workers enough"},
    {"stats_period", Fate::kNoNeed, "metrics are counters: whoever reads them has the period"},
    {"suspend_timeout", Fate::kNoNeed, ""},
    {"syslog", Fate::kLost, "standard error or a file; journald takes the first"},
    {"syslog_facility", Fate::kLost, "standard error or a file; journald takes the first"},
    {"syslog_ident", Fate::kLost, "standard error or a file; journald takes the first"},
    {"tcp_defer_accept", Fate::kNoNeed, kKernel},
    {"tcp_keepalive", Fate::kNoNeed, kKernel},
    {"tcp_keepcnt", Fate::kNoNeed, kKernel},
    {"tcp_keepidle", Fate::kNoNeed, kKernel},
    {"tcp_keepintvl", Fate::kNoNeed, kKernel},
    {"tcp_socket_buffer", Fate::kNoNeed, kKernel},
    {"tcp_user_timeout", Fate::kNoNeed, kKernel},
    {"track_extra_parameters", Fate::kNoNeed, "every SET is tracked"},
    {"unix_socket_group", Fate::kLost, "the socket belongs to the user that the daemon runs as"},
    {"unix_socket_mode", Fate::kLost, "the socket belongs to the user that the daemon runs as"},
};
const size_t kPlainSettingsCount = std::size(kPlainSettings);

}  // namespace bascule::cli
