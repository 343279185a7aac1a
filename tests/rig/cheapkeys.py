"""Let restic's stores open at once: their key costs a test nothing to try a password on.

restic makes a key so that one try of a password takes half a second of processor time, and pays
that at every start: most of what tests of shares cost. `install` puts a ``restic`` on PATH
that is the real one, except that after ``init`` of a store on this machine it seals the store's
master key anew, under the same password, with the cheapest scrypt that restic accepts.

Limits: stores behind sftp and S3 keep the key that restic made.
Source: restic's design document, "Keys, Encryption and MAC".
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

CHEAPEST = {"N": 2, "r": 1, "p": 1}
NONCE_BYTES = MAC_BYTES = 16
ENCRYPT, MAC_K, MAC_R = slice(0, 32), slice(32, 48), slice(48, 64)  # of what scrypt derives
MEMORY_BYTES = 256 << 20  # what Python lets scrypt have


def install(directory: Path) -> bool:
    """Write a ``restic`` for PATH into `directory`; whether there is a real one."""
    real = shutil.which("restic")
    if real is None:
        return False
    wrapper = directory / "restic"
    init = shlex.join([sys.executable, "-I", __file__, real])
    wrapper.write_text(
        f'#!/bin/sh\nfor word; do case $word in init) exec {init} "$@";; esac; done\n'
        f'exec {shlex.quote(real)} "$@"\n'
    )
    wrapper.chmod(0o755)
    return True


def main() -> int:
    """Run the real ``init``, then make the key of the store cheap."""
    made = subprocess.run(sys.argv[1:], check=False)
    store = Path(sys.argv[sys.argv.index("--repo") + 1])
    if made.returncode == 0 and store.is_dir():
        [key] = (store / "keys").iterdir()
        cheap = json.dumps(cheapened(json.loads(key.read_bytes()))).encode()
        (store / "keys" / hashlib.sha256(cheap).hexdigest()).write_bytes(cheap)
        key.unlink()
    return made.returncode


def cheapened(key: dict[str, Any]) -> dict[str, Any]:
    """The same key file with the same master key, cheap to open."""
    password = os.environ["RESTIC_PASSWORD"].encode()
    master = unsealed(derived(password, key), base64.b64decode(key["data"]))
    cheap = key | CHEAPEST
    return cheap | {"data": base64.b64encode(sealed(derived(password, cheap), master)).decode()}


def derived(password: bytes, key: dict[str, Any]) -> bytes:
    """What the password gives with the salt and the cost of a key file."""
    salt, cost = base64.b64decode(key["salt"]), {"n": key["N"], "r": key["r"], "p": key["p"]}
    return hashlib.scrypt(password, salt=salt, dklen=64, maxmem=MEMORY_BYTES, **cost)


def unsealed(keys: bytes, sealed: bytes) -> bytes:
    """The content of nonce, ciphertext and code; the code is restic's to check."""
    return _counter(keys, sealed[:NONCE_BYTES], sealed[NONCE_BYTES:-MAC_BYTES])


def sealed(keys: bytes, content: bytes) -> bytes:
    """Nonce, ciphertext and Poly1305-AES code."""
    nonce = os.urandom(NONCE_BYTES)
    ciphertext = _counter(keys, nonce, content)
    block = Cipher(algorithms.AES(keys[MAC_K]), modes.ECB()).encryptor()  # noqa: S305 - one block
    pad = block.update(nonce)
    return nonce + ciphertext + Poly1305.generate_tag(keys[MAC_R] + pad, ciphertext)


def _counter(keys: bytes, nonce: bytes, content: bytes) -> bytes:
    return Cipher(algorithms.AES(keys[ENCRYPT]), modes.CTR(nonce)).encryptor().update(content)


if __name__ == "__main__":
    sys.exit(main())
