"""The scenarios on hosts of their own that `./dev test --full` runs: what takes long, and what test_hosts.py
has a shorter relative of. The number in a name is the scenario's.
"""
import signal
import threading
import time

import psycopg2
import pytest

from harness import send, tell, wait_for
from namespaces import API_PORT, HostCluster

TTL_S = 5.0
FAST = {"timing": "fast"}
FAST_TTL_S = 2.0
BLIP_TOLERANCE_S = 2.0
SLACK_MS = 700  # the test machine does other things, too


def nothing_happens(cluster, seconds, ledger=None):
    """For so long the same member leads the same epoch."""
    before = (cluster.primary(), cluster.epoch())
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        assert cluster.epoch() == before[1]
        time.sleep(0.1)
    if ledger:
        ledger.wait_acks(50)
    assert (cluster.primary(), cluster.epoch()) == before


# ---------------------------------------------------------------------------------------- failure

@pytest.mark.parametrize("early", [False, True])
def test_04_hosts_power_loss_of_the_primary(early):
    """Silence: for ttl, or with early take-over for the tolerance of a blip."""
    with HostCluster(defaults={"early_takeover": early}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        time.sleep(TTL_S + 1)  # before that an agent that has just started does not suspect anybody
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.host(old).power_off()
        cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        assert (cluster.record(f"history/{epoch + 1:020}")["trigger"] == "early") == early
        cluster.boot(old)
        cluster.whole_again(ledger, f"04 power loss, early take-over: {early}", errors_by_client_max=1,
                    max_gap_ms=(BLIP_TOLERANCE_S if early else TTL_S) * 1000 + 1000 + SLACK_MS)


def test_08_hosts_a_suspended_primary_acknowledges_nothing_when_it_resumes():
    with HostCluster(defaults=FAST) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        frozen, suspended = cluster.host_pids(old), time.monotonic()
        send(frozen, signal.SIGSTOP)
        cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        time.sleep(max(0, suspended + 60 - time.monotonic()))  # the length of the scenario
        seen = len(ledger.locals[old].acked)
        send(frozen, signal.SIGCONT)
        wait_for(lambda: old not in cluster.writable_members(), 10, f"{old} is fenced")
        assert len(ledger.locals[old].acked) == seen, f"{old} acknowledged after it was suspended"
        cluster.whole_again(ledger, "08")


# ---------------------------------------------------------------------------------------- network

def test_16_hosts_asynchronous_primary_cut_from_everything_stops_before_the_next_begins():
    """Only fencing keeps the two apart here: no commit waits for a standby."""
    with HostCluster(defaults={**FAST, "sync": "off"}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        cluster.isolate(old)
        new = cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        last = max(ledger.locals[old].acked.values())
        first = min(ledger.locals[new].acked.values())
        cluster.heal(old)
        cluster.wait_healthy(timeout=90)
        ledger.stop()
        report = ledger.check(cluster.dsn(cluster.primary()))
        lost_clients = [key for key in report.lost if key[0] < 1000]
        tell("16 asynchronous", **report.summary(), apart_ms=round((first - last) * 1000))
        assert last < first, f"{old} acknowledged {(last - first) * 1000:.0f} ms after {new} had"
        # The clients beyond the cut see the loss of a suffix at most: what was sent around the cut.
        assert len(lost_clients) <= 20, lost_clients[:10]


def test_17_hosts_primary_cut_from_the_store_only():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        cluster.cut_between([old], cluster.etcd_names)
        time.sleep(2 * TTL_S)  # failsafe or hand-over: both leave one writer
        ledger.wait_acks(50)
        cluster.heal(old)
        cluster.whole_again(ledger, "17", max_gap_ms=TTL_S * 1000 + 1500, kept=cluster.primary() == old)


@pytest.mark.parametrize("strict", [False, True])
def test_18_hosts_replicas_cut_from_the_primary_all_see_the_store(strict):
    with HostCluster(defaults={"sync_strict": strict}) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        cluster.cut_between([old], cluster.others(old))
        if strict:  # nobody is acknowledged alone, and nobody else may lead
            time.sleep(1)
            acked = ledger.acked_count()
            nothing_happens(cluster, 2 * TTL_S)
            assert ledger.acked_count() == acked
        else:  # it goes on alone
            nothing_happens(cluster, 2 * TTL_S, ledger)
        cluster.heal(old)
        cluster.whole_again(ledger, f"18 strict: {strict}", errors_by_client_max=0,
                    max_gap_ms=2 * TTL_S * 1000 + 5000 if strict else 2500)


@pytest.mark.parametrize("who", ["synchronous", "other"])
def test_19_hosts_the_stores_majority_side_wins(who):
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        synchronous = cluster.sync_standby(old)
        lone = synchronous if who == "synchronous" else cluster.others(old, synchronous)[0]
        minority = [*cluster.others(lone), "e1"]
        cluster.cut_between(minority, [lone, "e2", "e3", "p1", "c1"])
        if who == "synchronous":
            assert cluster.wait_primary(timeout=30, epoch_above=epoch) == lone
            ledger.wait_acks(50)
        else:  # it may lack what was acknowledged: nobody leads
            time.sleep(2 * TTL_S)
            assert cluster.epoch() == epoch
        cluster.heal(*minority)
        cluster.whole_again(ledger, f"19 {who}")


@pytest.mark.parametrize("way", ["out", "in"])
def test_20_hosts_one_way_loss_converges_to_one_writer(way):
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        rest = [h for h in cluster.network.hosts.values() if h.name not in (old, "eye")]
        if way == "out":
            cluster.network.cut_one_way(cluster.host(old), *rest)
        else:
            for host in rest:
                cluster.network.cut_one_way(host, cluster.host(old))
        cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.heal(old)
        cluster.whole_again(ledger, f"20 {way}", max_gap_ms=TTL_S * 1000 + 2000)


def test_21_hosts_packet_loss_causes_no_flapping():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        hosts = [cluster.host(name) for name in [*cluster.members, *cluster.etcd_names]]
        cluster.network.loss(3, *hosts)
        nothing_happens(cluster, 30)
        cluster.network.loss(0)
        cluster.whole_again(ledger, "21 loss")


def test_21_hosts_a_flapping_link_of_a_standby_causes_no_flapping():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        before = (cluster.primary(), cluster.epoch())
        standby = cluster.sync_standby(before[0])
        cluster.network.flap(cluster.host(standby), times=6, down_s=0.7, up_s=2.0)
        ledger.wait_acks(50)
        assert (cluster.primary(), cluster.epoch()) == before
        cluster.whole_again(ledger, "21 link", max_gap_ms=2500)


def test_23_hosts_a_client_that_reaches_only_the_old_primary_is_cut():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        with cluster.host("c1").inside():
            session = psycopg2.connect(cluster.dsn(old))
        cluster.network.isolate(cluster.host(old), but=[cluster.eye, cluster.host("c1")])
        ended = {}

        def wait_in_session():
            try:
                with session.cursor() as cursor:
                    cursor.execute("SELECT pg_sleep(60)")
            except psycopg2.Error as error:
                ended["at"], ended["why"] = time.monotonic(), str(error)
        thread = threading.Thread(target=wait_in_session, daemon=True)
        thread.start()
        new = cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
        thread.join(timeout=5)
        assert "at" in ended, "the session at the old primary lives on"
        ledger.wait_acks(50)
        first = min(ledger.locals[new].acked.values())
        assert ended["at"] < first, f"cut {(ended['at'] - first) * 1000:.0f} ms after {new} wrote"
        cluster.heal(old)
        cluster.whole_again(ledger, "23")


def test_24_hosts_agents_ports_blocked_is_no_reason_for_a_failover():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        for member in cluster.members:
            cluster.network.close_port(cluster.host(member), API_PORT)
        nothing_happens(cluster, 2 * TTL_S, ledger)
        for member in cluster.members:
            cluster.network.open_port(cluster.host(member), API_PORT)
        cluster.whole_again(ledger, "24", max_gap_ms=500, errors_by_client_max=0)


def test_23_hosts_proxy_cut_from_the_primary_resumes_without_a_failover():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        before = (cluster.primary(), cluster.epoch())
        cluster.cut_between(["p1"], [before[0]])
        time.sleep(TTL_S)
        cluster.heal("p1")
        ledger.wait_acks(50)
        assert (cluster.primary(), cluster.epoch()) == before
        cluster.whole_again(ledger, "proxy cut from the primary", max_gap_ms=TTL_S * 1000 + 4000)


# ------------------------------------------------------------------------------------------ store

def test_25_hosts_etcds_leader_is_cut_off():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        leader = wait_for(cluster.etcd.leader, 10, "etcd has a leader")
        cluster.isolate(leader)
        nothing_happens(cluster, 2 * TTL_S, ledger)
        cluster.heal(leader)
        cluster.whole_again(ledger, "25 leader of etcd cut off", max_gap_ms=500, errors_by_client_max=0)


def test_27_hosts_store_away_then_the_primary_dies():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        for name in cluster.etcd_names[:2]:
            cluster.host(name).power_off()
        cluster.kill_host(old)
        time.sleep(2 * TTL_S)  # nobody may take over what nobody can see
        assert cluster.writable_members() == []
        for name in cluster.etcd_names[:2]:
            cluster.host(name).power_on()
        cluster.wait_primary(timeout=40, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.boot(old)
        cluster.whole_again(ledger, "27")


def test_29_hosts_rolling_restart_of_etcd():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        before = (cluster.primary(), cluster.epoch())
        for name in cluster.etcd_names:
            cluster.host(name).shut_down()
            cluster.host(name).boot()
            nothing_happens(cluster, TTL_S)
        assert (cluster.primary(), cluster.epoch()) == before
        cluster.whole_again(ledger, "29", max_gap_ms=500, errors_by_client_max=0)


# ------------------------------------------------------------------------------- durability, rejoin

@pytest.mark.parametrize("mode", ["on", "quorum"])
def test_32_hosts_primary_and_a_standby_that_may_have_acknowledged_alone_are_lost(mode):
    with HostCluster(defaults={"sync": mode}) as cluster, cluster.ledger() as ledger:
        cluster.wait_for_voters({"on": 1, "quorum": 2}[mode])
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        acknowledges = cluster.voters()[0]
        third = cluster.others(old, acknowledges)[0]
        for member in (old, acknowledges):
            cluster.host(member).power_off()
        time.sleep(2 * TTL_S)
        assert cluster.writable_members() == [] and cluster.epoch() == epoch
        reason = cluster.record(f"members/{third}")["reason"]
        assert "needs ballots of" in reason and f"{acknowledges}_" in reason, reason
        cluster.boot(acknowledges)
        cluster.wait_primary(timeout=40, epoch_above=epoch)
        ledger.wait_acks(50)
        cluster.boot(old)
        cluster.whole_again(ledger, f"32 {mode}", refused_because=reason)


def test_46_hosts_total_power_loss_then_boot_in_the_worst_order():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        synchronous = cluster.sync_standby(old)
        for host in cluster.network.hosts.values():
            if host.name not in ("eye", "c1"):
                host.kill()
        # The one that has the least comes up first, and alone; the last leader comes last.
        order = [*cluster.etcd_names, "p1", cluster.others(old, synchronous)[0]]
        for name in order:
            cluster.host(name).boot()
        time.sleep(TTL_S)
        for name in (synchronous, old):
            cluster.host(name).boot()
        cluster.wait_primary(timeout=60)
        ledger.wait_acks(50)
        cluster.whole_again(ledger, "46")


# ------------------------------------------------------------------------------------- operations

def test_57_hosts_a_lost_region_is_replaced_and_fenced_when_it_returns():
    places = {"n1": {"region": "eu"}, "n2": {"region": "eu"}, "n3": {"region": "us", "priority": 50}}
    with HostCluster(places=places, defaults={"sync": "off"}) as cluster:
        if cluster.primary() == "n3":
            cluster.switch_over("n1")
            cluster.wait_healthy()
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            ledger.stop()  # asynchronous: what is written while the region is lost may be lost
            cluster.assert_same_rows_everywhere()
        region = ["n1", "n2", "e1"]
        cluster.cut_between(region, ["n3", "e2", "e3", "p1", "c1"])
        assert cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch) == "n3"
        cluster.query("n3", "TRUNCATE ledger", database="app")
        with cluster.ledger() as after:
            after.wait_acks(50)
            assert "n1" not in cluster.writable_members() and "n2" not in cluster.writable_members()
            cluster.heal(*region)
            cluster.wait_healthy(timeout=90)
            after.wait_acks(50)
        cluster.finish(after, "57")
        cluster.assert_same_rows_everywhere()
        assert cluster.writable_members() == ["n3"]


def test_58_hosts_planned_swap_of_regions_loses_nothing():
    places = {"n1": {"region": "eu"}, "n2": {"region": "eu"}, "n3": {"region": "us", "priority": 50}}
    with HostCluster(places=places) as cluster, cluster.ledger() as ledger:
        for candidate in (["n3", "n1"] if cluster.primary() != "n3" else ["n1", "n3"]):
            ledger.wait_acks(50)
            cluster.switch_over(candidate)
            ledger.wait_acks(50)
            cluster.wait_healthy(timeout=60)
        cluster.whole_again(ledger, "58", max_gap_ms=4000, errors_by_client_max=0)


@pytest.mark.parametrize("lost", ["primary", "standby", "witness"])
def test_60_hosts_two_members_and_a_witness_each_lost(lost):
    """One member of etcd on each: the third host has nothing but that."""
    with HostCluster(nodes=2) as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old, epoch = cluster.primary(), cluster.epoch()
        standby = cluster.others(old)[0]
        victims = {"primary": [old, "e1"], "standby": [standby, "e2"], "witness": ["e3"]}[lost]
        for name in victims:
            cluster.host(name).power_off()
        if lost == "primary":
            cluster.wait_primary(timeout=30, other_than=old, epoch_above=epoch)
        ledger.wait_acks(50)
        assert lost == "primary" or cluster.epoch() == epoch
        for name in victims:
            cluster.host(name).power_on()
        cluster.whole_again(ledger, f"60 {lost}")


# --------------------------------------------------------------------------------------- failsafe

def test_26_hosts_all_of_etcd_loses_power_and_the_primary_goes_on():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        for name in cluster.etcd_names:
            cluster.host(name).power_off()
        time.sleep(120)  # "for minutes"
        ledger.wait_acks(50)
        assert cluster.writable_members() == [old]
        for name in cluster.etcd_names:
            cluster.host(name).power_on()
        wait_for(lambda: cluster.etcd.leader() and cluster.leader_renewed_by_now(), 30, "the record is renewed again")
        assert cluster.primary() == old
        cluster.whole_again(ledger, "26 etcd without power", max_gap_ms=2000, errors_by_client_max=0)


def test_26_hosts_without_the_store_a_primary_that_nobody_pledges_to_is_fenced():
    with HostCluster() as cluster, cluster.ledger() as ledger:
        ledger.wait_acks(50)
        old = cluster.primary()
        for name in cluster.etcd_names:
            cluster.host(name).power_off()
        time.sleep(2 * TTL_S)
        assert cluster.writable_members() == [old]
        cluster.cut_between([old], cluster.others(old))
        wait_for(lambda: not cluster.backends(old, ""), 20, f"{old} is fenced")
        time.sleep(TTL_S)  # nobody can be elected without the store
        assert cluster.writable_members() == []
        cluster.heal(old)
        for name in cluster.etcd_names:
            cluster.host(name).power_on()
        cluster.wait_primary(timeout=60)
        cluster.whole_again(ledger, "26 nobody pledges")
