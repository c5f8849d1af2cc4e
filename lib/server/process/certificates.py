"""Choose the certificates that the server accepts from other servers over HTTPS."""

from __future__ import annotations

import os
import ssl


def trusted_certificates() -> ssl.SSLContext | bool:
    """Return the certificates that `requests`, which reads the archive, is configured to trust."""
    bundle = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
    if not bundle:
        return True
    is_folder = os.path.isdir(bundle)
    return ssl.create_default_context(cafile=None if is_folder else bundle, capath=bundle if is_folder else None)
