"""Does every webhook that can refuse requests have somebody who answers?

While its only pod is drained away, a webhook with failurePolicy Fail refuses every request that
it is asked about: the drain of the next node, the pods that should come back, kubeadm's own.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import timedelta

from opsd.clients.kube.objects import Endpoint, EndpointSlice, ServiceReference, Webhook
from opsd.hosts import certificates
from opsd.upgrade.check import Check, Hop, Note, failed, passed, skipped, unknown, warned
from opsd.upgrade.facts import Facts, WebhookConfiguration

CA_ENDS_SOON = timedelta(days=30)
_WEIGHTY = frozenset(("*", "pods", "nodes", "pods/eviction", "configmaps", "daemonsets"))


def _webhooks(facts: Facts, _: Hop) -> Iterator[Note]:
    configurations = facts.webhooks.value
    strict = [
        (configuration, webhook)
        for configuration in configurations
        for webhook in configuration.webhooks
        if webhook.failure_policy == "Fail"
    ]
    if not strict:
        yield skipped("webhooks", "none that refuses without an answer")
        return
    slices = facts.slices.value
    for configuration, webhook in strict:
        service = webhook.client_config.service
        if service is None:
            yield _at_url(configuration, webhook)
        else:
            yield _at_service(configuration, webhook, service, slices)


def _at_url(configuration: WebhookConfiguration, webhook: Webhook) -> Note:
    where = f"{configuration} {webhook.name}"
    return warned(where, f"is asked at {webhook.client_config.url}: see yourself that it answers")


def _at_service(
    configuration: WebhookConfiguration,
    webhook: Webhook,
    service: ServiceReference,
    slices: tuple[EndpointSlice, ...],
) -> Note:
    where = f"{configuration} {webhook.name}"
    ready = [
        endpoint
        for one in slices
        if (one.namespace, one.service) == (service.namespace, service.name)
        for endpoint in one.endpoints or ()
        if _answers(endpoint)
    ]
    nodes = {endpoint.node_name for endpoint in ready}
    place = f"service {service.namespace}/{service.name}"
    if not ready:
        return failed(where, f"{place} has no ready endpoint: {_effect(webhook)}")
    if len(nodes) < 2:  # noqa: PLR2004 - one drain takes all
        told = f"{place} is on one node only ({', '.join(nodes) or 'unknown'})"
        return warned(where, f"{told}: while it is drained, {_effect(webhook)}")
    return passed(where, f"{place} is on {len(nodes)} nodes")


def _answers(endpoint: Endpoint) -> bool:
    return endpoint.conditions.ready is not False


def _effect(webhook: Webhook) -> str:
    asked = sorted({resource for rule in webhook.rules for resource in rule.resources})
    weight = "even those of an upgrade" if _WEIGHTY & set(asked) else "of nothing vital"
    return f"requests about {', '.join(asked) or 'nothing'} are refused, {weight}"


def _authorities(facts: Facts, _: Hop) -> Iterator[Note]:
    seen = 0
    for configuration in facts.webhooks.value:
        for webhook in configuration.webhooks:
            if bundle := webhook.client_config.ca_bundle:
                seen += 1
                yield _authority(f"{configuration} {webhook.name}", bundle, facts)
    if not seen:
        yield skipped("webhooks", "none with a certificate authority of its own")


def _authority(where: str, bundle: str, facts: Facts) -> Note:
    try:
        pem = base64.b64decode(bundle, validate=True).decode("ascii")
        found = certificates.read_pem(where, pem)
    except (binascii.Error, ValueError) as exc:
        return unknown(where, f"caBundle cannot be read: {exc}")
    ends = max(one.not_after for one in found)
    if ends < facts.at:
        return failed(where, f"its authority expired {ends:%Y-%m-%d}: no call to it works")
    if ends - facts.at < CA_ENDS_SOON:
        return warned(where, f"its authority expires {ends:%Y-%m-%d}")
    return passed(where, f"its authority is valid until {ends:%Y-%m-%d}")


CHECKS = (
    Check(
        id="webhooks",
        title="Every webhook that can refuse has somebody who answers, on two nodes",
        row=39,
        judge=_webhooks,
        fix="mend its pods, or give it a second one on another node; if its program is gone, "
        "delete the webhook configuration",
        source="kubernetes.io, Admission Webhook Good Practices",
    ),
    Check(
        id="webhook-authorities",
        title="The certificates by which webhooks are trusted are valid",
        row=39,
        judge=_authorities,
        fix="renew them: cert-manager's cainjector, or the program's own job",
        source="kubernetes.io, Dynamic Admission Control",
    ),
)
