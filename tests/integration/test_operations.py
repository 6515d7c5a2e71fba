"""What operators do to a running cluster: restarts, parameters, reinitialisation, schedules, tags. Real servers."""
import json
import time
import urllib.error
import urllib.request

import psycopg2

from harness import Cluster, wait_for


def call(cluster, method, path, body=None, port=None):
    """(status, document) of the API's answer."""
    url = f"http://{cluster.info['api']['host']}:{port or cluster.info['api']['port']}{path}"
    request = urllib.request.Request(url, method=method, data=json.dumps(body).encode() if body is not None else None)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read() or b"null")


def started(cluster, member):
    return cluster.query(member, "SELECT pg_postmaster_start_time()")[0][0]


def setting(cluster, member, name):
    return cluster.query(member, "SELECT current_setting(%s)", name)[0][0]


def replicas(cluster):
    return [m for m in cluster.members if m != cluster.primary()]


def follow(cluster, identity, timeout=60):
    return wait_for(lambda: (o := call(cluster, "GET", f"/operations/{identity}")[1]).get("done") and o, timeout,
                    f"the end of {identity}")


def test_rolling_restart_under_load_restarts_everybody_and_loses_nothing():
    with Cluster() as cluster:
        primary = cluster.primary()
        before = {m: started(cluster, m) for m in cluster.members}
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            done = cluster.run_cli("restart", "--json", timeout=120)
            task = json.loads(done.stdout)
            ledger.wait_acks(50)
        assert (task["kind"], task["outcome"]) == ("restart", "done")
        after = {m: started(cluster, m) for m in cluster.members}
        assert all(after[m] > before[m] for m in cluster.members)
        assert max(after, key=after.get) == primary == cluster.primary(), "the primary last, in place"
        assert cluster.epoch() == 1
        cluster.finish(ledger, "rolling restart")


def test_rolling_restart_by_switchover_moves_the_primary_once():
    with Cluster() as cluster:
        old = cluster.primary()
        before = {m: started(cluster, m) for m in cluster.members}
        cluster.run_cli("restart", "--by-switchover", timeout=120)
        assert cluster.primary() != old and cluster.epoch() == 2
        assert all(started(cluster, m) > before[m] for m in cluster.members)


def test_parameters_reach_every_member_and_those_that_need_a_restart_wait_for_it():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "parameters.work_mem=7MB", "parameters.log_min_duration_statement=1234")
        for member in cluster.members:
            wait_for(lambda: setting(cluster, member, "work_mem") == "7MB", 10, f"work_mem of {member}")
        assert not any(m["pendingRestart"] for m in cluster.status()["members"])
        status, _ = call(cluster, "PATCH", "/config", {"parameters": {"max_connections": 150, "work_mem": None}})
        assert status == 200
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "pending restart shown")
        assert all(setting(cluster, m, "work_mem") == "4MB" for m in cluster.members)
        assert "pending restart" in cluster.run_cli("status").stdout
        # Less than the primary had: it goes first, as replicas can't have less than it.
        cluster.run_cli("restart", "--pending", timeout=120)
        wait_for(lambda: not any(m["pendingRestart"] for m in cluster.status()["members"]), 15, "nobody waits any more")
        for member in cluster.members:
            assert setting(cluster, member, "max_connections") == "150", member
        cluster.wait_healthy()


def test_a_parameter_that_postgresql_would_refuse_is_shown_and_does_not_harm():
    with Cluster() as cluster:
        refused = cluster.run_cli("config", "set", "parameters.fsync=off", check=False)
        assert refused.returncode == 2 and "managed by Bascule" in refused.stderr
        cluster.run_cli("config", "set", "parameters.work_mem=banana")
        wait_for(lambda: all("banana" in m["configProblem"] for m in cluster.status()["members"]), 10,
                 "the refusal is shown for every member")
        cluster.run_cli("restart", replicas(cluster)[0], timeout=120)
        cluster.wait_healthy()
        cluster.run_cli("config", "set", "parameters.work_mem=8MB")
        for member in cluster.members:
            wait_for(lambda: setting(cluster, member, "work_mem") == "8MB", 10, "the next good one is taken")
        wait_for(lambda: not any(m["configProblem"] for m in cluster.status()["members"]), 10, "no member shows the refusal")


