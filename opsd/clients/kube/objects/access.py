"""How pods are reached, what they are told, and who may do what."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import ClassVar

from opsd.clients.kube.objects.base import Object, Resource, Struct
from opsd.errors import PermanentError
from opsd.secrets import conceal


class ServicePort(Struct):
    """A port and where it leads."""

    name: str = ""
    port: int = 0
    target_port: int | str = 0  #: number, or the name of a container's port; 0: the same
    node_port: int = 0
    protocol: str = "TCP"


class ServiceSpec(Struct):
    """Which pods are reached, by which address."""

    type: str = ""  #: ClusterIP, NodePort, LoadBalancer, ExternalName
    cluster_ip: str = ""  #: ``None`` for a headless one
    external_name: str = ""
    selector: Mapping[str, str] = {}
    external_ips: tuple[str, ...] = ()
    ports: tuple[ServicePort, ...] = ()


class Service(Object):
    """A lasting address for pods that come and go."""

    resource: ClassVar[Resource] = Resource("v1", "services", "Service")

    spec: ServiceSpec = ServiceSpec()


class ConfigMap(Object):
    """Settings."""

    resource: ClassVar[Resource] = Resource("v1", "configmaps", "ConfigMap")

    data: Mapping[str, str] = {}


class Secret(Object):
    """Values that nobody should see: neither printing it nor an error shows one."""

    resource: ClassVar[Resource] = Resource("v1", "secrets", "Secret")

    type: str = ""
    data: Mapping[str, str] = {}  #: base64, as the API has it

    def reveal(self, key: str) -> str:
        """The value of a key as text; logs and messages show a mask for it from now on.

        Raises:
            PermanentError: there is no such key, or it holds no text.
        """
        try:
            value = base64.b64decode(self.data[key], validate=True).decode()
        except KeyError:
            known = ", ".join(self.data) or "none"
            raise PermanentError(f"{self}: it has no key {key} (has: {known})") from None
        except (binascii.Error, UnicodeDecodeError):
            raise PermanentError(f"{self}: the value of {key} is no text") from None
        conceal(value)
        return value

    def __repr__(self) -> str:
        return f"Secret({self.namespace}/{self.name}, keys={list(self.data)})"


class ServiceAccount(Object):
    """Who a pod is to the API server."""

    resource: ClassVar[Resource] = Resource("v1", "serviceaccounts", "ServiceAccount")


class ValidatingAdmissionPolicy(Object):
    """A rule by which the API server refuses requests."""

    resource: ClassVar[Resource] = Resource(
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies",
        "ValidatingAdmissionPolicy",
        namespaced=False,
    )


class ValidatingAdmissionPolicyBinding(Object):
    """Where such a rule holds."""

    resource: ClassVar[Resource] = Resource(
        "admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
        "ValidatingAdmissionPolicyBinding",
        namespaced=False,
    )


class CrdVersion(Struct):
    """One version of a kind of an operator."""

    name: str = ""
    served: bool = False
    storage: bool = False  #: new objects are stored in it


class CrdSpec(Struct):
    """Which versions there are."""

    group: str = ""
    versions: tuple[CrdVersion, ...] = ()


class CrdStatus(Struct):
    """In which versions objects have been stored, and may still be."""

    stored_versions: tuple[str, ...] = ()


class CustomResourceDefinition(Object):
    """A kind of an operator."""

    resource: ClassVar[Resource] = Resource(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        namespaced=False,
    )

    spec: CrdSpec = CrdSpec()
    status: CrdStatus = CrdStatus()
