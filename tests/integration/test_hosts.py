"""Scenarios that need hosts of their own (namespaces.py): partitions and lost hosts, on a cluster of three
members, three etcd, a proxy and clients in eight network namespaces. These run in `./dev test`;
test_hosts_full.py has those for `./dev test --full`. The number in a name is the scenario's.
"""
import time

from harness import wait_for
from namespaces import HostCluster

TTL_MS = 5000  # the default
FAST = {"timing": "fast"}
FAST_TTL_MS = 2000


def test_04_hosts_the_primarys_host_is_killed_and_its_kernel_resets():
    with HostCluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.kill_host(old)
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.boot(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "04 host killed", max_gap_ms=TTL_MS + 1500, errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()


def test_16_hosts_primary_cut_from_everything_is_fenced_before_another_is_promoted():
    with HostCluster(defaults=FAST) as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.isolate(old)
            wait_for(lambda: cluster.epoch() > epoch, 20, "a take-over", poll_s=0.01)
            assert not cluster.backends(old, ""), f"{old} still runs PostgreSQL"
            cluster.wait_primary(timeout=20, other_than=old, epoch_above=epoch)
            ledger.wait_acks(50)
            cluster.heal(old)
            cluster.wait_healthy()
            ledger.wait_acks(50)
        cluster.finish(ledger, "16", max_gap_ms=FAST_TTL_MS + 1500, errors_by_client_max=1)
        cluster.assert_same_rows_everywhere()


def test_22_hosts_a_blip_of_the_primarys_network_is_no_reason_for_anything():
    with HostCluster() as cluster:
        with cluster.ledger() as ledger:
            ledger.wait_acks(50)
            old, epoch = cluster.primary(), cluster.epoch()
            cluster.isolate(old)
            time.sleep(1.8)  # the blip itself: the scenario is its length
            cluster.heal(old)
            ledger.wait_acks(100)
        cluster.finish(ledger, "22 network", errors_by_client_max=0)
        assert (cluster.primary(), cluster.epoch()) == (old, epoch)