def test_a_value_that_postgresql_can_not_start_with_locks_nobody_out_for_good():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "parameters.shared_preload_libraries=nosuch")  # `postgres -C` takes it
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "pending restart shown")
        primary = cluster.primary()
        failed = cluster.run_cli("restart", "--pending", "--timeout", "5s", timeout=120, check=False)
        assert failed.returncode != 0, "the first replica does not come back"
        assert cluster.primary() == primary, "and nobody else was restarted"
        cluster.run_cli("config", "set", "parameters.shared_preload_libraries=")
        cluster.wait_healthy()
        for member in cluster.members:
            assert setting(cluster, member, "shared_preload_libraries") == ""
        # Without power before it was set right: no member starts, and what is set then reaches all.
        cluster.run_cli("config", "set", "parameters.shared_preload_libraries=nosuch")
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "pending restart shown")
        for member in cluster.members:
            cluster.kill_host(member)
        for member in cluster.members:
            cluster.release(member)

        def could_not_start(member):
            log = cluster.home(member) / "run" / "postgresql.log"
            return 'could not access file "nosuch"' in log.read_text().rsplit("shut down at", 1)[-1][-20000:]
        wait_for(lambda: all(map(could_not_start, cluster.members)), 60, "nobody starts")
        assert cluster.primary() == ""
        cluster.run_cli("config", "set", "parameters.shared_preload_libraries=")
        cluster.wait_healthy()


def test_rules_and_own_parameters_of_a_member_reach_a_running_server():
    with Cluster() as cluster:
        primary, replica = cluster.primary(), replicas(cluster)[0]
        before = {m: (started(cluster, m), setting(cluster, m, "synchronous_standby_names"),
                      setting(cluster, m, "primary_conninfo")) for m in (primary, replica)}

        def rewrite(member, old, new):
            config = cluster.home(member) / "bascule.yaml"
            assert old in config.read_text(), config.read_text()
            config.write_text(config.read_text().replace(old, new, 1))
            agent = cluster.agent(member)
            cluster.kill(agent)
            wait_for(lambda: cluster.agent(member) != agent, 20, "the agent is started again")

        def rules(member):
            return [row[0] for row in cluster.query(member, "SELECT error FROM pg_hba_file_rules WHERE user_name = '{intern}'")]
        for member in (primary, replica):
            rewrite(member, "  postgresql:\n", "  postgresql:\n    hba: [host all intern 192.0.2.0/24 reject, "
                    "host all all all scram-sha-256]\n    parameters: {work_mem: 6MB, max_connections: 130}\n")
        for member in (primary, replica):
            wait_for(lambda m=member: setting(cluster, m, "work_mem") == "6MB", 30, f"{member} has read its settings")
            assert rules(member) == [None]
            shown = (started(cluster, member), setting(cluster, member, "synchronous_standby_names"),
                     setting(cluster, member, "primary_conninfo"))
            assert shown == before[member], "not restarted, and what operations have set is as it was"
        wait_for(lambda: {m["name"] for m in cluster.status()["members"] if m["pendingRestart"]} == {primary, replica}, 15,
                 "max_connections waits for a restart")
        for member in (primary, replica):
            rewrite(member, "reject, ", "refuse, ")
        wait_for(lambda: sum("pg_hba.conf, line" in m["configProblem"] for m in cluster.status()["members"]) == 2, 30,
                 "rules that PostgreSQL does not understand are shown")
        for member in (primary, replica):
            rewrite(member, "refuse, ", "reject, ")
        wait_for(lambda: not any(m["configProblem"] for m in cluster.status()["members"]), 30, "set right")
        cluster.wait_healthy()
        assert started(cluster, primary) == before[primary][0]


