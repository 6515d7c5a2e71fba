"""The API and the command line against a real cluster."""
import contextlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import psycopg2

import harness
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


def test_up_says_at_once_why_there_can_be_no_cluster():
    real = pathlib.Path((harness.of_version(int(harness.POSTGRESQL)) if harness.POSTGRESQL else harness.of_version(15))[1])
    with tempfile.TemporaryDirectory(prefix="bascule-it-") as base:
        os.chmod(base, 0o755)
        programs = pathlib.Path(base, "bin")
        programs.mkdir()
        for program in real.iterdir():
            (programs / program.name).symlink_to(program)
        (programs / "initdb").unlink()
        (programs / "initdb").write_text("#!/bin/sh\necho 'initdb: error: no room for it' >&2\nexit 1\n")
        (programs / "initdb").chmod(0o755)
        begun = time.monotonic()
        done = subprocess.run([harness.BASCULE, "up", "--dir", f"{base}/c", "--bin-dir", programs, *Cluster.port_options(Cluster)],
                              capture_output=True, text=True, timeout=60)
        took = time.monotonic() - begun
        assert done.returncode == 1 and "initdb: error: no room for it" in done.stderr, done
        assert took < 30, f"{took:.1f} s"
        left = [pid for pid in harness.all_pids() if f"{base}/c" in harness.read_proc(pid, "cmdline")]
        assert not left, "its processes go on"


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
        cluster.switch_over(target)
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


def bascule(*arguments, check=True, env=None):
    done = subprocess.run([harness.BASCULE, *arguments], capture_output=True, text=True, timeout=90,
                          env={**os.environ, **(env or {})})
    assert not check or done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done


def certificate(directory):
    """A self-signed one for 127.0.0.1; (certificate, key)."""
    cert, key = directory / "api.pem", directory / "api.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=api", "-addext", "subjectAltName=IP:127.0.0.1",
                    "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    key.chmod(0o644)
    return cert, key


def pid_of_server(client):
    client.autocommit = True
    with client.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return cursor.fetchone()[0]


def tasks_by_api(cluster, admin, viewer):
    """What a machine gets of tasks asked for by --api."""
    def asked(*arguments):
        return json.loads(bascule(*arguments, "--json", *admin).stdout)
    replica = next(m for m in cluster.members if m != cluster.primary())
    done = asked("reload", replica)
    assert done["done"] and [s["member"] for s in done["steps"]] == [replica], done
    later = asked("restart", replica, "--at", "+1h")
    assert set(later) == {"operation", "scheduledAt"}, later
    assert later["operation"] in bascule("tasks", *viewer).stdout
    assert asked("cancel", later["operation"]) == {"message": "cancelled"}
    now = asked("reload", replica, "--no-wait")
    assert set(now) == {"operation"} and now["operation"], now
    later = asked("switchover", "--candidate", replica, "--at", "+1h")
    assert set(later) == {"operation", "scheduledAt"}, later
    assert asked("switchover", "--cancel") == {"message": "cancelled"}
    typo = bascule("switchover", "--candidate", "typo", "--at", "+1h", *admin, check=False)
    assert typo.returncode == 3 and "no member" in typo.stderr, typo.stderr
    nobody = bascule("check-health", *admin, check=False)
    assert nobody.returncode == 3 and "no monitor" in nobody.stderr, nobody.stderr
    assert any(" check health " in line for line in bascule("audit", *viewer).stdout.splitlines())


