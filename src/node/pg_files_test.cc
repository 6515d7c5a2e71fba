#include "node/pg_files.h"

#include <gtest/gtest.h>

namespace bascule::node {
namespace {

NodeConfig sample_config() {
  NodeConfig config;
  config.agent.name = NodeName::parse("n1").value();
  config.agent.host = "10.0.0.1";
  config.agent.port = 5432;
  config.data_dir = "/data";
  config.run_dir = "/run/bascule";
  config.replication_password = "secret";
  return config;
}

control::Upstream upstream() { return {NodeName::parse("n2").value(), "10.0.0.2", 5433}; }

bool has_line(const std::string& text, const std::string& line) {
  return ("\n" + text).find("\n" + line + "\n") != std::string::npos;
}

TEST(Quoting, ConfigurationValuesDoubleQuotesAndBackslashes) {
  EXPECT_EQ(quote_conf("it's a \\"), "'it''s a \\\\'");
  EXPECT_EQ(quote_conf("two\nlines"), "'two lines'");
}

TEST(Quoting, ConnectionStringsEscapeQuotesAndBackslashes) {
  EXPECT_EQ(quote_conninfo("it's a \\"), "'it\\'s a \\\\'");
  EXPECT_EQ(quote_conninfo(""), "''");
}

TEST(Conf, APrimaryHasNoUpstreamAndItsSynchronousSet) {
  const NodeConfig config = sample_config();
  const std::string conf =
      render_conf({config, 15, "n1_ab", "/run/bascule/pgpass"}, {{}, {"n2_x"}, false});
  EXPECT_TRUE(has_line(conf, "primary_conninfo = ''"));
  EXPECT_TRUE(has_line(conf, "primary_slot_name = ''"));
  EXPECT_TRUE(has_line(conf, "synchronous_standby_names = 'FIRST 1 (\"n2_x\")'"));
  EXPECT_TRUE(has_line(conf, "restart_after_crash = 'off'"));
}

TEST(Conf, ConsumersOfFailoverSlotsWaitForTheSynchronousStandbys) {
  const NodeConfig config = sample_config();
  const auto conf = [&](int version, std::vector<std::string> standbys) {
    return render_conf({config, version, "n1_ab", "/p"}, {{}, std::move(standbys), false});
  };
  EXPECT_TRUE(has_line(conf(17, {"n2_x", "n-3_y"}),
                       "synchronized_standby_slots = 'bascule_n2,bascule_n_3'"));
  EXPECT_TRUE(has_line(conf(17, {}), "synchronized_standby_slots = ''"));
  EXPECT_TRUE(has_line(conf(17, kNobody), "synchronized_standby_slots = ''"));
  EXPECT_EQ(conf(16, {"n2_x"}).find("synchronized_standby_slots"), std::string::npos);
}

TEST(Conf, AStandbyNamesItsUpstreamAndKeepsThePasswordOut) {
  const NodeConfig config = sample_config();
  const std::string conf =
      render_conf({config, 15, "n1_ab", "/run/bascule/pgpass"}, {upstream(), {}, false});
  EXPECT_NE(conf.find("host=''10.0.0.2'' port=5433"), std::string::npos);
  EXPECT_NE(conf.find("application_name=''n1_ab''"), std::string::npos);
  EXPECT_TRUE(has_line(conf, "primary_slot_name = 'bascule_n1'"));
  EXPECT_TRUE(has_line(conf, "bascule.upstream = 'n2'"));
  EXPECT_EQ(conf.find("secret"), std::string::npos);
}

TEST(Conf, WhatSafetyDependsOnComesAfterTheUsersParameters) {
  NodeConfig config = sample_config();
  config.parameters = {{"fsync", "off"}, {"wal_level", "logical"}};
  const std::string conf = render_conf({config, 15, "n1_ab", "/p"}, {});
  EXPECT_GT(conf.rfind("fsync = 'on'"), conf.find("fsync = 'off'"));
  EXPECT_TRUE(has_line(conf, "wal_level = 'logical'"));
  EXPECT_FALSE(has_line(conf, "wal_level = 'replica'"));
}

TEST(Conf, WhileABallotIsOutConflictsNeverHoldReplayUp) {
  const NodeConfig config = sample_config();
  const std::string with = render_conf({config, 15, "", ""}, {{}, {}, true});
  EXPECT_TRUE(has_line(with, "max_standby_streaming_delay = '0'"));
  EXPECT_EQ(render_conf({config, 15, "", ""}, {}).find("max_standby"), std::string::npos);
}

// A member's own settings are renewed on a running server; what its operations have set stays.
TEST(RenderConf, OwnSettingsAreRenewedAndThoseOfOperationsAreKept) {
  NodeConfig old_config, config;
  old_config.parameters = {{"work_mem", "1MB"}, {"restore_command", "old"}};
  config.parameters = {{"work_mem", "2MB"}};
  control::Upstream upstream{NodeName::parse("n1").value(), "10.0.0.1", 5432};
  upstream.restore_command = "cp %f %p";
  const ServerSettings none;
  const ServerSettings settings[] = {none, {upstream, {"n2_a", "n3_b"}, true, 2}};
  for (const ServerSettings& in_force : settings) {
    for (const ServerSettings& others : settings) {
      const ConfInputs before{old_config, 17, "n1_c", "/p"}, now{config, 17, "n1_c", "/p"};
      EXPECT_EQ(with_operations_of(render_conf(now, others), render_conf(before, in_force)),
                render_conf(now, in_force));
    }
  }
  EXPECT_EQ(with_operations_of(render_conf({config, 17, "", ""}, none), "port = '1'\n"),
            "port = '1'\n")
      << "not of ours: as it is";
}

TEST(DynamicConf, ReadsBackAsItWasAndEveryChangeHasAnotherMark) {
  const std::map<std::string, std::string> parameters = {
      {"search_path", "\"$user\", public"}, {"log_line_prefix", "it's \\ %m = '"}, {"jit", "off"}};
  const DynamicConf conf = render_dynamic(parameters);
  EXPECT_EQ(parse_dynamic(conf.text), parameters);
  EXPECT_TRUE(has_line(conf.text, "bascule.parameters = '" + conf.mark + "'"));
  EXPECT_NE(render_dynamic({}).mark, conf.mark);
  EXPECT_TRUE(parse_dynamic("# a = 'b'\nnonsense\nx = '\n").size() < 2);
}

TEST(DynamicConf, WhatEndsReplicationOrSafetyIsRefused) {
  for (const std::map<std::string, std::string>& bad :
       std::vector<std::map<std::string, std::string>>{{{"fsync", "off"}},
                                                       {{"primary_conninfo", "x"}},
                                                       {{"Work_mem", "1"}},
                                                       {{"", "1"}},
                                                       {{"a b", "1"}},
                                                       {{"work_mem", "1\n2"}},
                                                       {{"bascule.upstream", "x"}},
                                                       {{"wal_level", "minimal"}},
                                                       {{"max_connections", "3"}},
                                                       {{"max_wal_senders", "0"}}}) {
    EXPECT_FALSE(check_dynamic(bad)) << bad.begin()->first;
  }
  EXPECT_TRUE(check_dynamic({{"work_mem", "64MB"}, {"pg_stat_statements.max", "5"}}));
}

TEST(Conf, TheMembersOwnParametersComeAfterTheClustersAndFloorsAfterBoth) {
  NodeConfig config = sample_config();
  config.parameters = {{"work_mem", "1MB"}};
  ServerSettings settings;
  settings.floors = {{"max_connections", "200"}};
  const std::string conf = render_conf({config, 15, "n1_ab", "/p"}, settings);
  EXPECT_LT(conf.find("include_if_exists 'bascule.dynamic.conf'"), conf.find("work_mem = '1MB'"));
  EXPECT_LT(conf.find("work_mem = '1MB'"), conf.find("max_connections = '200'"));
}

TEST(Passfile, ColonsAndBackslashesAreEscaped) {
  NodeConfig config = sample_config();
  config.replication_user = "re:pl";
  config.replication_password = "a:b\\c";
  EXPECT_EQ(render_passfile(config), "*:*:*:re\\:pl:a\\:b\\\\c\n");
}

TEST(SyncStandbys, RoundTrip) {
  for (const std::vector<std::string>& names :
       {std::vector<std::string>{}, {"a"}, {"n1_x", "n2-y"}, {"odd\"name", "b,c)", "d"}}) {
    for (size_t count = 1; count <= std::max<size_t>(names.size(), 1); ++count) {
      const auto parsed = parse_sync_standbys(render_sync_standbys(names, count));
      ASSERT_TRUE(parsed);
      EXPECT_EQ(parsed->names, names);
      EXPECT_EQ(parsed->count, count);
    }
  }
}

TEST(SyncStandbys, SeveralAreAnyOfThem) {
  EXPECT_EQ(render_sync_standbys({"a"}), "FIRST 1 (\"a\")");
  EXPECT_EQ(render_sync_standbys({"a", "b", "c"}, 2), "ANY 2 (\"a\",\"b\",\"c\")");
}

TEST(SyncStandbys, SomebodyElsesFormIsRefused) {
  for (const char* text : {"*", "a, b", "ANY 1 (\"a\")", "FIRST 2 (\"a\")", "FIRST 1 (\"a\"",
                           "FIRST 1 (\"a\" \"b\")", "FIRST 1 ()", "FIRST 1 (\"a\",)",
                           "FIRST 1 (\"a\",\"b\")", "ANY 3 (\"a\",\"b\")", "ANY 0 (\"a\",\"b\")"}) {
    EXPECT_FALSE(parse_sync_standbys(text)) << text;
  }
}

TEST(Include, IsTheLastLineOnce) {
  EXPECT_EQ(with_include("port = 1"), "port = 1\ninclude 'bascule.conf'\n");
  EXPECT_EQ(with_include("port = 1\ninclude 'bascule.conf'\n\n"),
            "port = 1\ninclude 'bascule.conf'\n\n");
  // Something was added behind it, which would win.
  EXPECT_EQ(with_include("include 'bascule.conf'\nport = 1\n"),
            "include 'bascule.conf'\nport = 1\ninclude 'bascule.conf'\n");
}

TEST(AutoConf, OnlyWhatIsOursIsRemoved) {
  std::vector<std::string> removed;
  const std::string cleaned = without_owned(
      "# Do not edit\nwork_mem = '5MB'\nPrimary_ConnInfo = 'x'\nrecovery_target = 'immediate'\n",
      RecoveryTarget::kRemove, removed);
  EXPECT_EQ(cleaned, "# Do not edit\nwork_mem = '5MB'\n");
  EXPECT_EQ(removed, (std::vector<std::string>{"primary_conninfo", "recovery_target"}));
}

TEST(AutoConf, WhereTheRecoveryOfANewClusterEndsIsTheOperators) {
  std::vector<std::string> removed;
  const std::string cleaned = without_owned(
      "recovery_target_time = 'x'\nrecovery_target_timeline = '3'\n"
      "recovery_target_action = 'pause'\nprimary_conninfo = 'x'\n",
      RecoveryTarget::kKeep, removed);
  EXPECT_EQ(cleaned, "recovery_target_time = 'x'\nrecovery_target_timeline = '3'\n");
  EXPECT_EQ(removed, (std::vector<std::string>{"recovery_target_action", "primary_conninfo"}));
}

constexpr char kControlData[] =
    "pg_control version number:            1300\n"
    "Database system identifier:           7575135483212837000\n"
    "Database cluster state:               shut down\n"
    "Latest checkpoint location:           0/4000028\n"
    "Latest checkpoint's REDO location:    0/4000028\n"
    "Latest checkpoint's TimeLineID:       5\n"
    "Latest checkpoint's PrevTimeLineID:   5\n"
    "Bytes per WAL segment:                16777216\n";

TEST(ControlDataOutput, IsParsed) {
  const auto control = parse_controldata(kControlData);
  ASSERT_TRUE(control);
  EXPECT_EQ(control->system_id, 7575135483212837000u);
  EXPECT_TRUE(control->cleanly_stopped());
  EXPECT_EQ(control->checkpoint_timeline, Timeline{5});
  EXPECT_EQ(control->checkpoint, Lsn{0x4000028});
  EXPECT_EQ(control->segment_bytes, 16777216u);
}

TEST(ControlDataOutput, AnotherTextIsAnError) {
  EXPECT_FALSE(parse_controldata(""));
  EXPECT_FALSE(parse_controldata("pg_controldata: error: could not open file"));
  std::string broken = kControlData;
  broken.replace(broken.find("7575135483212837000"), 19, "not a number at all");
  EXPECT_FALSE(parse_controldata(broken));
}

TEST(WalRecordEnd, IsAlignedWithinAPage) {
  EXPECT_EQ(wal_record_end(Lsn{0x4000028}, 114, 16 << 20), Lsn{0x40000A0});
}

TEST(WalRecordEnd, CountsTheHeadersOfThePagesItCrosses) {
  // 16 bytes of room on the page, then a page header of 24, then the other 98, aligned.
  EXPECT_EQ(wal_record_end(Lsn{0x4001FF0}, 114, 16 << 20), Lsn{0x4002000 + 24 + 104});
  // The first page of a segment has a header of 40.
  EXPECT_EQ(wal_record_end(Lsn{0x4FFFFF0}, 114, 16 << 20), Lsn{0x5000000 + 40 + 104});
}

TEST(WalRecordEnd, ThatFillsItsPageEndsAtThePagesEnd) {
  EXPECT_EQ(wal_record_end(Lsn{0x4002000 - 120}, 120, 16 << 20), Lsn{0x4002000});
}

TEST(WaldumpLine, IsParsed) {
  const auto record = parse_waldump_line(
      "rmgr: XLOG        len (rec/tot):    114/   114, tx:          0, lsn: 0/04000028, prev "
      "0/03000110, desc: CHECKPOINT_SHUTDOWN redo 0/4000028; tli 1; prev tli 1\n");
  ASSERT_TRUE(record);
  EXPECT_EQ(record->manager, "XLOG");
  EXPECT_EQ(record->total_bytes, 114u);
  EXPECT_TRUE(record->description.starts_with("CHECKPOINT_SHUTDOWN "));
  EXPECT_FALSE(parse_waldump_line("pg_waldump: error: could not find a valid record"));
}

TEST(Progress, IsFoundInWhatTheToolsPrint) {
  EXPECT_EQ(parse_progress("    12345/67890 kB (18%), 0/1 tablespace\r"), 18);
  EXPECT_EQ(parse_progress("1/2 kB (50%)\n2/2 kB (100%) copied"), 100);
  EXPECT_EQ(parse_progress("waiting for checkpoint"), std::nullopt);
  EXPECT_EQ(parse_progress("(x%)"), std::nullopt);
}

TEST(WhyItEnded, SaysTheFatalMessagesAndNothingOfClients) {
  const std::string log =
      "2026-11-21 12:00:00 UTC [7] u@d ERROR:  duplicate key\n"
      "2026-11-21 12:00:00 UTC [7] u@d STATEMENT:  ALTER ROLE u PASSWORD 'secret'\n"
      "2026-11-21 12:00:01 UTC [1] FATAL:  could not create lock file\n"
      "2026-11-21 12:00:01 UTC [1] LOG:  database system is shut down\n";
  EXPECT_EQ(why_it_ended(log), "2026-11-21 12:00:01 UTC [1] FATAL:  could not create lock file");
  EXPECT_EQ(why_it_ended(""), "");
}

TEST(TimelineOrigin, IsTheSwitchPointOfTheLastLine) {
  EXPECT_EQ(begin_in_history("1\t0/3000148\tno recovery target specified\n"), Lsn{0x3000148});
  EXPECT_EQ(begin_in_history("# kept\n1\t0/3000148\tx\n\n2\t1/5000060\ty\n"), (Lsn{0x1'0500'0060}));
  EXPECT_EQ(begin_in_history("# reserved by Bascule, never used\n"), Lsn{});
  EXPECT_EQ(begin_in_history("1\tnonsense\tx"), Lsn{});
  EXPECT_EQ(begin_in_history("1\t0/10"), Lsn{0x10});
}

TEST(TimelineOrigin, ReadsTheWholeHeaderOfTheFirstRecord) {
  constexpr uint64_t kSegment = 16 << 20;
  EXPECT_EQ(wal_header_bytes(Lsn{0x3000148}, kSegment), 24u);
  EXPECT_EQ(wal_header_bytes(Lsn{0x3001FE8}, kSegment), 24u);  // it ends with the page
  EXPECT_EQ(wal_header_bytes(Lsn{0x3001FF0}, kSegment), 48u);  // page header within it
  EXPECT_EQ(wal_header_bytes(Lsn{0x3002000}, kSegment), 48u);  // before it
  EXPECT_EQ(wal_header_bytes(Lsn{0x4000000}, kSegment), 64u);  // a segment's first page
  EXPECT_EQ(wal_header_bytes(Lsn{0x3FFFFF8}, kSegment), 64u);
}

TEST(WalFileName, IsTimelineAndNumberInTwoParts) {
  EXPECT_EQ(wal_file_name({Timeline{3}, Lsn{0x1'0500'0060}}, 16 << 20), "000000030000000100000005");
}

}  // namespace
}  // namespace bascule::node
