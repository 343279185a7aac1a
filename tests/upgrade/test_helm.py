"""What a Helm release holds is read from the Secret in which Helm keeps it."""

from __future__ import annotations

import base64
import gzip
import json

import pytest

from opsd.clients.kube.objects import Metadata, Secret
from opsd.upgrade.helm import objects_of, release_of

MANIFEST = """\
---
# Source: shop/templates/pdb.yaml
apiVersion: policy/v1beta1
kind: PodDisruptionBudget
metadata:
  labels:
    app: shop
  name: "shop"
spec: {}
---
kind: 'Ingress'
apiVersion: "networking.k8s.io/v1"
metadata:
  name: shop-ingress
---
"""


def secret(release: str) -> Secret:
    metadata = Metadata(
        name="sh.helm.release.v1.shop.v3", namespace="web", labels={"name": "shop"}
    )
    return Secret(metadata=metadata, data={"release": release})


def packed(content: object) -> str:
    zipped = gzip.compress(json.dumps(content).encode())
    return base64.b64encode(base64.b64encode(zipped)).decode()


def test_the_objects_of_a_release_are_read() -> None:
    release = release_of(secret(packed({"name": "shop", "manifest": MANIFEST})))

    assert (release.namespace, release.name) == ("web", "shop")
    assert [str(one) for one in release.objects] == [
        "policy/v1beta1 PodDisruptionBudget shop",
        "networking.k8s.io/v1 Ingress shop-ingress",
    ]


@pytest.mark.parametrize(
    "release",
    ["", "no base64!", base64.b64encode(base64.b64encode(b"no gzip")).decode(), packed("text")],
)
def test_what_is_no_release_is_refused_and_never_shown(release: str) -> None:
    with pytest.raises(ValueError, match="holds no release") as caught:
        release_of(secret(release))

    assert "gzip" not in str(caught.value)


def test_a_document_that_is_no_object_is_passed_over() -> None:
    assert list(objects_of("---\nreplicas: 3\n---\n{{ broken")) == []