def test_command_line_works_through_the_api_of_a_daemon_with_a_token():
    with Cluster() as cluster:
        cert, key = certificate(cluster.base)
        tokens, entries = {}, ""
        for role in ("admin", "viewer"):
            made = bascule("token", "--name", f"the-{role}", "--role", role)
            tokens[role] = cluster.base / role
            tokens[role].write_text(made.stdout)
            tokens[role].chmod(0o600)
            entries += next(line for line in made.stderr.splitlines() if "sha256" in line) + "\n"
        config = cluster.dir / "proxy" / "bascule.yaml"
        text = config.read_text()
        listen = next(line for line in text.splitlines() if line.startswith("  listen:"))
        config.write_text(text.replace(listen, f"{listen}\n  tls: {{cert: {cert}, key: {key}}}\n  anonymous: health\n"
                                               f"  tokens:\n{entries}"))
        pid_file = cluster.dir / "proxy" / "agent.pid"
        old_pid = pid_file.read_text()
        cluster.kill(int(old_pid))
        url = f"https://{cluster.info['api']['host']}:{cluster.info['api']['port']}"
        base = ["--api", url, "--ca-file", str(cert)]
        admin, viewer = ([*base, "--token-file", str(tokens[role])] for role in ("admin", "viewer"))
        wait_for(lambda: bascule("status", *admin, check=False).returncode == 0, 20, "the API answers over TLS")

        assert "the-admin" not in bascule("status", *viewer).stdout
        # Each is a moment's: written anew every second.
        wait_for(lambda: json.loads(bascule("status", "--json", *viewer).stdout) == cluster.status(), 10,
                 "both ways show the same")
        assert bascule("status", "--api", url, "--token-file", str(tokens["admin"]), check=False).returncode != 0, \
            "a certificate that nobody vouches for"
        assert bascule("status", *base, check=False).returncode == 2, "without a token"
        refused = bascule("switchover", *viewer, check=False)
        assert refused.returncode == 2 and "viewer" in refused.stderr, refused.stderr
        assert "the-admin" not in bascule("audit", *viewer).stdout, "of a viewer's nothing reaches the store"

        elsewhere = ["--ca-file", str(cert), "--token-file", str(tokens["viewer"])]
        assert cluster.primary() in bascule("status", *elsewhere, env={"BASCULE_API": url}).stdout
        nowhere = bascule("status", *elsewhere, check=False)
        assert nowhere.returncode == 2 and "is for an API" in nowhere.stderr, nowhere.stderr
        tasks_by_api(cluster, admin, viewer)

        assert json.loads(bascule("config", "set", "drain_timeout=2s", "--json", *admin).stdout) == {"message": "changed"}
        assert bascule("config", "set", "drain_timeout=forever", *admin, check=False).returncode == 2
        assert "drain_timeout: 2s" in cluster.run_cli("config", "show").stdout
        change = json.loads(bascule("config", "history", "--json", *viewer).stdout)[-1]
        assert change["changes"] == {"drain_timeout": ["3s", "2s"]} and "the-admin" in change["by"]

        with contextlib.closing(psycopg2.connect(cluster.dsn())) as client:
            server = pid_of_server(client)
            assert "replaced" in bascule("reconnect", *admin).stdout
            assert bascule("reconnect", *viewer, check=False).returncode == 2, "for admins"
            assert bascule("reconnect", "nowhere", *admin, check=False).returncode != 0
            assert pid_of_server(client) == server, "pooled by session: it stays"
        with contextlib.closing(psycopg2.connect(cluster.dsn())) as client:
            assert pid_of_server(client) != server, "and the next client has a new one"
        assert any(" reconnect " in line for line in bascule("audit", *viewer).stdout.splitlines())
        analysis = json.loads(bascule("analyze-query", "insert into t select f(1) from u").stdout)
        assert analysis["analysis"] == {
            "isRead": False, "isWrite": True, "estimatedComplexity": "simple", "tables": ["t", "u"], "functions": ["f"],
            "reasons": ["it calls f, which is not PostgreSQL's: what that does is not known", "it writes t"]}

        old = cluster.primary()
        done = bascule("switchover", *admin)
        assert "done: " in done.stdout and cluster.primary() != old
        assert f"{old} " in bascule("history", *viewer).stdout
        assert "paused" in json.loads(bascule("pause", "--json", *admin).stdout)["message"]
        assert bascule("switchover", *admin, check=False).returncode == 3
        assert json.loads(bascule("resume", "--json", *admin).stdout) == {"message": "resumed"}
        cluster.wait_healthy()
        target = next(m for m in cluster.members if m != cluster.primary())
        forced = bascule("failover", "--force", "--yes", "--json", "--candidate", target, *admin)
        outcome = json.loads(forced.stdout)
        assert outcome["done"] and outcome["candidate"] == target and outcome["outcome"].startswith("done"), outcome
        assert "Lost, if it takes over" in forced.stderr and cluster.primary() == target
        log = (cluster.dir / "log" / "proxy.log").read_text()
        assert "audit" in log and "the-admin" in log
        assert "the-viewer" in log and "viewer's, commands need" in log, "the log has the viewer's attempt"
        for token in tokens.values():
            assert token.read_text().strip() not in log
