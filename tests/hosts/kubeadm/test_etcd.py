"""What etcd says of itself is understood, whoever fetched it; the text is etcd's own (3.7.3)."""

from __future__ import annotations

import pytest

from opsd.hosts.kubeadm import etcd

METRICS = """\
etcd_cluster_version{cluster_version="3.7"} 1
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.001"} @fast
etcd_disk_wal_fsync_duration_seconds_bucket{le="0.032"} @all
etcd_disk_wal_fsync_duration_seconds_bucket{le="+Inf"} @all
etcd_mvcc_db_total_size_in_bytes 2.0480e+06
etcd_mvcc_db_total_size_in_use_in_bytes 16384
etcd_network_known_peers{Local="9e737febb6b99eee",Remote="9e737febb6b99eee"} 1
etcd_network_known_peers{Local="9e737febb6b99eee",Remote="1"} 1
etcd_network_known_peers{Local="9e737febb6b99eee",Remote="2"} 1
etcd_network_active_peers{Local="9e737febb6b99eee",Remote="1"} 1
etcd_network_active_peers{Local="9e737febb6b99eee",Remote="2"} 0
etcd_server_has_leader 1
etcd_server_is_learner 0
etcd_server_quota_backend_bytes 2.147483648e+09
etcd_server_version{server_version="3.7.3"} 1
"""


def metrics(*, fast: int = 0, every: int = 0) -> str:
    return METRICS.replace("@fast", str(fast)).replace("@all", str(every))


def test_a_member_says_its_version_its_sizes_and_its_peers() -> None:
    read = etcd.read_metrics(metrics())

    assert (read.version, read.cluster_version, read.has_leader) == ("3.7.3", "3.7", True)
    assert (read.size_bytes, read.used_bytes, read.quota_bytes) == (2048000, 16384, 1 << 31)
    assert (read.known_peers, read.active_peers) == (2, 1)
    assert not read.is_learner


@pytest.mark.parametrize(
    ("fast", "every", "slow_s"),
    [(0, 999, None), (990, 1000, 0.001), (989, 1000, 0.032), (0, 0, None)],
)
def test_the_slowest_of_a_hundred_writes_is_told_when_there_were_enough(
    fast: int, every: int, slow_s: float | None
) -> None:
    assert etcd.read_metrics(metrics(fast=fast, every=every)).slow_write_s == slow_s


@pytest.mark.parametrize("line", [one for one in METRICS.splitlines() if "peers" not in one])
def test_a_member_that_leaves_out_what_matters_is_an_error(line: str) -> None:
    optional = ("learner", "bucket")
    text = metrics().replace(line, "") if not any(one in line for one in optional) else ""

    with pytest.raises(ValueError, match="among what etcd says"):
        etcd.read_metrics(text)


@pytest.mark.parametrize("before", ["", "HTTP/1.1 503 Service Unavailable\r\nX: y\r\n\r\n"])
def test_the_reason_is_read_by_curl_and_by_hand(before: str) -> None:
    read = etcd.read_health(before + '{"health":"false","reason":"ALARM NOSPACE"}\n')

    assert read == etcd.Health(is_well=False, reason="ALARM NOSPACE")


def test_a_member_that_is_well_says_so() -> None:
    assert etcd.read_health('{"health":"true","reason":""}').is_well


@pytest.mark.parametrize("text", ["", "{}", "404 page not found", "{", '{"health":', "[]"])
def test_another_answer_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="etcd says"):
        etcd.read_health(text)