def test_put_replaces_the_configuration_and_history_shows_it():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "drain_timeout=2s", "parameters.work_mem=9MB")
        status, _ = call(cluster, "PUT", "/config", {"ttl": "6s", "parameters": {"max_connections": "200"}})
        assert status == 200
        config = wait_for(lambda: (c := call(cluster, "GET", "/config")[1])["ttlMs"] == 6000 and c, 10, "the new ttl")
        assert config["drainTimeoutMs"] == 3000, "the default again"
        assert config["parameters"] == {"max_connections": "200"}
        assert call(cluster, "PUT", "/config", {"ttl": "1ms"})[0] == 400
        change = call(cluster, "GET", "/config/history")[1][-1]["changes"]
        assert change["drain_timeout"] == ["2s", "3s"] and change["parameters.work_mem"][1] == ""
        wait_for(lambda: setting(cluster, cluster.primary(), "work_mem") == "4MB", 10, "the default again")


def test_reinit_copies_a_replica_anew_and_never_the_leader():
    with Cluster() as cluster:
        primary, victim = cluster.primary(), replicas(cluster)[0]
        refused = cluster.run_cli("reinit", primary, "--yes", check=False)
        assert refused.returncode == 3 and "is the leader" in refused.stderr
        assert cluster.run_cli("reinit", victim, check=False).returncode == 2, "not without being asked"
        marker = cluster.data(victim) / "left-by-the-old-copy"
        marker.write_text("x")
        cluster.run_cli("reinit", victim, "--yes", timeout=120)
        assert not marker.exists()
        cluster.wait_healthy()
        status, answer = call(cluster, "POST", "/reinitialize", {"member": victim})
        assert status == 202
        assert follow(cluster, answer["operation"])["outcome"] == "done"


def test_a_scheduled_switchover_happens_at_its_time_and_can_be_taken_back():
    with Cluster() as cluster:
        old = cluster.primary()
        target = replicas(cluster)[0]
        cluster.run_cli("switchover", "--candidate", target, "--at", "+10min")
        shown = call(cluster, "GET", "/cluster")[1]["scheduled_switchover"]
        assert shown["to"] == target and shown["from"] == old
        assert call(cluster, "DELETE", "/switchover")[0] == 200
        assert "scheduled_switchover" not in call(cluster, "GET", "/cluster")[1]
        assert call(cluster, "DELETE", "/switchover")[0] == 404
        at = time.time() + 4
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
        status, _ = call(cluster, "POST", "/switchover", {"candidate": target, "scheduled_at": stamp})
        assert status == 202
        assert cluster.wait_primary(timeout=20, other_than=old) == target
        assert time.time() >= int(at)
        wait_for(lambda: call(cluster, "GET", "/operations")[1][0]["outcome"] == "done", 10, "its outcome")
        assert call(cluster, "POST", "/switchover", {"scheduled_at": "2001-01-01T00:00:00Z"})[0] == 400


def test_a_forced_failover_says_first_what_it_may_lose():
    with Cluster(up_options=["--sync", "off"]) as cluster:
        old = cluster.primary()
        preview = call(cluster, "GET", "/failover/preview")[1]
        assert sorted(m["member"] for m in preview["members"]) == sorted(replicas(cluster))
        asked = cluster.run_cli("failover", "--force", "--candidate", replicas(cluster)[0], check=False)
        assert asked.returncode == 2 and "may lose" in asked.stderr and "renewal" in asked.stderr
        assert cluster.primary() == old
        cluster.run_cli("failover", "--force", "--yes", "--candidate", replicas(cluster)[0])
        assert cluster.wait_primary(timeout=20) != old


