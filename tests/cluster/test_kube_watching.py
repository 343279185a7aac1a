"""Watching a real API server that restarts, freezes and forgets."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsd.clients.kube import watching
from opsd.clients.kube.access import find_cluster
from opsd.clients.kube.calls import Selection
from opsd.clients.kube.client import Kube
from opsd.clients.kube.errors import Expired
from opsd.clients.kube.objects import ConfigMap
from opsd.clients.kube.transport import Transport
from opsd.clients.kube.watching import Change, ChangeType, follow, watch
from opsd.clock import Deadline, SystemClock
from opsd.errors import DeadlineExceeded
from tests.faults import proxy as faults
from tests.rig.controlplane import ControlPlane
from tests.rig.kubeapi import Object

pytestmark = [pytest.mark.real, pytest.mark.cluster, pytest.mark.timeout(300)]

WITHIN_S = 120.0

Following = Callable[[Kube], "Follower"]


class Stoppable(SystemClock):
    """A clock on which every deadline passes at once."""

    stopped = False

    def monotonic(self) -> float:
        """Seconds, or the end of time."""
        return float("inf") if self.stopped else super().monotonic()


class Follower:
    """Somebody who follows the ConfigMaps of the namespace default, in a thread."""

    def __init__(self, kube: Kube) -> None:
        self.seen: queue.Queue[tuple[ChangeType, str]] = queue.Queue()
        self._clock = Stoppable()
        self._kube = Kube(kube.transport, deadline=Deadline(self._clock, kube.deadline.at))
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        selection = {"namespace": "default", "labels": "test"}
        try:
            for change in follow(self._kube, ConfigMap, **selection):
                self.seen.put((change.type, change.object.name))
        except DeadlineExceeded:
            return

    def next(self) -> tuple[ChangeType, str]:
        """The next change; fails when none comes."""
        return self.seen.get(timeout=WITHIN_S)

    def join(self) -> None:
        """Wait for its end."""
        self._thread.join(WITHIN_S)
        assert not self._thread.is_alive()

    def stop(self) -> None:
        """Let its time be over; what it waits for must end by itself."""
        self._clock.stopped = True


def settings(name: str) -> Object:
    metadata = {"namespace": "default", "name": name, "labels": {"test": "1"}}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}


def path(name: str) -> str:
    return f"/api/v1/namespaces/default/configmaps/{name}"


def through(front: faults.Proxy, kubeconfig: Path, *, within_s: float = WITHIN_S) -> Kube:
    """A client whose connections all go through the proxy."""
    text = kubeconfig.read_text().replace(f":{front.server[1]}", f":{front.port}")
    copy = kubeconfig.with_name("through-proxy.kubeconfig")
    copy.write_text(text)
    transport = Transport(lambda: find_cluster(kubeconfig=copy))
    return Kube(transport, deadline=Deadline.after(within_s, SystemClock()))


@pytest.fixture
def front(own_control_plane: ControlPlane) -> Iterator[faults.Proxy]:
    port = int(own_control_plane.url.rpartition(":")[2])
    with faults.in_front_of(port) as proxy:
        yield proxy


@pytest.fixture
def following(front: faults.Proxy) -> Iterator[Following]:
    """Begin to follow; it ends with the test."""
    followers: list[Follower] = []

    def begin(kube: Kube) -> Follower:
        followers.append(Follower(kube))
        return followers[-1]

    yield begin
    for follower in followers:
        follower.stop()
    front.close()
    for follower in followers:
        follower.join()


def test_nothing_is_lost_when_the_api_server_restarts_and_forgets(
    own_control_plane: ControlPlane,
    front: faults.Proxy,
    monkeypatch: pytest.MonkeyPatch,
    following: Following,
) -> None:
    monkeypatch.setattr(watching, "LONGEST_PAUSE_S", 2.0)
    api = own_control_plane.api
    for name in ("kept", "gone"):
        api.create(settings(name))
    follower = following(through(front, own_control_plane.kubeconfig()))
    first = {follower.next(), follower.next()}
    api.patch(path("kept"), {"data": {"a": "1"}})
    modified = follower.next()

    front.set(faults.REFUSE)
    api.delete(path("gone"))
    api.create(settings("new"))
    own_control_plane.apiserver.restart()  # its memory of what changed begins anew
    front.set(faults.PASS)
    after = {follower.next(), follower.next()}
    api.delete(path("new"))

    assert first == {(ChangeType.ADDED, "kept"), (ChangeType.ADDED, "gone")}
    assert modified == (ChangeType.MODIFIED, "kept")
    assert after == {(ChangeType.DELETED, "gone"), (ChangeType.ADDED, "new")}
    assert follower.next() == (ChangeType.DELETED, "new")
    assert follower.seen.empty()


def test_a_connection_that_fell_silent_is_noticed_and_nothing_is_lost(
    own_control_plane: ControlPlane,
    front: faults.Proxy,
    monkeypatch: pytest.MonkeyPatch,
    following: Following,
) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 3.0)
    api = own_control_plane.api
    api.create(settings("one"))
    follower = following(through(front, own_control_plane.kubeconfig()))
    first = follower.next()

    front.set(faults.MUTE)  # the connection stays open, and nothing comes through any more
    api.delete(path("one"))
    with pytest.raises(queue.Empty):
        follower.seen.get(timeout=1)
    front.set(faults.PASS)

    assert first == (ChangeType.ADDED, "one")
    assert follower.next() == (ChangeType.DELETED, "one")


def test_a_frozen_api_server_is_waited_for(
    own_control_plane: ControlPlane,
    front: faults.Proxy,
    monkeypatch: pytest.MonkeyPatch,
    following: Following,
) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 1.0)
    monkeypatch.setattr(watching, "LONGEST_PAUSE_S", 1.0)
    api = own_control_plane.api
    api.create(settings("one"))
    follower = following(through(front, own_control_plane.kubeconfig()))
    first = follower.next()

    own_control_plane.apiserver.freeze()
    with pytest.raises(queue.Empty):
        follower.seen.get(timeout=3)
    own_control_plane.apiserver.thaw()
    api.delete(path("one"))

    assert first == (ChangeType.ADDED, "one")
    assert follower.next() == (ChangeType.DELETED, "one")


def test_a_version_that_the_api_server_forgot_is_told(
    own_control_plane: ControlPlane, front: faults.Proxy
) -> None:
    kube = through(front, own_control_plane.kubeconfig())
    own_control_plane.apiserver.restart()

    with pytest.raises(Expired, match=r"^watch configmaps: 410"):
        next(watch(kube, ConfigMap, Selection(), since="1"))


def test_a_version_of_the_future_is_noticed_by_its_silence(
    own_control_plane: ControlPlane, front: faults.Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SILENCE_S", 2.0)
    kube = through(front, own_control_plane.kubeconfig())

    with pytest.raises(Expired, match="its version may be lost"):
        next(watch(kube, ConfigMap, Selection(), since="999999999"))


def test_a_watch_ends_with_its_deadline_although_nothing_happens(
    own_control_plane: ControlPlane, front: faults.Proxy, following: Following
) -> None:
    own_control_plane.api.create(settings("one"))
    follower = following(through(front, own_control_plane.kubeconfig(), within_s=3))

    follower.join()

    assert follower.next() == (ChangeType.ADDED, "one")


@pytest.mark.long
def test_bookmarks_keep_a_quiet_watch_alive(
    own_control_plane: ControlPlane, front: faults.Proxy
) -> None:
    kube = through(front, own_control_plane.kubeconfig(), within_s=90)
    changes: list[Change[ConfigMap]] = []
    before = front.connections

    with pytest.raises(DeadlineExceeded):
        changes.extend(watch(kube, ConfigMap, Selection(labels="nothing"), since=latest(kube)))

    assert changes == []
    assert front.connections - before == 2  # one for the list, one for the watch


def latest(kube: Kube) -> str:
    [*_, page] = kube.pages(ConfigMap, Selection())
    return page.metadata.resource_version
