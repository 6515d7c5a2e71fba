"""The API and the command line against a real cluster."""
import json
import urllib.error
import urllib.request

import psycopg2

from harness import Cluster, wait_for


def get(cluster, path):
    """(status, body) of a GET; the body as JSON where it is."""
    url = f"http://{cluster.info['api']['host']}:{cluster.info['api']['port']}{path}"
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    try:
        return status, json.loads(text)
    except ValueError:
        return status, text


def metric(cluster, name):
    text = get(cluster, "/metrics")[1]
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + "{"))


def test_api_tells_the_story_of_a_failover():
    with Cluster(up_options=["--timing", "fast"]) as cluster:
        wait_for(lambda: get(cluster, "/failover/status")[1]["state"] == "healthy", 10, "healthy")
        old = cluster.primary()
        before = get(cluster, "/failover/status")[1]
        assert (before["currentPrimary"], before["failoverCount"]) == (old, 0)
        assert get(cluster, "/health")[0] == 200
        cluster.kill_host(old)
        states, health = set(), set()

        def over():
            status = get(cluster, "/failover/status")[1]
            states.add(status["state"])
            health.add(get(cluster, "/health")[0])
            return status["currentPrimary"] not in (None, old)
        wait_for(over, 20, "the API shows the new primary")
        assert "failover_in_progress" in states, states
        assert 503 in health, "/health never said that the primary is down"
        cluster.release(old)
        cluster.wait_healthy()
        after = wait_for(lambda: (s := get(cluster, "/failover/status")[1])["state"] == "healthy" and s,
                         20, "healthy again")
        assert after["failoverCount"] == 1
        assert sorted(s["name"] for s in after["standbys"]) == sorted(
            m for m in cluster.members if m != after["currentPrimary"])
        last = get(cluster, "/failover/history?limit=1")[1][0]
        assert (last["from"], last["to"], last["trigger"]) == (old, after["currentPrimary"], "expired")
        assert metric(cluster, "failover_total") == 1
        assert metric(cluster, "failover_state") == 1
        members = {m["name"]: m["role"] for m in get(cluster, "/cluster")[1]["members"]}
        assert members[after["currentPrimary"]] == "leader" and members[old] != "leader"


def test_cluster_stopped_and_started_again_has_its_data():
    with Cluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
        again = cluster.run_cli("up")
        assert "running already" in again.stdout
        cluster.run_cli("down")
        assert cluster.pids() == []
        refused = cluster.run_cli("switchover", "--no-wait", check=False)
        assert refused.returncode == 3, refused.stdout + refused.stderr
        cluster.run_cli("up", timeout=90)
        cluster.wait_healthy()
        cluster.finish(ledger, "down and up")
        cluster.assert_same_rows_everywhere()


def test_status_and_history_say_who_leads_and_why():
    with Cluster() as cluster:
        old = cluster.primary()
        target = next(m for m in cluster.members if m != old)
        cluster.run_cli("switchover", "--candidate", target)
        assert cluster.wait_primary(timeout=20, other_than=old) == target
        cluster.wait_healthy()
        status = cluster.status()
        assert (status["leader"], status["epoch"]) == (target, cluster.epoch())
        table = cluster.run_cli("status").stdout
        assert all(m in table for m in cluster.members) and "sync replica" in table
        changes = {(h["epoch"], h["leader"], h["trigger"]) for h in cluster.history()}
        assert (cluster.epoch(), target, "switchover") in changes, changes
        unknown = cluster.run_cli("switchover", "--candidate", "nobody", check=False)
        assert unknown.returncode == 3 and "nobody" in unknown.stderr


def test_reader_port_leads_to_a_replica_and_writer_port_to_the_primary():
    with Cluster() as cluster:
        for where, in_recovery in (("writer", False), ("reader", True)):
            connection = psycopg2.connect(cluster.dsn(where))
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_is_in_recovery()")
                assert cursor.fetchone()[0] is in_recovery, where
            connection.close()