def test_tags_decide_who_is_waited_for_read_from_and_streamed_from():
    with Cluster(nodes=3) as cluster:
        leader = cluster.primary()
        relay, last = replicas(cluster)
        tags = {relay: "  noloadbalance: true\n  clonefrom: true\n", last: f"  nosync: true\n  replicatefrom: {relay}\n"}
        for member, text in tags.items():
            config = cluster.home(member) / "bascule.yaml"
            config.write_text(config.read_text().replace("  superuser:\n", text + "  superuser:\n", 1))
            cluster.kill(int((cluster.home(member) / "agent.pid").read_text()))

        def upstream():
            try:
                return [r[0] for r in cluster.query(relay, "SELECT application_name FROM pg_stat_replication")]
            except psycopg2.Error:
                return []
        wait_for(lambda: any(n.startswith(last) for n in upstream()), 30, f"{last} streams from {relay}")
        # PostgreSQL is seen before the record of it.
        wait_for(lambda: [m for m in cluster.status()["members"] if m["name"] == last and m["upstream"] == relay
                          and f"replicatefrom {relay}" in m["tags"]], 10, "its record says so")
        wait_for(lambda: relay in setting(cluster, leader, "synchronous_standby_names"), 20, "the other one is waited for")
        wait_for(lambda: (f"bascule_{last}",) not in cluster.query(leader, "SELECT slot_name FROM pg_replication_slots"), 20,
                 "no slot at the leader that would hold WAL for ever")
        api = {n["name"]: n["api"]["port"] if "api" in n else n["apiPort"] for n in cluster.info["nodes"]}
        assert call(cluster, "GET", "/replica", port=api[relay])[0] == 503, "noloadbalance"
        assert call(cluster, "GET", "/replica", port=api[last])[0] == 200
        cluster.query(leader, "CREATE TABLE relayed AS SELECT 1 AS x")
        wait_for(lambda: cluster.query(last, "SELECT count(*) FROM pg_class WHERE relname = 'relayed'")[0][0] == 1, 10,
                 "a change arrives by way of the relay")
        cluster.kill_host(relay)

        def direct():
            rows = cluster.query(leader, "SELECT application_name FROM pg_stat_replication WHERE state = 'streaming'")
            return any(r[0].startswith(last) for r in rows)
        wait_for(direct, 30, f"{last} streams from the leader when its relay is dead")
        cluster.release(relay)
        wait_for(lambda: any(n.startswith(last) for n in upstream()), 60, "and from the relay again")
        cluster.run_cli("reinit", last, "--yes", timeout=120)
        log = (cluster.home(last) / "run" / "events.jsonl").read_text()
        copied = [json.loads(line) for line in log.splitlines() if '"cloning"' in line][-1]
        assert copied["fields"]["source"] == relay, copied


def test_swap_of_regions_moves_the_primary_and_the_preference():
    with Cluster() as cluster:
        old = cluster.primary()
        for member in cluster.members:
            config = cluster.home(member) / "bascule.yaml"
            region = "eu" if member == old else "us"
            config.write_text(config.read_text().replace("  superuser:\n", f"  region: {region}\n  superuser:\n", 1))
            cluster.kill(int((cluster.home(member) / "agent.pid").read_text()))
        wait_for(lambda: sorted(m["region"] for m in cluster.status()["members"]) == ["eu", "us", "us"], 30, "regions")
        cluster.wait_shown_healthy()
        assert cluster.run_cli("switchover", "--to-region", "asia", check=False).returncode == 3
        cluster.run_cli("switchover", "--to-region", "us")
        assert cluster.primary() != old
        assert "primary_region: \"us\"" in cluster.run_cli("config", "show").stdout
        cluster.wait_shown_healthy()
        cluster.run_cli("switchover", "--to-region", "eu")
        assert cluster.primary() == old


def test_permanent_slots_are_kept_by_every_leader():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "parameters.wal_level=logical", "slots.archiver=physical")
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "wal_level waits")
        cluster.run_cli("restart", timeout=120)
        cluster.run_cli("config", "set", f"slots.cdc=logical:{cluster.info['database']}:test_decoding")

        def slots():
            rows = cluster.query(cluster.primary(), "SELECT slot_name, slot_type FROM pg_replication_slots "
                                                    "WHERE slot_name IN ('archiver', 'cdc') ORDER BY 1")
            return rows == [("archiver", "physical"), ("cdc", "logical")]
        wait_for(slots, 15, "both slots at the primary")
        old = cluster.primary()
        cluster.run_cli("switchover")
        assert cluster.primary() != old
        wait_for(slots, 15, "both slots at the new primary")
        assert cluster.run_cli("config", "set", "slots.bascule_n1=physical", check=False).returncode == 2


