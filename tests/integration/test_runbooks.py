"""The commands of docs/operating/*.md, as they stand there, against the disasters that they are for."""
import contextlib
import os
import pathlib
import pwd
import re
import shutil
import subprocess

import psycopg2

import harness
from harness import Cluster, wait_for

DOCS = pathlib.Path(__file__).resolve().parents[2] / "docs" / "operating"


class Runbook:
    """Blocks of a page by the name in the comment before them, run in a shell as the cluster's user."""

    def __init__(self, page, cluster, **variables):
        text = (DOCS / page).read_text()
        self.blocks = dict(re.findall(r"<!-- run: ([a-z-]+) -->\n```sh\n(.*?)```", text, re.S))
        self.cluster, self.ran = cluster, set()
        self.saved = cluster.base / "saved"
        self.saved.mkdir()
        shutil.chown(self.saved, cluster.info["user"])
        tools = cluster.base / "tools"
        tools.mkdir()
        (tools / "bascule").write_text(f'#!/bin/sh\nexec "{os.path.abspath(harness.BASCULE)}" "$@"\n')
        (tools / "bascule").chmod(0o755)
        self.variables = {"PATH": f"{tools}:/usr/bin:/bin", "BASCULE_DIR": str(cluster.dir), "LANG": "C.UTF-8",
                          "BIN": cluster.info["binDir"], "SAVED": str(self.saved), "HOME": str(self.saved),
                          "PGUSER": cluster.info["superuser"], **variables}

    def run(self, name, as_user=True, **more):
        self.ran.add(name)
        argv = ["bash", "-euo", "pipefail", "-c", self.blocks[name]]
        if as_user and os.geteuid() == 0:
            user = self.cluster.info["user"]
            argv = ["setpriv", f"--reuid={user}", f"--regid={pwd.getpwnam(user).pw_gid}", "--init-groups", *argv]
        done = subprocess.run(argv, env={**self.variables, **more}, capture_output=True, text=True, timeout=150, cwd="/")
        assert done.returncode == 0, f"{name}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def complete(self):
        assert self.ran == set(self.blocks), f"never run: {set(self.blocks) - self.ran}"


def insert(connection, *rows):
    with connection, connection.cursor() as cursor:
        for row in rows:
            cursor.execute("INSERT INTO orders VALUES (%s)", (row,))


def test_split_brain_runbook_finds_stops_and_saves_the_stray_primary():
    with Cluster() as cluster:
        writer = psycopg2.connect(cluster.dsn())
        with writer, writer.cursor() as cursor:
            cursor.execute("CREATE TABLE orders (what text)")
        insert(writer, "before")
        writer.close()
        stray = cluster.primary()
        cluster.kill_host(stray)
        leader = cluster.wait_primary(timeout=30, other_than=stray)
        # What a person does who means well.
        (cluster.data(stray) / "standby.signal").unlink()
        conf = cluster.data(stray) / "postgresql.auto.conf"
        conf.write_text(conf.read_text() + "synchronous_standby_names = ''\nprimary_conninfo = ''\n")
        main = cluster.data(stray) / "postgresql.conf"
        main.write_text(main.read_text() + "synchronous_standby_names = ''\n")
        cluster.start_like_a_service(stray)
        there = cluster.superuser(stray, cluster.info["database"])
        insert(there, "only there")
        there.close()
        with contextlib.closing(cluster.superuser(leader, cluster.info["database"])) as here:
            insert(here, "only here")
        book = Runbook("split-brain.md", cluster, STRAY=stray, STRAY_DATA=str(cluster.data(stray)),
                       STRAY_SOCKET=str(cluster.home(stray) / "run"), STRAY_PORT=str(cluster.address(stray)["port"]),
                       DATABASE=cluster.info["database"],
                       LEADER=f"host={cluster.home(leader)}/run port={cluster.address(leader)['port']} "
                              f"dbname={cluster.info['database']} user={cluster.info['superuser']}")
        assert leader in book.run("who")
        book.run("find")
        book.run("stop")
        book.run("keep")
        found = book.run("look")
        assert "only there" in found and "only here" not in found and "before" not in found, found
        cluster.release(stray)
        cluster.wait_healthy()
        book.run("back")
        cluster.wait_healthy()
        for member in cluster.members:
            wait_for(lambda m=member: rows(cluster, m) == ["before", "only here"], 20, f"the leader's rows at {member}")
        book.complete()


