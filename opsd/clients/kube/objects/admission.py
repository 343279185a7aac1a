"""What stands between a request and the API server's storage: webhooks, and other APIs."""

from __future__ import annotations

from typing import ClassVar

from opsd.clients.kube.objects.base import Condition, LabelSelector, Object, Resource, Struct


class ServiceReference(Struct):
    """A Service that the API server calls."""

    namespace: str = ""
    name: str = ""


class WebhookTarget(Struct):
    """Whom the API server asks: a Service, or a URL."""

    service: ServiceReference | None = None
    url: str = ""
    ca_bundle: str = ""  #: base64 of PEM: a public certificate


class WebhookRule(Struct):
    """Which requests it is asked about."""

    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()


class Webhook(Struct):
    """One question that is asked before a request is carried out."""

    name: str = ""
    client_config: WebhookTarget = WebhookTarget()
    rules: tuple[WebhookRule, ...] = ()
    failure_policy: str = "Fail"  #: Fail: without an answer the request is refused; Ignore
    namespace_selector: LabelSelector = LabelSelector()
    timeout_seconds: int = 10


class ValidatingWebhookConfiguration(Object):
    """Webhooks that may refuse."""

    resource: ClassVar[Resource] = Resource(
        "admissionregistration.k8s.io/v1",
        "validatingwebhookconfigurations",
        "ValidatingWebhookConfiguration",
        namespaced=False,
    )

    webhooks: tuple[Webhook, ...] = ()


class MutatingWebhookConfiguration(Object):
    """Webhooks that may change the object."""

    resource: ClassVar[Resource] = Resource(
        "admissionregistration.k8s.io/v1",
        "mutatingwebhookconfigurations",
        "MutatingWebhookConfiguration",
        namespaced=False,
    )

    webhooks: tuple[Webhook, ...] = ()


class APIServiceSpec(Struct):
    """Who serves it."""

    service: ServiceReference | None = None  #: None: the API server itself
    group: str = ""
    version: str = ""


class APIServiceStatus(Struct):
    """Whether it answers."""

    conditions: tuple[Condition, ...] = ()


class APIService(Object):
    """A group and version of the API, and who serves it."""

    resource: ClassVar[Resource] = Resource(
        "apiregistration.k8s.io/v1", "apiservices", "APIService", namespaced=False
    )

    spec: APIServiceSpec = APIServiceSpec()
    status: APIServiceStatus = APIServiceStatus()


class EndpointConditions(Struct):
    """Whether it takes requests; None: nobody said, which counts as yes."""

    ready: bool | None = None


class Endpoint(Struct):
    """One pod behind a Service."""

    addresses: tuple[str, ...] = ()
    node_name: str = ""
    conditions: EndpointConditions = EndpointConditions()


class EndpointSlice(Object):
    """Some of the pods behind a Service; its label names the Service."""

    resource: ClassVar[Resource] = Resource(
        "discovery.k8s.io/v1", "endpointslices", "EndpointSlice"
    )

    endpoints: tuple[Endpoint, ...] | None = ()

    @property
    def service(self) -> str:
        """Name of the Service, in its namespace."""
        return self.labels.get("kubernetes.io/service-name", "")