def test_a_permanent_slot_is_made_once_its_database_is_there():
    with Cluster() as cluster:
        cluster.run_cli("config", "set", "parameters.wal_level=logical", "slots.cdc=physical")
        wait_for(lambda: all(m["pendingRestart"] for m in cluster.status()["members"]), 15, "wal_level waits")
        cluster.run_cli("restart", timeout=120)
        primary = cluster.primary()

        def slot(name):
            return cluster.query(primary, "SELECT slot_type, database, plugin FROM pg_replication_slots WHERE slot_name = %s",
                                 name)

        def said(text):
            return [n for n in cluster.noted(primary, "permanent slot missing") if text in n["why"]]
        wait_for(lambda: slot("cdc") == [("physical", None, None)], 15, "the physical one")
        cluster.run_cli("config", "set", "slots.early=logical:later:test_decoding",
                        f"slots.cdc=logical:{cluster.info['database']}:test_decoding")
        wait_for(lambda: said('"later" does not exist'), 15, "it is said that there is no such database")
        wait_for(lambda: said("pg_drop_replication_slot('cdc')"), 15, "and what to do about a slot of another kind")
        cluster.query(primary, "CREATE DATABASE later")
        wait_for(lambda: slot("early") == [("logical", "later", "test_decoding")], 90, "it is tried again")
        cluster.query(primary, "SELECT pg_drop_replication_slot('cdc')")
        wait_for(lambda: slot("cdc") == [("logical", cluster.info["database"], "test_decoding")], 90, "made as configured")
        assert len(said("early")) == 1, "a trouble is said once"


def test_what_was_asked_for_is_kept_and_what_goes_wrong_is_an_alert():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        audit_file = cluster.base / "audit.jsonl"
        audit_file.touch()
        audit_file.chmod(0o666)
        config = cluster.dir / "proxy" / "bascule.yaml"
        config.write_text(config.read_text().replace("api:\n", f"api:\n  audit_file: {audit_file}\n", 1))
        cluster.kill(int((cluster.dir / "proxy" / "agent.pid").read_text()))

        def answers():
            try:
                return call(cluster, "GET", "/cluster")[0] == 200
            except OSError:
                return False
        wait_for(answers, 20, "the daemon is back")
        assert call(cluster, "POST", "/switchover", {"candidate": "nobody"})[0] == 409
        assert call(cluster, "POST", "/reload", {"members": "all"})[0] == 202
        cluster.run_cli("config", "set", "drain_timeout=2s")
        entries = call(cluster, "GET", "/audit")[1]
        assert [e["what"] for e in entries] == ["switchover candidate=nobody", "reload", "config drain_timeout=2s"]
        assert "no member" in entries[0]["outcome"] and entries[0]["by"].startswith("api")
        lines = [json.loads(line) for line in audit_file.read_text().splitlines()]
        assert [e["what"] for e in lines] == ["switchover candidate=nobody", "reload"], "what came by this API"
        assert "drain_timeout=2s" in cluster.run_cli("audit").stdout
        wait_for(lambda: len(call(cluster, "GET", "/api/database/metrics?limit=5")[1]["endpoints"]) == 3, 20, "samples")
        assert len(call(cluster, "GET", "/api/database/performance")[1]["endpoints"]) == 3
        cluster.kill_host(cluster.primary())
        wait_for(lambda: [a for a in call(cluster, "GET", "/api/database/alerts")[1]["recent"]
                          if a["type"] == "failover_completed" and a["severity"] == "high"], 30, "the failover is an alert")
        assert call(cluster, "GET", "/openapi.json")[1]["openapi"] == "3.1.0"