def rows(cluster, member):
    try:
        return [r[0] for r in cluster.query(member, "SELECT what FROM orders ORDER BY 1", database=cluster.info["database"])]
    except psycopg2.Error:
        return None


def configure(cluster, member, text):
    config = cluster.home(member) / "bascule.yaml"
    config.write_text(config.read_text().replace("  superuser:\n", text + "  superuser:\n", 1))


def test_disaster_recovery_runbook_brings_a_cluster_back_from_nothing_but_a_backup():
    with Cluster() as cluster:
        with contextlib.closing(psycopg2.connect(cluster.dsn())) as writer:
            with writer, writer.cursor() as cursor:
                cursor.execute("CREATE TABLE orders (what text)")
            insert(writer, "in the backup")
        first, *others = cluster.members
        home = cluster.home(first)
        book = Runbook("disaster-recovery.md", cluster, DATA=str(cluster.data(first)), STATE=str(home / "run"),
                       SOURCE=f"host={home}/run port={cluster.address(first)['port']} user={cluster.info['superuser']}")
        # Its synchronous standby and its primary are lost: only the third is left, which may lack commits.
        cluster.run_cli("switchover", "--candidate", first, check=False)
        cluster.wait_healthy()
        book.run("backup")
        voter = cluster.record("sync")["generations"][-1]["voters"][0].split("_")[0]
        primary = cluster.primary()
        survivor = next(m for m in cluster.members if m not in (voter, primary))
        cluster.kill_host(voter)
        cluster.kill_host(primary)
        book.variables["SURVIVOR"] = survivor
        said = book.run("preview")
        assert survivor in said and "may lose" in said, said
        book.run("force")
        assert cluster.wait_primary(timeout=40) == survivor
        for member in (voter, primary):
            cluster.release(member)
        cluster.wait_healthy()

        # Everything is lost.
        cluster.run_cli("down", timeout=120)
        book.run("restore-script")
        book.run("newest")
        book.run("keep")
        for name in ("store.db", "store.db-wal", "store.db-shm", "store.db-bell"):
            (cluster.dir / name).unlink(missing_ok=True)
        book.run("wipe")
        for member in others:
            book.run("wipe", DATA=str(cluster.data(member)), STATE=str(cluster.home(member) / "run"))
            cluster.hold(member)
        configure(cluster, first, f"  bootstrap:\n    command: [{book.saved}/restore-base, {book.saved}/base]\n")
        copy = book.saved / "copy"
        copy.write_text("#!/bin/sh\nset -eu\necho made by hand > $BASCULE_DATA_DIR/../copied\n"
                        "exec $BASCULE_BIN_DIR/pg_basebackup -d \"$BASCULE_SOURCE_CONNINFO\" -D $BASCULE_DATA_DIR "
                        "-X stream -c fast --no-password\n")
        copy.chmod(0o755)
        configure(cluster, others[0], f"  replica_methods:\n    - {{name: none, command: [/bin/false]}}\n"
                                      f"    - {{name: copy, command: [{copy}]}}\n    - basebackup\n")
        cluster.run_cli("up", "--wait", "1s", check=False, timeout=90)  # the others are held
        assert cluster.wait_primary(timeout=60) == first
        assert rows(cluster, first) == ["in the backup"]
        for member in others:
            cluster.release(member)
        cluster.wait_healthy()
        for member in cluster.members:
            wait_for(lambda m=member: rows(cluster, m) == ["in the backup"], 20, f"the rows at {member}")
        assert (cluster.home(others[0]) / "copied").exists(), "the first method that works made it"
        with cluster.ledger() as ledger:
            ledger.wait_acks(20)
            cluster.run_cli("switchover")
            ledger.wait_acks(20)
        cluster.finish(ledger, "after the disaster")
        book.complete()
