"""Few lines of many are read from the metrics of a program."""

from __future__ import annotations

from datetime import UTC, datetime

from opsd.upgrade.gather import kubelet_metrics, server_metrics
from opsd.upgrade.metrics import samples
from opsd.upgrade.version import Minor

#: Lines of a real API server 1.35.4, and some that are broken.
SERVER = """\
# HELP apiserver_requested_deprecated_apis [STABLE] Gauge of deprecated APIs
# TYPE apiserver_requested_deprecated_apis gauge
apiserver_requested_deprecated_apis{group="",removed_release="",resource="endpoints",subresource="",version="v1"} 1
apiserver_requested_deprecated_apis{group="networking.k8s.io",removed_release="1.37",resource="servicecidrs",subresource="status",version="v1beta1"} 1
apiserver_request_total{code="200",component="apiserver",dry_run="",group="networking.k8s.io",resource="servicecidrs",scope="cluster",subresource="",verb="LIST",version="v1beta1"} 3
apiserver_request_total{code="404",component="apiserver",dry_run="",group="networking.k8s.io",resource="servicecidrs",scope="cluster",subresource="",verb="GET",version="v1beta1"} 4
apiserver_request_total{code="200",group="apps",resource="deployments",verb="LIST",version="v1"} 9
apiserver_request_total{code="200" 3
process_start_time_seconds 1.76e+09
other_metric{group="networking.k8s.io"} 1
"""  # noqa: E501


def test_deprecated_uses_are_read_with_how_often_they_were_asked_for() -> None:
    names = (
        "apiserver_requested_deprecated_apis",
        "apiserver_request_total",
        "process_start_time_seconds",
    )
    metrics = server_metrics(samples(SERVER.splitlines(), names))

    endpoints, ranges = metrics.deprecated
    assert (endpoints.removed_in, ranges.removed_in) == (None, Minor(1, 37))
    assert str(ranges) == "servicecidrs/status.v1beta1.networking.k8s.io"
    assert metrics.requests == {("networking.k8s.io", "v1beta1", "servicecidrs"): 7}
    assert metrics.started_at == datetime.fromtimestamp(1.76e9, UTC)


def test_only_the_names_that_are_wanted_are_read() -> None:
    found = list(samples(SERVER.splitlines(), ("other_metric",)))

    assert [(one.name, dict(one.labels), one.value) for one in found] == [
        ("other_metric", {"group": "networking.k8s.io"}, 1.0)
    ]


def test_quoted_characters_in_labels_are_read() -> None:
    (sample,) = samples([r'm{a="x\"}{ \\ \n",b="2"} +Inf 1700000000'], ("m",))

    assert sample.labels == {"a": 'x"}{ \\ \n', "b": "2"}
    assert sample.value == float("inf")


def test_a_kubelet_says_which_release_will_not_take_its_runtime() -> None:
    lines = ["kubelet_cgroup_version 2", 'cri_losing_support{version="1.38.0"} 1']

    metrics = kubelet_metrics(samples(lines, ("kubelet_cgroup_version", "cri_losing_support")))

    assert (metrics.cgroup, metrics.losing_support) == (2, Minor(1, 38))


def test_a_kubelet_that_says_zero_loses_nothing() -> None:
    lines = ['cri_losing_support{version="1.38"} 0']

    assert kubelet_metrics(samples(lines, ("cri_losing_support",))).losing_support is None
