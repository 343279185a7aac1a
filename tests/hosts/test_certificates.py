"""What certificates say is read; what is damaged is an error that names the file."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
import trustme

from opsd.hosts import certificates

AUTHORITY = trustme.CA(organization_name="opsd tests")
END = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
LEAF = AUTHORITY.issue_cert(
    "api.example.test", "10.0.0.1", "::1", common_name="kube-apiserver", not_after=END
)
PEM = LEAF.cert_chain_pems[0].bytes().decode()


def test_a_certificate_says_for_whom_by_whom_and_until_when() -> None:
    (read,) = certificates.read_pem("/a.crt", PEM)

    assert (read.where, read.subject, read.not_after) == ("/a.crt", "kube-apiserver", END)
    assert read.names == {"api.example.test", "10.0.0.1", "::1"}
    assert not read.is_authority
    assert len(read.fingerprint) == 64


def test_an_authority_is_one_and_has_a_name_without_a_common_name() -> None:
    (read,) = certificates.read_pem("/ca.crt", AUTHORITY.cert_pem.bytes().decode())

    assert read.is_authority
    assert "opsd tests" in read.subject


def test_what_is_left_of_it_ends_at_its_end() -> None:
    (read,) = certificates.read_pem("/a.crt", PEM)

    assert read.left(END - timedelta(days=1)) == timedelta(days=1)
    assert read.left(END + timedelta(days=1)) == timedelta(days=-1)
    assert read.life == END - read.not_before


def test_all_certificates_of_a_file_are_read_and_what_stands_between_is_not() -> None:
    text = f"a note\n{PEM}\n{LEAF.private_key_pem.bytes().decode()}\n{PEM}"

    assert [one.subject for one in certificates.read_pem("/x", text)] == ["kube-apiserver"] * 2


def test_the_data_of_a_kubeconfig_is_read() -> None:
    encoded = base64.b64encode(PEM.encode()).decode()

    assert certificates.read_data("/admin.conf", encoded).subject == "kube-apiserver"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no certificate",
        PEM.replace("MII", "AAA"),
        PEM.replace("MII", "M*I"),
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----",
        "-----BEGIN CERTIFICATE-----\nZm9v\n-----END CERTIFICATE-----",
    ],
)
def test_what_is_no_certificate_is_an_error_that_names_the_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"^/etc/x\.crt: "):
        certificates.read_pem("/etc/x.crt", text)


@pytest.mark.parametrize("encoded", ["", "%%%", "AAAA", base64.b64encode(b"\xff\xfe").decode()])
def test_damaged_data_of_a_kubeconfig_is_an_error_that_names_the_file(encoded: str) -> None:
    with pytest.raises(ValueError, match=r"^/etc/x\.conf: "):
        certificates.read_data("/etc/x.conf", encoded)
